//! `on_down` of a pool: what happens to sessions of a backend that goes down.

use std::fmt;

use crate::policy::terms::Word;

use super::file::{Value, shown};
use super::key::RATE_PER_SECOND_MAX;
use super::report::{Finding, Report};
use super::scalar;
use super::units::{self, EventRate, show_rate};

/// What happens to sessions of a backend that goes down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDownConfig {
    /// They go on.
    #[default]
    Keep,
    /// All are reset at once.
    Reset,
    /// They are reset at this rate, over all workers.
    Pace(EventRate),
}

/// `on_down` up to the rate of `pace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDownForm {
    /// Sessions go on.
    Keep,
    /// All are reset at once.
    Reset,
    /// They are reset at the rate that follows.
    Pace,
}

impl Word for OnDownForm {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", Self::Keep), ("reset", Self::Reset), ("pace ", Self::Pace)];
}

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

impl fmt::Display for OnDownConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => out.write_str("keep"),
            Self::Reset => out.write_str("reset"),
            Self::Pace(rate) => write!(out, "pace {}", show_rate(*rate)),
        }
    }
}
