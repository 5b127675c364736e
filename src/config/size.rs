//! Sizes with a unit, and as many a second: `"16KiB"`, `"512B"`, `"1MiB/s"`.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::file::{Field, Section, Value, shown};
use super::key::Shape;
use super::report::{Finding, Report};
use super::scalar;
use super::units;

/// How a value is written, and what messages call it.
struct Notation {
    expected: &'static str,
    /// What a value within bounds is called.
    noun: &'static str,
    /// What stands behind the unit.
    behind: &'static str,
    hint: &'static str,
}

const SIZE: Notation = Notation {
    expected: "a size such as \"16KiB\" or \"512B\"",
    noun: "a size",
    behind: "",
    hint: "units are B, KiB, MiB and GiB",
};
const PER_SECOND: Notation = Notation {
    expected: "a bandwidth such as \"1MiB/s\" or \"64KiB/s\"",
    noun: "a bandwidth",
    behind: "/s",
    hint: "units are B/s, KiB/s, MiB/s and GiB/s; 1 Mbit/s is \"125000B/s\"",
};

/// A size within the bounds of its key, or its default; in bytes.
pub(super) fn bytes_or_default(section: &Section<'_>, name: &str, report: &mut Report<'_>) -> u32 {
    let Some(key) = section.key(name) else { return 0 };
    let Shape::Size(from, to) = key.shape else { return 0 };
    let bounds = u64::from(from)..=u64::from(to);
    let field = section.read(name, report, |value, report| read(value, &SIZE, bounds, report));
    let default = || key.default_text().and_then(|text| units::size(text, ""));
    field.value().or_else(default).and_then(|size| u32::try_from(size).ok()).unwrap_or(from)
}

/// Bytes a second within the bounds of its key.
pub(super) fn per_second(
    section: &Section<'_>,
    name: &str,
    report: &mut Report<'_>,
) -> Field<NonZeroU64> {
    let bounds = match section.key(name).map(|key| key.shape) {
        Some(Shape::Bandwidth(from, to)) => from..=to,
        _ => return Field::Absent,
    };
    section.read(name, report, |value, report| {
        NonZeroU64::new(read(value, &PER_SECOND, bounds, report)?)
    })
}

fn read(
    value: &Value<'_>,
    notation: &Notation,
    bounds: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let Some(text) = value.text() else {
        let fix = match value.data {
            toml::de::DeValue::Integer(number) => {
                Some(format!("\"{}B{}\"", number.as_str(), notation.behind))
            }
            _ => None,
        };
        scalar::wrong_type(value, notation.expected, fix, report);
        return None;
    };
    let name = shown(&value.name);
    let Some(read) = units::size(text, notation.behind) else {
        let finding = Finding::new(format!("`{name}` cannot be \"{}\"", shown(text)));
        report.error(&value.place, finding.expected(notation.expected).hint(notation.hint));
        return None;
    };
    if bounds.contains(&read) {
        return Some(read);
    }
    let size = if read < *bounds.start() { "small" } else { "large" };
    let [low, high] = [bounds.start(), bounds.end()]
        .map(|bound| format!("{}{}", units::show_size(*bound), notation.behind));
    let finding = Finding::new(format!("`{name}` is too {size}"));
    let expected = format!("{} from \"{low}\" to \"{high}\"", notation.noun);
    report.error(&value.place, finding.expected(expected));
    None
}
