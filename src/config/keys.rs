//! The one table of every key of the file format.
//!
//! A row says all there is to know of a key: what may be written, what counts without it, when a
//! reload counts, what it means and beside what it counts. The rows of a table stand in the file
//! that reads and shows it. Readers take bounds and defaults from them; `check` takes what does not
//! go together; the schema is made of them, and `configs/full.toml` and `docs/configuration.md` are
//! tested against them.

pub use super::key::{
    Argument, Companion, Default, IfIdle, Key, KeyTable, RATE_PER_SECOND_MAX, Shape, Values,
};
use super::listener::LISTENER;
use super::pool::POOL;
use super::process::{ADMIN, GLOBAL};

/// The file itself; it holds tables only.
pub static FILE: KeyTable = KeyTable {
    name: "File",
    title: "the file",
    sample: "",
    keys: &[
        Key::new("global", Shape::Table(&GLOBAL)),
        Key::new("admin", Shape::Table(&ADMIN)),
        Key::new("defaults", Shape::Table(&DEFAULTS)),
        Key::new("listener", Shape::Named(&LISTENER)),
        Key::new("pool", Shape::Named(&POOL)),
    ],
    also: &[],
};

/// `[defaults]`: every key of a listener or a pool.
pub static DEFAULTS: KeyTable = KeyTable {
    name: "Defaults",
    title: "[defaults]",
    sample: "",
    keys: &[],
    also: &[&LISTENER, &POOL],
};

/// Tables that have keys of their own, in the order of the documentation.
#[must_use]
pub fn tables() -> Vec<&'static KeyTable> {
    let mut tables = Vec::new();
    add_below(&FILE, &mut tables);
    tables
}

fn add_below(table: &'static KeyTable, tables: &mut Vec<&'static KeyTable>) {
    for inner in table.keys.iter().filter_map(|key| key.shape.table()) {
        if !inner.keys.is_empty() {
            tables.push(inner);
        }
        add_below(inner, tables);
    }
}

/// Every key with the table it stands in, in the order of the documentation.
pub fn all() -> impl Iterator<Item = (&'static KeyTable, &'static Key)> {
    tables().into_iter().flat_map(|table| table.keys.iter().map(move |key| (table, key)))
}

/// The tables in which a key called `name` may be written.
pub fn tables_with(name: &str) -> impl Iterator<Item = &'static KeyTable> {
    all().filter(move |(_, key)| key.name == name).map(|(table, _)| table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If a key were both a listener's and a pool's, `[defaults]` would not know whose it is.
    #[test]
    fn listener_and_pool_keys_differ() {
        for key in LISTENER.keys {
            assert!(POOL.find(key.name).is_none(), "{} is ambiguous", key.name);
        }
    }

    /// If a row or a table stood twice, turning it on would change only one of them.
    #[test]
    fn no_key_and_no_table_stands_twice() {
        for (table, key) in all() {
            let rows = table.keys.iter().filter(|other| other.name == key.name);
            assert_eq!(rows.count(), 1, "{} in {table}", key.name);
        }
        for table in tables() {
            let same = tables().into_iter().filter(|other| other.name == table.name);
            assert_eq!(same.count(), 1, "{table}");
        }
    }

    /// If it fails, a key is said to count beside one that is not there, or by a word it cannot
    /// have.
    #[test]
    fn companions_are_keys_of_the_same_table_with_those_values() {
        for (table, key) in all() {
            for companion in key.companions {
                let other = table.find(companion.key);
                let other = other.unwrap_or_else(|| panic!("{} of {}", companion.key, key.name));
                let (Values::Among(values) | Values::Except(values)) = companion.values else {
                    continue;
                };
                let known = match other.shape {
                    Shape::Word(words) => words(),
                    Shape::Boolean => vec!["true", "false"],
                    shape => panic!("{} cannot depend on {shape:?}", key.name),
                };
                for value in values {
                    assert!(known.contains(value), "{value} of {}", companion.key);
                }
            }
        }
    }
}
