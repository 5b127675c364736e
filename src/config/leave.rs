//! `on_down` and `on_up` of a pool: what happens to sessions that have to leave their backend; and
//! the pace of `drain --reset`.

use std::fmt;

use crate::policy::terms::Word;

use super::file::{Value, shown};
use super::key::RATE_PER_SECOND_MAX;
use super::report::{Finding, Report};
use super::scalar;
use super::units::{self, EventRate, show_rate};

/// What happens to sessions that have to leave their backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaveConfig {
    /// They go on.
    #[default]
    Keep,
    /// All are reset at once.
    Reset,
    /// They are reset at this rate, over all workers.
    Pace(EventRate),
}

/// A [`LeaveConfig`] up to the rate of `pace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaveForm {
    /// Sessions go on.
    Keep,
    /// All are reset at once.
    Reset,
    /// They are reset at the rate that follows.
    Pace,
}

impl Word for LeaveForm {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", Self::Keep), ("reset", Self::Reset), ("pace ", Self::Pace)];
}

/// Whatever begins with `pace` is read before; here it only stands for the list of what may be
/// written.
const LEAVE: &[(&str, LeaveForm)] =
    &[("keep", LeaveForm::Keep), ("reset", LeaveForm::Reset), ("pace 10/s", LeaveForm::Pace)];

/// Reads `on_down` or `on_up`.
pub(super) fn leave(value: &Value<'_>, report: &mut Report<'_>) -> Option<LeaveConfig> {
    match value.text().and_then(|text| text.strip_prefix("pace")) {
        Some(rate) => read_pace(value, rate, report),
        None => match scalar::word(value, LEAVE, report)? {
            LeaveForm::Reset => Some(LeaveConfig::Reset),
            LeaveForm::Keep | LeaveForm::Pace => Some(LeaveConfig::Keep),
        },
    }
}

/// Reads what follows `pace`.
fn read_pace(value: &Value<'_>, text: &str, report: &mut Report<'_>) -> Option<LeaveConfig> {
    let read = units::rate_behind("pace ", text, "\"keep\" is the word for none");
    let wrong = match read.and_then(|rate| within_bounds(rate, "\"reset\" is all at once")) {
        Ok(rate) => return Some(LeaveConfig::Pace(rate)),
        Err(remedy) => remedy,
    };
    let text = value.text().map(shown).unwrap_or_default();
    let finding = Finding::new(format!("`{}` cannot be \"{text}\"", shown(&value.name)))
        .expected("sessions to reset in a time, such as \"pace 10/s\"")
        .hint(wrong);
    report.error(&value.place, finding);
    None
}

/// Reads the pace of `drain --reset`, such as `10/s`.
///
/// # Errors
/// The remedy, to be shown as a hint.
pub fn pace(text: &str) -> Result<EventRate, String> {
    let rate = units::rate_behind("", text, "leave the pace out to reset all at once")?;
    within_bounds(rate, "leave the pace out to reset all at once")
}

fn within_bounds(rate: EventRate, remedy: &str) -> Result<EventRate, String> {
    if rate.count <= RATE_PER_SECOND_MAX.saturating_mul(rate.period.as_secs()) {
        return Ok(rate);
    }
    Err(format!("at most {RATE_PER_SECOND_MAX} per second; {remedy}"))
}

impl fmt::Display for LeaveConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => out.write_str("keep"),
            Self::Reset => out.write_str("reset"),
            Self::Pace(rate) => write!(out, "pace {}", show_rate(*rate)),
        }
    }
}
