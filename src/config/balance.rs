//! Keys of a pool that say how sessions are spread and kept: from the value to what it means.

use std::time::Duration;

use super::file::{Value, shown};
use super::report::{Finding, Report};
use super::scalar::{self, RATE_PER_SECOND_MAX, Words};
use super::units;
use super::{OnDown, Rate};

/// The pace that messages show as an example.
const SAMPLE: OnDown = OnDown::Pace(Rate { count: 10, period: Duration::from_secs(1) });

/// Whatever begins with `pace` is read before; here it only stands for the list of what may be
/// written.
const ON_DOWN: &Words<OnDown> = &[
    ("keep", Some(OnDown::Keep)),
    ("reset", Some(OnDown::Reset)),
    ("pace 10/s", Some(SAMPLE)),
];

/// Reads `on_down`.
pub(super) fn on_down(value: &Value<'_>, report: &mut Report<'_>) -> Option<OnDown> {
    match value.text().and_then(|text| text.strip_prefix("pace")) {
        Some(rate) => pace(value, rate, report),
        None => scalar::word(value, ON_DOWN, report),
    }
}

/// Reads what follows `pace`.
fn pace(value: &Value<'_>, text: &str, report: &mut Report<'_>) -> Option<OnDown> {
    let wrong = match units::rate(text) {
        Ok(rate) if rate.count <= RATE_PER_SECOND_MAX.saturating_mul(rate.period.as_secs()) => {
            return Some(OnDown::Pace(rate));
        }
        Ok(_) => format!("at most {RATE_PER_SECOND_MAX} per second; \"reset\" is all at once"),
        Err(remedy) if remedy.contains("leave the key out") => {
            "at least 1; \"keep\" is the word for none".to_owned()
        }
        Err(remedy) => remedy.replace("write \"", "write \"pace "),
    };
    let text = value.text().map(shown).unwrap_or_default();
    let finding = Finding::new(format!("`{}` cannot be \"{text}\"", shown(&value.name)))
        .expected("sessions to reset in a time, such as \"pace 10/s\"")
        .hint(wrong);
    report.error(&value.place, finding);
    None
}
