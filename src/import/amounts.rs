//! Times and rates of other programs, as evenkeel writes them.

use std::time::Duration;

use crate::config::units::show_duration;

use super::draft::{KeyLines, quoted};

/// Shortest and longest time of most keys.
const TIME_MIN: Duration = Duration::from_millis(1);
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Largest number of a rate in a window, and per second of a bucket.
const WINDOW_MAX: u64 = 100_000;
const PER_SECOND_MAX: u64 = 1_000_000;
/// The periods that a rate may have, in seconds.
const PERIODS: [(u64, &str); 4] = [(1, "s"), (60, "min"), (3600, "h"), (86_400, "d")];
/// The longest time in which a burst has to be back.
const BURST_BACK_SECONDS_MAX: u64 = 30 * 86_400;

/// A time within what keys accept, in quotes.
pub(super) fn time(value: Duration) -> String {
    let micros = value.clamp(TIME_MIN, TIME_MAX).as_micros();
    let micros = u64::try_from(micros).unwrap_or(u64::MAX);
    quoted(&show_duration(Duration::from_micros(micros)))
}

/// A time made of a number and a factor in microseconds; bounded instead of overflowing.
pub(super) fn micros(number: u64, factor: u64) -> Duration {
    Duration::from_micros(number.saturating_mul(factor)).min(TIME_MAX)
}

/// How near a rate of evenkeel comes to `count` in a `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateFit {
    /// At most `count` in any period, as near as both programs measure it.
    Same,
    /// A bucket of `count` that fills in the period: up to twice as many in one period.
    Bucket,
    /// The bucket fills a little more slowly, for want of a finer rate.
    Rounded,
}

/// Sets `rate`, and what belongs to it, for `count` connections in a period; `None` where no rate
/// of evenkeel comes near.
pub(super) fn set_rate(limit: &mut KeyLines, count: u64, period: Duration) -> Option<RateFit> {
    let seconds = period.as_secs();
    if count == 0 || seconds == 0 || period.subsec_nanos() != 0 {
        return None;
    }
    let window = PERIODS.iter().find(|(length, _)| *length == seconds);
    if let Some((_, unit)) = window.filter(|_| count <= WINDOW_MAX) {
        limit.set_text("algorithm", "sliding-window");
        limit.set_text("rate", &format!("{count}/{unit}"));
        return Some(RateFit::Same);
    }
    let in_unit = |length: u64| count.checked_mul(length).map(|product| product / seconds);
    let is_exact = |length: u64| count.checked_mul(length).is_some_and(|all| all % seconds == 0);
    let exact = PERIODS.iter().find(|(length, _)| is_exact(*length));
    let (length, unit) = exact.copied().unwrap_or((86_400, "d"));
    let number = in_unit(length).filter(|number| *number > 0)?;
    let is_in_bounds = number / length < PER_SECOND_MAX && count <= u64::from(u32::MAX);
    if !is_in_bounds || seconds > BURST_BACK_SECONDS_MAX {
        return None;
    }
    limit.set_text("rate", &format!("{number}/{unit}"));
    limit.set("burst", count);
    Some(if exact.is_some() { RateFit::Bucket } else { RateFit::Rounded })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u64, seconds: u64) -> (Option<RateFit>, String) {
        let mut limit = KeyLines::default();
        let fit = set_rate(&mut limit, count, Duration::from_secs(seconds));
        (fit, limit.inline())
    }

    // If this fails, clients get another rate than the peer gave them.
    #[test]
    fn rates_keep_their_number_and_period() {
        let window = "{ algorithm = \"sliding-window\", rate = \"20/min\" }";
        assert_eq!(rate(20, 60), (Some(RateFit::Same), window.to_owned()));
        let bucket = "{ rate = \"10/s\", burst = 100 }";
        assert_eq!(rate(100, 10), (Some(RateFit::Bucket), bucket.to_owned()));
        let minutes = "{ rate = \"200/min\", burst = 10 }";
        assert_eq!(rate(10, 3), (Some(RateFit::Bucket), minutes.to_owned()));
        let rounded = "{ rate = \"54981/d\", burst = 7 }";
        assert_eq!(rate(7, 11), (Some(RateFit::Rounded), rounded.to_owned()));
        assert_eq!(rate(0, 10).0, None);
    }
}
