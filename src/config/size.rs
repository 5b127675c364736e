//! Sizes with a unit: `"16KiB"`, `"512B"`.

use std::ops::RangeInclusive;

use super::file::{Value, shown};
use super::report::{Finding, Report};
use super::scalar;

/// Units with what they stand for, the largest first.
const UNITS: &[(&str, u32)] = &[("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const EXPECTED: &str = "a size such as \"16KiB\" or \"512B\"";

/// A size within bounds, in bytes.
pub(super) fn bounded(
    value: &Value<'_>,
    bounds: RangeInclusive<u32>,
    report: &mut Report<'_>,
) -> Option<u32> {
    let Some(text) = value.text() else {
        let fix = match value.data {
            toml::de::DeValue::Integer(number) => Some(format!("\"{}B\"", number.as_str())),
            _ => None,
        };
        scalar::wrong_type(value, EXPECTED, fix, report);
        return None;
    };
    let name = shown(&value.name);
    let Some(read) = parse(text) else {
        let finding = Finding::new(format!("`{name}` cannot be \"{}\"", shown(text)));
        let finding = finding.expected(EXPECTED).hint("units are B, KiB and MiB");
        report.error(&value.place, finding);
        return None;
    };
    if bounds.contains(&read) {
        return Some(read);
    }
    let size = if read < *bounds.start() { "small" } else { "large" };
    let (low, high) = (show(*bounds.start()), show(*bounds.end()));
    let finding = Finding::new(format!("`{name}` is too {size}"));
    report.error(&value.place, finding.expected(format!("a size from \"{low}\" to \"{high}\"")));
    None
}

/// A whole number and a unit.
fn parse(text: &str) -> Option<u32> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u32>().ok()?.checked_mul(*bytes)
}

/// Writes a size so that it reads the same.
pub(super) fn show(bytes: u32) -> String {
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
            [("0B", 0), ("512B", 512), ("16KiB", 16_384), ("4095MiB", 4_293_918_720)]
        {
            assert_eq!(parse(text), Some(bytes), "{text}");
            assert_eq!(show(bytes), text);
        }
        assert_eq!(parse(" 1 KiB "), Some(1024));
        for wrong in ["", "1", "KiB", "1kb", "1KB", "1.5KiB", "-1B", "4096MiB", "1KiB2"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
