//! Values that carry a unit: durations, rates, sizes, percentages, as written and as shown.
//!
//! The grammar is smaller than that of general date libraries on purpose: no signs, no words, no
//! calendar units, nothing finer than a microsecond. Every refusal says what to write instead, and
//! what is shown parses again to the same value. A day is 24 hours.

use std::time::Duration;

/// `count` events per `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRate {
    /// Events; at least 1.
    pub count: u64,
    /// 1 s, 1 min, 1 h or 1 d.
    pub period: Duration,
}

/// Units of a duration, large to small, in nanoseconds.
const DURATION_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// Other spellings of a unit that are accepted.
const DURATION_SPELLINGS: &[(&str, &str)] = &[("min", "m"), ("µs", "us"), ("μs", "us")];

/// Periods of a rate, in seconds.
const RATE_UNITS: &[(&str, u64)] = &[("s", 1), ("min", 60), ("h", 3_600), ("d", 86_400)];

/// Units of a size with what they stand for, the largest first.
const SIZE_UNITS: &[(&str, u64)] =
    &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Smallest step of a duration, in nanoseconds.
const STEP: u64 = 1_000;

/// Reads `"250ms"`, `"1h 30m"`, `"1.5s"`.
///
/// # Errors
/// The remedy, to be shown as a hint.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("units are us, ms, s, m, h and d".to_owned());
    }
    let mut total: u64 = 0;
    let mut larger = DURATION_UNITS.len();
    while !rest.is_empty() {
        let (number, after) = split_at_end(rest, |letter| letter.is_ascii_digit() || letter == '.');
        let after = after.trim_start();
        let (unit, after) = split_at_end(after, char::is_alphabetic);
        if number.is_empty() {
            return Err("begin with a number and end with a unit: us, ms, s, m, h or d".to_owned());
        }
        if unit.is_empty() {
            return Err(missing_unit(text, number, after));
        }
        let index = duration_unit(unit)?;
        if larger != DURATION_UNITS.len() && index <= larger {
            return Err("write each unit once, the larger first, such as \"1h 30m\"".to_owned());
        }
        larger = index;
        let part = multiply(number, DURATION_UNITS[index].1)
            .ok_or_else(|| format!("`{number}` is no number, or too large"))?;
        total = total.checked_add(part).ok_or_else(|| "it is too large".to_owned())?;
        rest = after.trim_start();
    }
    if !total.is_multiple_of(STEP) {
        return Err("nothing finer than 1us is kept".to_owned());
    }
    Ok(Duration::from_nanos(total))
}

/// What to say about a number that no unit follows.
fn missing_unit(text: &str, number: &str, after: &str) -> String {
    if after.is_empty() && number == text.trim() {
        format!("write \"{number}s\" if you mean seconds")
    } else {
        format!("`{number}` needs a unit: us, ms, s, m, h or d")
    }
}

/// Index of a duration's unit.
fn duration_unit(unit: &str) -> Result<usize, String> {
    let spelling = DURATION_SPELLINGS.iter().find(|(other, _)| *other == unit);
    let name = spelling.map_or(unit, |(_, name)| name);
    DURATION_UNITS.iter().position(|(known, _)| *known == name).ok_or_else(|| {
        let first = unit.chars().next().map(|letter| letter.to_ascii_lowercase());
        match first {
            Some('s') => format!("`{unit}` is no unit; write `s` for seconds"),
            Some('m') if unit.to_lowercase().starts_with("mi") || unit == "M" => {
                format!("`{unit}` is no unit; write `m` for minutes")
            }
            Some('h') => format!("`{unit}` is no unit; write `h` for hours"),
            Some('d') => format!("`{unit}` is no unit; write `d` for days"),
            _ => format!("`{unit}` is no unit; units are us, ms, s, m, h and d"),
        }
    })
}

/// `number` (digits, perhaps a fraction) times `unit`.
fn multiply(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.len() > 9 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / u128::from(scale);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Splits after the longest prefix of letters that satisfy `belongs`.
fn split_at_end(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|letter| !belongs(letter)).unwrap_or(text.len());
    text.split_at(end)
}

