//! The one table of every key of the file format.
//!
//! A row says all there is to know of a key: where it stands, what may be written, what counts
//! without it, when a reload counts, what it means and beside what it counts. Readers take bounds
//! and defaults from here; `check` takes what does not go together; the schema is made of it, and
//! `configs/full.toml` and `docs/configuration.md` are tested against it.

mod bounds;
mod key;
mod listener;
mod pool;
mod process;

pub use key::{
    Argument, Companion, Default, IfIdle, Key, KeyTable, RATE_PER_SECOND_MAX, Shape, Values,
};

/// Tables that have keys of their own, in the order of the documentation.
pub const TABLES: &[KeyTable] = &[
    KeyTable::Global,
    KeyTable::Log,
    KeyTable::Admin,
    KeyTable::Listener,
    KeyTable::AcceptProxy,
    KeyTable::Route,
    KeyTable::Peek,
    KeyTable::Keepalive,
    KeyTable::Bandwidth,
    KeyTable::Limit,
    KeyTable::LimitKey,
    KeyTable::Pool,
    KeyTable::HashPrefix,
    KeyTable::Sticky,
    KeyTable::Queue,
    KeyTable::Backend,
    KeyTable::Health,
    KeyTable::Outlier,
];

/// The keys that stand in a table, in the order of the documentation; of `[defaults]` those of a
/// listener and of a pool.
pub fn of(table: KeyTable) -> impl Iterator<Item = &'static Key> {
    let [first, second] = match table {
        KeyTable::Defaults => [listener::LISTENER, pool::POOL],
        table => [rows(table), &[]],
    };
    first.iter().chain(second)
}

fn rows(table: KeyTable) -> &'static [Key] {
    match table {
        // Both have no keys of their own.
        KeyTable::File | KeyTable::Defaults => &[],
        KeyTable::Global => process::GLOBAL,
        KeyTable::Log => process::LOG,
        KeyTable::Admin => process::ADMIN,
        KeyTable::Listener => listener::LISTENER,
        KeyTable::AcceptProxy => listener::ACCEPT_PROXY,
        KeyTable::Route => listener::ROUTE,
        KeyTable::Peek => listener::PEEK,
        KeyTable::Keepalive => listener::KEEPALIVE,
        KeyTable::Bandwidth => listener::BANDWIDTH,
        KeyTable::Limit => listener::LIMIT,
        KeyTable::LimitKey => listener::LIMIT_KEY,
        KeyTable::Pool => pool::POOL,
        KeyTable::HashPrefix => pool::HASH_PREFIX,
        KeyTable::Sticky => pool::STICKY,
        KeyTable::Queue => pool::QUEUE,
        KeyTable::Backend => pool::BACKEND,
        KeyTable::Health => pool::HEALTH,
        KeyTable::Outlier => pool::OUTLIER,
    }
}

/// Every key, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Key> {
    TABLES.iter().flat_map(|table| of(*table))
}

/// The key called `name` in `table`.
pub fn find(table: KeyTable, name: &str) -> Option<&'static Key> {
    of(table).find(|key| key.name == name)
}

/// The tables in which a key called `name` may be written.
pub fn tables_with(name: &str) -> impl Iterator<Item = KeyTable> {
    all().filter(move |key| key.name == name).map(|key| key.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If a key were both a listener's and a pool's, `[defaults]` would not know whose it is.
    #[test]
    fn listener_and_pool_keys_differ() {
        for key in of(KeyTable::Listener) {
            assert!(find(KeyTable::Pool, key.name).is_none(), "{} is ambiguous", key.name);
        }
    }

    /// If a row stood twice, turning it on would change only one of them.
    #[test]
    fn no_key_stands_twice() {
        for key in all() {
            let rows = all().filter(|other| other.table == key.table && other.name == key.name);
            assert_eq!(rows.count(), 1, "{} in {}", key.name, key.table);
        }
    }

    /// If it fails, a key is found in another table than the one it says.
    #[test]
    fn a_key_stands_in_the_table_it_names() {
        for table in TABLES {
            assert!(of(*table).count() > 0, "{table} has no key");
            for key in of(*table) {
                assert_eq!(key.table, *table, "{}", key.name);
            }
        }
    }

    /// If it fails, a key is said to count beside one that is not there, or by a word it cannot
    /// have.
    #[test]
    fn companions_are_keys_of_the_same_table_with_those_values() {
        for key in all() {
            for companion in key.companions {
                let other = find(key.table, companion.key);
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
