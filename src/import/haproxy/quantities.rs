//! Times, sizes and networks as HAProxy writes them (its manual, sections 2.5 and 7.1).

use std::time::Duration;

use ipnet::IpNet;

use crate::import::amounts::micros;
use crate::import::networks::network;

/// A time: milliseconds, unless a unit follows. Zero is as good as none.
pub(super) fn haproxy_time(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1,
        "" | "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let time = micros(number.parse().ok()?, factor);
    (!time.is_zero()).then_some(time)
}

/// A number of entries or bytes: `100k`, `1m`, `1g`.
pub(super) fn haproxy_size(text: &str) -> Option<u64> {
    let (number, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (text.get(..text.len() - 1)?, 10),
        b'm' => (text.get(..text.len() - 1)?, 20),
        b'g' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Networks, all of them, or why not.
pub(super) fn haproxy_networks(words: &[String]) -> Result<Vec<IpNet>, String> {
    if words.is_empty() {
        return Err("it names no network".to_owned());
    }
    words
        .iter()
        .map(|word| network(word).ok_or_else(|| format!("`{word}` is no network")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a timeout is a thousand times too long or too short.
    #[test]
    fn a_bare_time_is_milliseconds() {
        assert_eq!(haproxy_time("5000"), Some(Duration::from_secs(5)));
        assert_eq!(haproxy_time("5s"), Some(Duration::from_secs(5)));
        assert_eq!(haproxy_time("2m"), Some(Duration::from_secs(120)));
        assert_eq!(haproxy_time("0"), None);
        assert_eq!(haproxy_time("5x"), None);
        assert_eq!(haproxy_size("100k"), Some(102_400));
        assert_eq!(haproxy_size("é"), None);
    }
}
