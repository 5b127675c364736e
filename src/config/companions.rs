//! Keys that count only beside certain values of others, as the table of keys says.

use toml::de::DeValue;

use super::file::{Section, Value, quoted};
use super::key::{Companion, IfIdle, Key, Shape, Values};
use super::report::{Finding, Report};

/// Reports every key of a table that is given, means something, and does not count beside what it
/// stands, as its row says.
pub(super) fn report_idle(section: &Section<'_>, report: &mut Report<'_>) {
    if section.partial {
        return;
    }
    for key in section.table.keys() {
        let Some(companion) = key.companions.iter().find(|it| !counts(section, it)) else {
            continue;
        };
        let Some(value) = section.get(key.name) else { continue };
        if report.has_error_at(&value.place) {
            continue;
        }
        let is_off = value.text().is_some_and(|text| key.is_default(text));
        match companion.if_idle {
            IfIdle::Refused if is_off => {}
            IfIdle::Refused => refuse(section, key, companion, &value, report),
            // What `[defaults]` gives to all may be meant for others.
            IfIdle::Warned if section.own(key.name).is_none() => {}
            IfIdle::Warned => warn(section, companion, &value, report),
        }
    }
}

/// Whether a table has what a companion asks for. A value that has been refused by itself is not
/// asked again.
fn counts(section: &Section<'_>, companion: &Companion) -> bool {
    let is_given = |name: &str| section.get(name).is_some();
    if companion.or_beside.is_some_and(is_given) {
        return true;
    }
    match effective_word(section, companion.key) {
        Some(word) => companion.admits(word),
        None => companion.values != Values::Any || is_given(companion.key),
    }
}

/// The word that a key has, in the file or by default; `None` if it is no known word.
fn effective_word<'s>(section: &Section<'s>, name: &str) -> Option<&'s str> {
    let key = section.key(name)?;
    let Some(value) = section.get(name) else { return key.default_text() };
    match (key.shape, value.data) {
        (Shape::Word(words), _) => value.text().filter(|text| words().contains(text)),
        (Shape::Boolean, DeValue::Boolean(true)) => Some("true"),
        (Shape::Boolean, DeValue::Boolean(false)) => Some("false"),
        _ => None,
    }
}

/// A word as the file has it beside its key.
fn assigned(key: Option<&Key>, word: &str) -> String {
    key.map_or_else(String::new, |key| match key.is_quoted(word) {
        true => format!("{} = {}", key.name, quoted(word)),
        false => format!("{} = {word}", key.name),
    })
}

fn warn(section: &Section<'_>, companion: &Companion, value: &Value<'_>, report: &mut Report<'_>) {
    let (name, other) = (&value.name, section.key(companion.key));
    let finding = match effective_word(section, companion.key) {
        Some(word) => {
            let beside = assigned(other, word);
            Finding::new(format!("`{name}` has no effect beside `{beside}`"))
        }
        None => Finding::new(format!("`{name}` has no effect without `{}`", companion.key)),
    };
    let remedy = match companion.values {
        Values::Among([word, ..]) => format!("write `{}` to have it used", assigned(other, word)),
        Values::Any => format!("add `{}`", companion.key),
        Values::Among([]) | Values::Except(_) => format!("choose another `{}`", companion.key),
    };
    report.warning(&value.place, finding.hint(format!("{remedy}, or remove `{name}`")));
}

fn refuse(
    section: &Section<'_>,
    key: &Key,
    companion: &Companion,
    value: &Value<'_>,
    report: &mut Report<'_>,
) {
    let (name, other) = (key.name, companion.key);
    let finding = match companion.values {
        Values::Any => {
            let sample = section.key(other).map_or("", |key| key.shape.sample());
            Finding::new(format!("`{name}` without `{other}`"))
                .expected(format!("a `{other}` beside it"))
                .hint(format!("add `{other} = {sample}`, or remove `{name}`"))
        }
        Values::Among(words) => {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let words = words.join(" or ");
            Finding::new(format!("`{name}` has a meaning for {words} only"))
                .hint(format!("remove `{name}`, or choose `{other} = {words}`"))
        }
        Values::Except(words) => {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            let off = match key.default_text() {
                Some(default) => format!("write `{name} = {}`", quoted(default)),
                None => format!("remove `{name}`"),
            };
            Finding::new(format!("`{name}` has no meaning for {}", words.join(" or ")))
                .hint(format!("{off}, or choose another `{other}`"))
        }
    };
    let finding = match section.get(other) {
        Some(given) => finding.beside(&given.place, format!("the {other}")),
        None => finding,
    };
    report.error(&value.place, finding);
}
