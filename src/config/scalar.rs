//! Conversions of single values, shared by all tables.
//!
//! Each takes a value and returns what it means, or reports what is wrong and how to write it. A
//! bare number where a unit is needed, and a number in quotes where none is, get the fixed text.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use crate::policy::balance::panic_mode::PanicThreshold;

use super::file::{Value, join_or, quoted, shown};
use super::key::RATE_PER_SECOND_MAX;
use super::report::{Finding, Report};
use super::suggest::{foreign_value, nearest};
use super::units::{self, EventRate};

/// Words of the format with what they mean. A word that ends in a space begins a value that has an
/// argument.
pub(super) type Words<T> = [(&'static str, T)];

/// What a value is, for messages.
pub(super) fn kind(data: &DeValue<'_>) -> &'static str {
    match data {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type(
    value: &Value<'_>,
    expected: &str,
    fix: Option<String>,
    report: &mut Report<'_>,
) {
    let name = shown(&value.name);
    let mut finding = Finding::new(format!("{} cannot be {}", value.label(), kind(value.data)))
        .expected(expected.to_owned());
    if value.text() == Some("-") {
        finding = finding.hint(format!("leave `{name}` out to have it unset"));
    } else if let Some(fix) = fix {
        finding = finding.hint(write(value, &fix));
    }
    report.error(&value.place, finding);
}

/// "write ...": with the key unless the value is one of an array.
fn write(value: &Value<'_>, fix: &str) -> String {
    if value.is_element() {
        format!("write `{fix}`")
    } else {
        format!("write `{} = {fix}`", shown(&value.name))
    }
}

/// The digits of a number as written, without separators.
pub(super) fn number_text(data: &DeValue<'_>) -> Option<String> {
    match data {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// A string with a unit; `parse` gives the remedy when it fails.
fn with_unit<T>(
    value: &Value<'_>,
    expected: &str,
    unit: &str,
    report: &mut Report<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let Some(text) = value.text() else {
        let with_unit = number_text(value.data).map(|number| format!("{number}{unit}"));
        match with_unit.filter(|text| parse(text).is_ok()) {
            Some(fix) => {
                let name = shown(&value.name);
                let finding = Finding::new(format!("`{name}` has no unit"));
                let hint = write(value, &quoted(&fix));
                report.error(&value.place, finding.expected(expected).hint(hint));
            }
            None => wrong_type(value, expected, None, report),
        }
        return None;
    };
    match parse(text) {
        Ok(read) => Some(read),
        Err(remedy) => {
            let name = shown(&value.name);
            let hint =
                if text == "-" { format!("leave `{name}` out to have it unset") } else { remedy };
            let message = format!("`{name}` cannot be \"{}\"", shown(text));
            report.error(&value.place, Finding::new(message).expected(expected).hint(hint));
            None
        }
    }
}

/// A duration within bounds.
pub(super) fn duration(
    value: &Value<'_>,
    bounds: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    const EXPECTED: &str = "a duration such as \"5s\", \"250ms\" or \"1h 30m\"";
    let read = with_unit(value, EXPECTED, "s", report, units::duration)?;
    if bounds.contains(&read) {
        return Some(read);
    }
    let name = shown(&value.name);
    let (low, high) = (units::show_duration(*bounds.start()), units::show_duration(*bounds.end()));
    let short = if read < *bounds.start() { "short" } else { "long" };
    let finding = Finding::new(format!("`{name}` is too {short}"))
        .expected(format!("a duration from \"{low}\" to \"{high}\""));
    let finding =
        if read.is_zero() { finding.hint("\"0s\" does not turn it off") } else { finding };
    report.error(&value.place, finding);
    None
}

/// A rate.
pub(super) fn rate(value: &Value<'_>, report: &mut Report<'_>) -> Option<EventRate> {
    const EXPECTED: &str = "a rate such as \"100/s\" or \"30/min\"";
    let read = with_unit(value, EXPECTED, "/s", report, units::rate)?;
    let most = RATE_PER_SECOND_MAX.saturating_mul(read.period.as_secs());
    if read.count <= most {
        return Some(read);
    }
    let finding = Finding::new(format!("`{}` is too high", shown(&value.name)))
        .expected(format!("at most {RATE_PER_SECOND_MAX} per second, as finely as time is counted"))
        .hint("leave the key out for no limit");
    report.error(&value.place, finding);
    None
}

/// A percentage.
pub(super) fn percent(value: &Value<'_>, report: &mut Report<'_>) -> Option<u8> {
    with_unit(value, "a percentage from \"0%\" to \"100%\"", "%", report, units::percent)
}

/// A percentage of healthy backends, or `"never"`.
pub(super) fn panic_threshold(
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Option<PanicThreshold> {
    const EXPECTED: &str = "a percentage from \"0%\" to \"100%\", or \"never\"";
    match value.text().map(str::trim) {
        Some("never") => Some(PanicThreshold::Never),
        _ => {
            let percent = with_unit(value, EXPECTED, "%", report, units::percent)?;
            Some(PanicThreshold::AtMost(percent))
        }
    }
}

/// A whole number within bounds.
pub(super) fn count(
    value: &Value<'_>,
    bounds: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<u64> {
    let (low, high) = (*bounds.start(), *bounds.end());
    let expected = format!("a whole number from {low} to {high}");
    let DeValue::Integer(number) = value.data else {
        let text = value.text().map(str::trim).map(str::to_owned);
        let digits = text.or_else(|| {
            number_text(value.data).map(|number| number.trim_end_matches(".0").to_owned())
        });
        let fix = digits.filter(|text| text.parse().is_ok_and(|number| bounds.contains(&number)));
        wrong_type(value, &expected, fix, report);
        return None;
    };
    let read = i128::from_str_radix(number.as_str(), number.radix()).ok();
    let fits = read.and_then(|read| u64::try_from(read).ok()).filter(|read| bounds.contains(read));
    if fits.is_none() {
        let name = shown(&value.name);
        let message = match read {
            Some(read) if read < i128::from(low) && read == 0 => {
                format!("`{name}` cannot be zero")
            }
            Some(read) if read < i128::from(low) => format!("`{name}` is too small"),
            _ => format!("`{name}` is too large"),
        };
        report.error(&value.place, Finding::new(message).expected(expected));
    }
    fits
}

/// "auto", or a whole number within bounds.
pub(super) fn auto_or_count(
    value: &Value<'_>,
    bounds: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<Option<u64>> {
    match value.text() {
        Some("auto") => Some(None),
        Some(text) if text.trim().parse::<u64>().is_err() => {
            let (low, high) = (bounds.start(), bounds.end());
            let expected = format!("\"auto\" or a whole number from {low} to {high}");
            let name = shown(&value.name);
            let mut finding = Finding::new(format!("`{name}` cannot be \"{}\"", shown(text)));
            if nearest(text, std::iter::once("auto")).is_some() {
                finding = finding.hint("did you mean \"auto\"?");
            }
            report.error(&value.place, finding.expected(expected));
            None
        }
        _ => count(value, bounds, report).map(Some),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value<'_>, report: &mut Report<'_>) -> Option<bool> {
    if let DeValue::Boolean(read) = value.data {
        return Some(*read);
    }
    let fix = match value.text() {
        Some("true" | "yes" | "on" | "1") => Some("true".to_owned()),
        Some("false" | "no" | "off" | "0") => Some("false".to_owned()),
        _ => match number_text(value.data).as_deref() {
            Some("1") => Some("true".to_owned()),
            Some("0") => Some("false".to_owned()),
            _ => None,
        },
    };
    wrong_type(value, "true or false", fix, report);
    None
}

/// A string that is not empty and holds no control character.
pub(super) fn string(value: &Value<'_>, expected: &str, report: &mut Report<'_>) -> Option<String> {
    let Some(text) = value.text() else {
        let fix = number_text(value.data).map(|number| quoted(&number));
        wrong_type(value, expected, fix, report);
        return None;
    };
    if !text.is_empty() && !text.chars().any(char::is_control) {
        return Some(text.to_owned());
    }
    let wrong = if text.is_empty() { "is empty" } else { "holds a control character" };
    let message = format!("{} {wrong}", value.label());
    report.error(&value.place, Finding::new(message).expected(expected.to_owned()));
    None
}

/// A word as a message shows it, with what has to stand behind it.
fn sample(word: &str) -> String {
    if word.ends_with(' ') { quoted(&format!("{word}NAME")) } else { quoted(word) }
}

/// One word out of a list.
pub(super) fn word<T: Copy>(
    value: &Value<'_>,
    words: &Words<T>,
    report: &mut Report<'_>,
) -> Option<T> {
    let all: Vec<String> = words.iter().map(|(word, _)| sample(word)).collect();
    let expected = join_or(&all);
    let Some(text) = value.text() else {
        wrong_type(value, &expected, word_for(value, words), report);
        return None;
    };
    let name = shown(&value.name);
    let known = words
        .iter()
        .find(|(word, _)| text == *word || (word.ends_with(' ') && text.starts_with(word)));
    if let Some((_, means)) = known {
        return Some(*means);
    }
    let message = format!("`{name}` cannot be {}", shown(&quoted(text)));
    let finding = Finding::new(message).expected(expected);
    let near = foreign_value(&value.name, text)
        .or_else(|| nearest(text, words.iter().map(|(word, _)| word.trim_end())));
    let finding = match near {
        Some(near) => finding.hint(format!("did you mean \"{near}\"?")),
        None => finding,
    };
    report.error(&value.place, finding);
    None
}

/// The word that says what is written as a boolean.
fn word_for<T>(value: &Value<'_>, words: &Words<T>) -> Option<String> {
    let DeValue::Boolean(is_on) = value.data else { return None };
    let meant: &[_] = if *is_on { &["all", "on", "auto"] } else { &["none", "off", "never"] };
    let found = meant.iter().find(|meant| words.iter().any(|(word, _)| word == *meant));
    found.map(|word| quoted(word))
}

/// An array, each element converted; every wrong element is reported.
pub(super) fn list<'t, T>(
    value: &Value<'t>,
    sample: &str,
    report: &mut Report<'_>,
    mut convert: impl FnMut(&Value<'t>, &mut Report<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(elements) = value.elements() else {
        let fix = value.text().map(|text| format!("[{}]", quoted(text)));
        wrong_type(value, &format!("an array such as {sample}"), fix, report);
        return None;
    };
    let read: Vec<Option<T>> = elements.iter().map(|element| convert(element, report)).collect();
    read.into_iter().collect()
}
