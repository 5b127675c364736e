//! Times and sizes as nginx writes them.

use std::time::Duration;

use crate::import::amounts::micros;

/// A time: `30s`, `1h30m`, `500ms`; seconds, unless a unit follows.
pub(super) fn nginx_time(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|letter: char| !letter.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at(letters.unwrap_or(behind.len()));
        let seconds = match unit {
            "ms" => 0,
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            "M" => 30 * 86_400,
            "y" => 365 * 86_400,
            _ => return None,
        };
        let number = number.parse().ok()?;
        let factor = if seconds == 0 { 1000 } else { seconds * 1_000_000 };
        total = total.saturating_add(micros(number, factor));
        rest = behind.trim_start();
    }
    Some(total)
}

/// A size in bytes: `16k`, `1m`, `1g`.
pub(super) fn nginx_size(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// `on` or `off`.
pub(super) fn is_on(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a timeout or a bandwidth is another than nginx's.
    #[test]
    fn a_bare_time_is_seconds() {
        assert_eq!(nginx_time("10"), Some(Duration::from_secs(10)));
        assert_eq!(nginx_time("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(nginx_time("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(nginx_time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(nginx_time("x"), None);
        assert_eq!(nginx_size("16k"), Some(16_384));
        assert_eq!(nginx_size("é"), None);
    }
}
