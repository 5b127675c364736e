//! Keys that count only beside certain values of others, as the table of keys says.

use super::file::{Section, Value, quoted};
use super::keys::{self, Companion, IfIdle, Key, Shape, Values};
use super::report::{Finding, Report};

/// Reports every key of a table that is given, means something, and does not count beside what it
/// stands, where the table of keys has such keys refused.
pub(super) fn refuse_idle(section: &Section<'_>, report: &mut Report<'_>) {
    if section.partial {
        return;
    }
    for key in keys::of(section.table) {
        let refused = key.companions.iter().filter(|it| it.if_idle == IfIdle::Refused);
        let Some(companion) = refused.into_iter().find(|it| !counts(section, it)) else { continue };
        let Some(value) = section.get(key.name) else { continue };
        let is_off = value.text().is_some_and(|text| key.is_default(text));
        if !is_off && !report.has_error_at(&value.place) {
            refuse(section, key, companion, &value, report);
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
    let Shape::Word(words) = key.shape else { return None };
    match section.get(name) {
        Some(value) => value.text().filter(|text| words().contains(text)),
        None => key.default_text(),
    }
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
