//! Keys that do not belong where they stand, with the key that may be meant, and those of
//! `[defaults]` that are taken back there.

use super::file::{Section, Value, join_or, shown};
use super::key::{KeyTable, Shape};
use super::keys;
use super::report::{FilePlace, Finding, Report};
use super::suggest::{foreign_key, nearest};

/// Reports the keys of a table, and of the tables in it, that do not belong there.
pub(super) fn refuse_unknown(section: &Section<'_>, report: &mut Report<'_>) {
    let holder = format!("[{}]", shown(&section.header().path));
    refuse_in(section, &holder, report);
}

fn refuse_in(section: &Section<'_>, holder: &str, report: &mut Report<'_>) {
    for (value, span) in section.entries() {
        match section.key(&value.name) {
            Some(key) if section.partial && value.is_false() && key.can_be_off() => {
                report.error(&value.place, nothing_to_take_back(&value.name));
            }
            Some(key) => refuse_below(&value, key.shape, section.partial, report),
            None => {
                let place = FilePlace { span, path: value.place.path.clone() };
                report.error(&place, unknown_key(&value.name, section.table, holder));
            }
        }
    }
}

fn refuse_below(value: &Value<'_>, shape: Shape, partial: bool, report: &mut Report<'_>) {
    let elements = || value.elements().unwrap_or_default();
    match shape {
        Shape::Table(table) | Shape::TableOrFalse(table) => {
            if let Some(section) = Section::of(value, table) {
                refuse_unknown(&section.with_partial(partial), report);
            }
        }
        Shape::TableOrTables(table) if value.elements().is_none() => {
            refuse_below(value, Shape::Table(table), partial, report);
        }
        Shape::Tables(table) | Shape::TableOrTables(table) => {
            for section in elements().iter().filter_map(|value| Section::of(value, table)) {
                refuse_unknown(&section, report);
            }
        }
        Shape::StringsOrTables(table, _) => {
            for section in elements().iter().filter_map(|value| Section::of(value, table)) {
                refuse_in(&section, table.title, report);
            }
        }
        _ => {}
    }
}

/// A key that does not belong into `table`; `holder` is what messages call the one it stands in.
fn unknown_key(name: &str, table: &KeyTable, holder: &str) -> Finding {
    let known: Vec<&str> = table.keys().map(|key| key.name).collect();
    let elsewhere: Vec<String> = keys::tables_with(name).map(|table| table.to_string()).collect();
    let foreign = foreign_key(name).iter().copied().find(|ours| known.contains(ours));
    let near = foreign.or_else(|| nearest(name, known.iter().copied()));
    let hint = match (near, elsewhere.is_empty()) {
        (Some(near), _) if foreign.is_some() => format!("did you mean `{near}`?"),
        (Some(near), true) => format!("did you mean `{near}`?"),
        (Some(near), false) => {
            format!("`{name}` belongs in {}; did you mean `{near}`?", join_or(&elsewhere))
        }
        (None, false) => format!("`{name}` belongs in {}", join_or(&elsewhere)),
        (None, true) => {
            far_away(name).unwrap_or_else(|| format!("its keys are {}", known.join(", ")))
        }
    };
    let expected = if known.len() <= 6 {
        let list: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        join_or(&list)
    } else {
        format!("a key of {table}")
    };
    Finding::new(format!("unknown key `{}` in {holder}", shown(name))).expected(expected).hint(hint)
}

/// A proposal from any table, for a word that is near to nothing here.
fn far_away(name: &str) -> Option<String> {
    let is_key = |ours: &&str| keys::tables_with(ours).next().is_some();
    let near = foreign_key(name).iter().copied().find(is_key);
    let near = near.or_else(|| nearest(name, keys::all().map(|(_, key)| key.name)))?;
    let tables: Vec<String> = keys::tables_with(near).map(|table| table.to_string()).collect();
    Some(format!("did you mean `{near}` of {}?", join_or(&tables)))
}

/// What to say about `false` in `[defaults]` itself.
fn nothing_to_take_back(name: &str) -> Finding {
    Finding::new(format!("`{name} = false` takes nothing back in [defaults]"))
        .expected(format!("a value of `{name}`, or no such key"))
        .hint("`false` belongs into a listener or pool, to take back what [defaults] gives")
}