/// Writes a duration so that [`duration`] reads the same; parts below 1us are dropped.
pub fn show_duration(value: Duration) -> String {
    let mut rest = value.as_nanos();
    let mut parts = Vec::new();
    for (name, nanoseconds) in DURATION_UNITS {
        let unit = u128::from(*nanoseconds);
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// Reads `"100/s"`, `"5/min"`.
///
/// # Errors
/// The remedy, to be shown as a hint.
pub fn rate(text: &str) -> Result<EventRate, String> {
    rate_behind("", text, "leave the key out for no limit")
}

/// Reads a rate behind other words; `none` tells how to say that there is none.
///
/// # Errors
/// The remedy, to be shown as a hint.
pub fn rate_behind(words: &str, text: &str, none: &str) -> Result<EventRate, String> {
    let Some((count, unit)) = text.split_once('/') else {
        let number = text.trim();
        return Err(if number.parse::<u64>().is_ok() {
            format!("write \"{words}{number}/s\" if you mean per second")
        } else {
            "write a number, a slash and s, min, h or d".to_owned()
        });
    };
    let (count, unit) = (count.trim(), unit.trim());
    let Some((_, seconds)) = RATE_UNITS.iter().find(|(known, _)| *known == unit) else {
        let first = unit.chars().next().unwrap_or(' ').to_ascii_lowercase();
        let known = RATE_UNITS.iter().find(|(known, _)| known.starts_with(first));
        return Err(match known {
            Some((name, _)) => format!("write \"{words}{count}/{name}\""),
            None => "a rate is per s, min, h or d".to_owned(),
        });
    };
    match count.parse::<u64>() {
        Ok(0) => Err(format!("at least 1; {none}")),
        Ok(count) => Ok(EventRate { count, period: Duration::from_secs(*seconds) }),
        Err(_) if count.parse::<f64>().is_ok() => {
            Err("write a whole number and a longer period, such as \"30/min\"".to_owned())
        }
        Err(_) => Err(format!("`{count}` is no whole number")),
    }
}

/// Writes a rate so that [`rate`] reads the same.
pub fn show_rate(value: EventRate) -> String {
    let unit = RATE_UNITS.iter().find(|(_, seconds)| *seconds == value.period.as_secs());
    format!("{}/{}", value.count, unit.map_or("s", |(name, _)| name))
}

/// Reads `1.25` as 1,250 thousandths; `None` if it is no such number or has finer parts.
pub fn thousandths(text: &str) -> Option<u32> {
    let read = multiply(text, 1_000_000)?;
    u32::try_from(read / 1_000).ok().filter(|_| read.is_multiple_of(1_000))
}

/// Writes thousandths so that [`thousandths`] reads the same, always with a point.
pub fn show_thousandths(value: u32) -> String {
    let parts = format!("{:03}", value % 1_000);
    let digits = parts.trim_end_matches('0');
    format!("{}.{}", value / 1_000, if digits.is_empty() { "0" } else { digits })
}

/// Reads `"50%"`.
///
/// # Errors
/// The remedy, to be shown as a hint.
pub fn percent(text: &str) -> Result<u8, String> {
    let text = text.trim();
    let Some(number) = text.strip_suffix('%') else {
        return Err(match text.parse::<u8>() {
            Ok(number @ 0..=100) => format!("write \"{number}%\""),
            _ => "end it with `%`".to_owned(),
        });
    };
    match number.trim().parse::<u8>() {
        Ok(number @ 0..=100) => Ok(number),
        _ => Err("a whole number from 0 to 100 and `%`".to_owned()),
    }
}

/// Reads `"16KiB"`: a whole number and a unit, with `behind` behind it; in bytes.
pub fn size(text: &str, behind: &str) -> Option<u64> {
    let text = text.trim().strip_suffix(behind)?.trim_end();
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size so that [`size`] reads the same.
pub fn show_size(bytes: impl Into<u64>) -> String {
    let bytes = bytes.into();
    let fitting = SIZE_UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit) && bytes > 0);
    let (name, unit) = fitting.copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// If it fails, timeouts are not what the operator wrote.
    #[test]
    fn durations_mean_what_they_say() {
        let read = |text| duration(text).unwrap();
        assert_eq!(read("250ms"), Duration::from_millis(250));
        assert_eq!(read("1h 30m"), Duration::from_secs(5_400));
        assert_eq!(read("1h30m"), Duration::from_secs(5_400));
        assert_eq!(read("1.5s"), Duration::from_millis(1_500));
        assert_eq!(read("5 min"), Duration::from_secs(300));
        assert_eq!(read("50us"), Duration::from_micros(50));
        assert_eq!(read("2d"), Duration::from_secs(172_800));
        assert_eq!(read("0s"), Duration::ZERO);
    }

    /// If it fails, nonsense becomes a timeout, or its refusal names no remedy.
    #[test]
    fn bad_durations_name_the_remedy() {
        for (text, part) in [
            ("5", "write \"5s\""),
            ("", "units are"),
            ("5 seconds", "`s` for seconds"),
            ("5 minutes", "`m` for minutes"),
            ("-5s", "begin with a number"),
            ("1s 1s", "each unit once"),
            ("1s 1h", "the larger first"),
            ("1h 30", "`30` needs a unit"),
            ("0.5us", "finer than 1us"),
            ("999999999999d", "too large"),
            ("1.2.3s", "no number"),
            ("3 parsecs", "units are"),
        ] {
            let hint = duration(text).unwrap_err();
            assert!(hint.contains(part), "{text:?} gave {hint:?}");
        }
    }

    /// If it fails, a size means something else than it says.
    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("0B", 0_u64), ("512B", 512), ("16KiB", 16_384), ("4095MiB", 4_293_918_720)]
        {
            assert_eq!(size(text, ""), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
            assert_eq!(size(&format!("{text}/s"), "/s"), Some(bytes), "{text}");
        }
        assert_eq!(size(" 1 KiB ", ""), Some(1024));
        assert_eq!(size("1 KiB /s", "/s"), Some(1024));
        let wrong = ["", "1", "KiB", "1kb", "1KB", "1.5KiB", "-1B", "1KiB2", "1KiB/s"];
        for wrong in wrong.into_iter().chain(["17179869184GiB"]) {
            assert_eq!(size(wrong, ""), None, "{wrong}");
        }
        for wrong in ["1KiB", "1KiB/min", "/s", "1/s", "1KiB/s/s", "1Mbit/s"] {
            assert_eq!(size(wrong, "/s"), None, "{wrong}");
        }
    }

    /// If it fails, limits are not what the operator wrote.
    #[test]
    fn rates_mean_what_they_say() {
        let second = Duration::from_secs(1);
        assert_eq!(rate("100/s"), Ok(EventRate { count: 100, period: second }));
        assert_eq!(rate("5 / min"), Ok(EventRate { count: 5, period: second * 60 }));
        assert_eq!(rate("1/d"), Ok(EventRate { count: 1, period: second * 86_400 }));
        for (text, part) in [
            ("100", "\"100/s\""),
            ("100/m", "\"100/min\""),
            ("100/sec", "\"100/s\""),
            ("0/s", "at least 1"),
            ("0.5/s", "longer period"),
            ("many/s", "no whole number"),
            ("fast", "a slash"),
            ("1/", "per s, min"),
        ] {
            let hint = rate(text).unwrap_err();
            assert!(hint.contains(part), "{text:?} gave {hint:?}");
        }
    }

    /// If it fails, a factor is read as another.
    #[test]
    fn factors_mean_what_they_say() {
        assert_eq!(thousandths("1.25"), Some(1_250));
        assert_eq!(thousandths("2.0"), Some(2_000));
        assert_eq!(thousandths("1.0625"), None);
        for text in ["1e3", "inf", "-1.5", "", "1.2.3", "99999999.0"] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    /// If it fails, a share is read as another.
    #[test]
    fn percentages_mean_what_they_say() {
        assert_eq!(percent("0%"), Ok(0));
        assert_eq!(percent("100 %"), Ok(100));
        assert!(percent("101%").is_err());
        assert!(percent("-1%").is_err());
        assert_eq!(percent("50"), Err("write \"50%\"".to_owned()));
    }

    proptest! {
        /// If it fails, the effective configuration is another than the one that runs.
        #[test]
        fn what_is_shown_reads_the_same(
            micros in 0_u64..1_000_000_000_000_000,
            count in 1_u64..,
            unit in 0_usize..4,
        ) {
            let value = Duration::from_micros(micros);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
            let value = u32::try_from(micros % 4_000_000_000).unwrap();
            prop_assert_eq!(thousandths(&show_thousandths(value)), Some(value));
            let value = EventRate { count, period: Duration::from_secs(RATE_UNITS[unit].1) };
            prop_assert_eq!(rate(&show_rate(value)), Ok(value));
        }

        /// If it fails, a configuration file can crash the program.
        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = (duration(&text), rate(&text), percent(&text));
        }
    }
}
