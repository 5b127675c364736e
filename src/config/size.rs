//! Sizes with a unit, and as many a second: `"16KiB"`, `"512B"`, `"1MiB/s"`.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::file::{Value, shown};
use super::report::{Finding, Report};
use super::scalar;

/// Units with what they stand for, the largest first.
const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// Slower, a session looks broken; faster, nothing is slowed down.
const BANDWIDTHS: RangeInclusive<u64> = 1 << 10..=64 << 30;

/// A kind of value.
struct Kind {
    expected: &'static str,
    /// What a value within bounds is called.
    noun: &'static str,
    /// What stands behind the unit.
    behind: &'static str,
    hint: &'static str,
}

const SIZE: Kind = Kind {
    expected: "a size such as \"16KiB\" or \"512B\"",
    noun: "a size",
    behind: "",
    hint: "units are B, KiB, MiB and GiB",
};
const PER_SECOND: Kind = Kind {
    expected: "a bandwidth such as \"1MiB/s\" or \"64KiB/s\"",
    noun: "a bandwidth",
    behind: "/s",
    hint: "units are B/s, KiB/s, MiB/s and GiB/s; 1 Mbit/s is \"125000B/s\"",
};

/// A size within bounds, in bytes.
pub(super) fn bounded(
    value: &Value<'_>,
    bounds: RangeInclusive<u32>,
    report: &mut Report<'_>,
) -> Option<u32> {
    let bounds = u64::from(*bounds.start())..=u64::from(*bounds.end());
    u32::try_from(read(value, &SIZE, bounds, report)?).ok()
}

/// Bytes a second.
pub(super) fn per_second(value: &Value<'_>, report: &mut Report<'_>) -> Option<NonZeroU64> {
    NonZeroU64::new(read(value, &PER_SECOND, BANDWIDTHS, report)?)
}

fn read(
    value: &Value<'_>,
    kind: &Kind,
    bounds: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let Some(text) = value.text() else {
        let fix = match value.data {
            toml::de::DeValue::Integer(number) => {
                Some(format!("\"{}B{}\"", number.as_str(), kind.behind))
            }
            _ => None,
        };
        scalar::wrong_type(value, kind.expected, fix, report);
        return None;
    };
    let name = shown(&value.name);
    let Some(read) = parse(text, kind.behind) else {
        let finding = Finding::new(format!("`{name}` cannot be \"{}\"", shown(text)));
        report.error(&value.place, finding.expected(kind.expected).hint(kind.hint));
        return None;
    };
    if bounds.contains(&read) {
        return Some(read);
    }
    let size = if read < *bounds.start() { "small" } else { "large" };
    let [low, high] =
        [bounds.start(), bounds.end()].map(|bound| format!("{}{}", show(*bound), kind.behind));
    let finding = Finding::new(format!("`{name}` is too {size}"));
    let expected = format!("{} from \"{low}\" to \"{high}\"", kind.noun);
    report.error(&value.place, finding.expected(expected));
    None
}

/// A whole number and a unit.
fn parse(text: &str, behind: &str) -> Option<u64> {
    let text = text.trim().strip_suffix(behind)?.trim_end();
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size so that it reads the same.
pub(super) fn show(bytes: impl Into<u64>) -> String {
    let bytes = bytes.into();
    let fitting = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit) && bytes > 0);
    let (name, unit) = fitting.copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it fails, a size means something else than it says.
    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("0B", 0_u64), ("512B", 512), ("16KiB", 16_384), ("4095MiB", 4_293_918_720)]
        {
            assert_eq!(parse(text, ""), Some(bytes), "{text}");
            assert_eq!(show(bytes), text);
            assert_eq!(parse(&format!("{text}/s"), "/s"), Some(bytes), "{text}");
        }
        assert_eq!(parse(" 1 KiB ", ""), Some(1024));
        assert_eq!(parse("1 KiB /s", "/s"), Some(1024));
        let wrong = ["", "1", "KiB", "1kb", "1KB", "1.5KiB", "-1B", "1KiB2", "1KiB/s"];
        for wrong in wrong.into_iter().chain(["17179869184GiB"]) {
            assert_eq!(parse(wrong, ""), None, "{wrong}");
        }
        for wrong in ["1KiB", "1KiB/min", "/s", "1/s", "1KiB/s/s", "1Mbit/s"] {
            assert_eq!(parse(wrong, "/s"), None, "{wrong}");
        }
    }
}
