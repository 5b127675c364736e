//! Keys of a pool that say how sessions are spread and kept: from the value to what it means.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::file::{Section, Value, shown};
use super::keys::{RATE_PER_SECOND_MAX, Shape};
use super::report::{Finding, Report};
use super::scalar;
use super::units;
use super::words::OnDownForm;
use super::{OnDownConfig, Queue, StickyConfig};

/// Whatever begins with `pace` is read before; here it only stands for the list of what may be
/// written.
const ON_DOWN: &[(&str, OnDownForm)] =
    &[("keep", OnDownForm::Keep), ("reset", OnDownForm::Reset), ("pace 10/s", OnDownForm::Pace)];

/// Reads `on_down`.
pub(super) fn on_down(value: &Value<'_>, report: &mut Report<'_>) -> Option<OnDownConfig> {
    match value.text().and_then(|text| text.strip_prefix("pace")) {
        Some(rate) => pace(value, rate, report),
        None => match scalar::word(value, ON_DOWN, report)? {
            OnDownForm::Reset => Some(OnDownConfig::Reset),
            OnDownForm::Keep | OnDownForm::Pace => Some(OnDownConfig::Keep),
        },
    }
}

/// Reads what follows `pace`.
fn pace(value: &Value<'_>, text: &str, report: &mut Report<'_>) -> Option<OnDownConfig> {
    let wrong = match units::rate_behind("pace ", text, "\"keep\" is the word for none") {
        Ok(rate) if rate.count <= RATE_PER_SECOND_MAX.saturating_mul(rate.period.as_secs()) => {
            return Some(OnDownConfig::Pace(rate));
        }
        Ok(_) => format!("at most {RATE_PER_SECOND_MAX} per second; \"reset\" is all at once"),
        Err(remedy) => remedy,
    };
    let text = value.text().map(shown).unwrap_or_default();
    let finding = Finding::new(format!("`{}` cannot be \"{text}\"", shown(&value.name)))
        .expected("sessions to reset in a time, such as \"pace 10/s\"")
        .hint(wrong);
    report.error(&value.place, finding);
    None
}

/// Reads `queue`; `None` when no client may wait.
pub(super) fn queue(pool: &Section<'_>, report: &mut Report<'_>) -> Option<Queue> {
    let section = pool.open("queue", report)?;
    let max = section.count32_or_default("max", report);
    let timeout = section.duration_or_default("timeout", report);
    if max == 0 || section.partial {
        return None;
    }
    if timeout.is_zero() {
        let place = section.get("max").map_or_else(|| section.header(), |value| value.place);
        let finding = Finding::new("this queue lets nobody wait")
            .expected("a `timeout` above 0s beside `max`")
            .hint("add `timeout = \"10s\"`");
        report.error(&place, finding);
    }
    Some(Queue { max, timeout })
}

/// Reads `sticky`.
pub(super) fn sticky(pool: &Section<'_>, report: &mut Report<'_>) -> Option<StickyConfig> {
    let section = pool.open("sticky", report)?;
    Some(StickyConfig {
        time: section.whole_seconds("for", "", report),
        size: section.count32_or_default("size", report),
    })
}

/// Reads `load_factor`, in thousandths.
pub(super) fn load_factor(section: &Section<'_>, report: &mut Report<'_>) -> Option<u32> {
    let Shape::Factor(from, to) = section.key("load_factor")?.shape else { return None };
    section.read("load_factor", report, |value, report| factor(value, from..=to, report)).value()
}

fn factor(value: &Value<'_>, bounds: RangeInclusive<u32>, report: &mut Report<'_>) -> Option<u32> {
    const EXPECTED: &str = "a float from 1.0 to 100.0, with at most three digits behind the point";
    let DeValue::Float(number) = value.data else {
        let text = value.text().map(str::to_owned).or_else(|| scalar::number_text(value.data));
        let read = text.and_then(|text| units::thousandths(&text));
        scalar::wrong_type(value, EXPECTED, read.map(units::show_thousandths), report);
        return None;
    };
    let read = units::thousandths(number.as_str());
    let read = read.filter(|factor| bounds.contains(factor));
    if read.is_none() {
        let text = shown(number.as_str());
        let finding = Finding::new(format!("`load_factor` cannot be {text}")).expected(EXPECTED);
        report.error(&value.place, finding.hint("1.25 is a quarter more than the mean"));
    }
    read
}
