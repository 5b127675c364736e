//! The table of every key the file format knows.
//!
//! It decides three things: whether a key is known in a table, whether it is built yet, and where
//! else it would be valid. Turning a key on is `LATER` to `BUILT` here plus its conversion in the
//! module that reads the table.

use std::fmt;

/// A table of the file, as the reader meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `[global]`.
    Global,
    /// `log` of `[global]`.
    Log,
    /// `[admin]`.
    Admin,
    /// `[defaults]`: every key of a listener or a pool.
    Defaults,
    /// `[listener.NAME]`.
    Listener,
    /// `accept_proxy` of a listener.
    AcceptProxy,
    /// `[[listener.NAME.route]]`.
    Route,
    /// `[listener.NAME.peek]`.
    Peek,
    /// `keepalive` of a listener.
    Keepalive,
    /// `bandwidth` of a listener.
    Bandwidth,
    /// `[listener.NAME.limit]`.
    Limit,
    /// `key` of a limit.
    LimitKey,
    /// `[pool.NAME]`.
    Pool,
    /// `hash_prefix` of a pool.
    HashPrefix,
    /// `sticky` of a pool.
    Sticky,
    /// `queue` of a pool.
    Queue,
    /// One entry of `backends`.
    Backend,
    /// `[pool.NAME.health]`.
    Health,
    /// `[pool.NAME.outlier]`.
    Outlier,
}

impl Table {
    /// Whether `false` may stand for the table, to have none although `[defaults]` gives one.
    pub fn can_be_off(self) -> bool {
        matches!(self, Self::Limit | Self::Bandwidth | Self::Sticky | Self::Health | Self::Outlier)
    }

    /// Whether `self` is the table, or `[defaults]` standing in for it.
    fn holds(self, key: &Key) -> bool {
        match self {
            Self::Defaults => matches!(key.table, Self::Listener | Self::Pool),
            table => key.table == table,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Global => "[global]",
            Self::Log => "`log` of [global]",
            Self::Admin => "[admin]",
            Self::Defaults => "[defaults]",
            Self::Listener => "[listener.NAME]",
            Self::AcceptProxy => "`accept_proxy` of [listener.NAME]",
            Self::Route => "[[listener.NAME.route]]",
            Self::Peek => "[listener.NAME.peek]",
            Self::Keepalive => "`keepalive` of [listener.NAME]",
            Self::Bandwidth => "`bandwidth` of [listener.NAME]",
            Self::Limit => "[listener.NAME.limit]",
            Self::LimitKey => "`key` of [listener.NAME.limit]",
            Self::Pool => "[pool.NAME]",
            Self::HashPrefix => "`hash_prefix` of [pool.NAME]",
            Self::Sticky => "`sticky` of [pool.NAME]",
            Self::Queue => "`queue` of [pool.NAME]",
            Self::Backend => "an entry of `backends`",
            Self::Health => "[pool.NAME.health]",
            Self::Outlier => "[pool.NAME.outlier]",
        })
    }
}

/// One key of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The table it sits in.
    pub table: Table,
    /// Its name.
    pub name: &'static str,
    /// False: part of the format, refused until it is built.
    pub built: bool,
}

const BUILT: bool = true;
#[allow(dead_code, reason = "for keys that are part of the format before they are built")]
const LATER: bool = false;

/// The keys of one table with their state.
type Rows = (Table, &'static [(&'static str, bool)]);

/// Every table of the format, in the order of the documentation.
const TABLES: &[Rows] = &[
    (
        Table::Global,
        &[
            ("workers", BUILT),
            ("max_sessions", BUILT),
            ("pin_workers", BUILT),
            ("drain_timeout", BUILT),
            ("shutdown_delay", BUILT),
            ("splice", BUILT),
            ("spin", BUILT),
            ("hash_seed", BUILT),
            ("log", BUILT),
        ],
    ),
    (Table::Log, &[("level", BUILT), ("format", BUILT), ("sessions", BUILT)]),
    (Table::Admin, &[("socket", BUILT), ("http", BUILT)]),
    (
        Table::Listener,
        &[
            ("bind", BUILT),
            ("pool", BUILT),
            ("protocol", BUILT),
            ("idle_timeout", BUILT),
            ("half_closed_timeout", BUILT),
            ("max_sessions", BUILT),
            ("backlog", BUILT),
            ("allow", BUILT),
            ("deny", BUILT),
            ("accept_proxy", BUILT),
            ("max_lifetime", BUILT),
            ("keepalive", BUILT),
            ("user_timeout", BUILT),
            ("fast_open", BUILT),
            ("defer_accept", BUILT),
            ("mptcp", BUILT),
            ("bandwidth", BUILT),
            ("route", BUILT),
            ("peek", BUILT),
            ("limit", BUILT),
        ],
    ),
    (Table::AcceptProxy, &[("from", BUILT), ("others", BUILT), ("timeout", BUILT)]),
    (Table::Route, &[("sni", BUILT), ("alpn", BUILT), ("client", BUILT), ("pool", BUILT)]),
    (Table::Peek, &[("timeout", BUILT), ("max_bytes", BUILT), ("on_timeout", BUILT)]),
    (Table::Keepalive, &[("idle", BUILT), ("interval", BUILT), ("count", BUILT)]),
    (Table::Bandwidth, &[("up", BUILT), ("down", BUILT)]),
    (
        Table::Limit,
        &[
            ("algorithm", BUILT),
            ("rate", BUILT),
            ("burst", BUILT),
            ("max_concurrent", BUILT),
            ("key", BUILT),
            ("action", BUILT),
            ("mode", BUILT),
            ("exempt", BUILT),
            ("table_size", BUILT),
            ("listener_rate", BUILT),
        ],
    ),
    (Table::LimitKey, &[("v4", BUILT), ("v6", BUILT)]),
    (
        Table::Pool,
        &[
            ("balance", BUILT),
            ("hash_key", BUILT),
            ("hash_prefix", BUILT),
            ("table_size", BUILT),
            ("load_factor", BUILT),
            ("sticky", BUILT),
            ("backends", BUILT),
            ("connect_timeout", BUILT),
            ("retries", BUILT),
            ("queue", BUILT),
            ("send_proxy", BUILT),
            ("source", BUILT),
            ("transparent", BUILT),
            ("slow_start", BUILT),
            ("panic_threshold", BUILT),
            ("on_down", BUILT),
            ("health", BUILT),
            ("outlier", BUILT),
        ],
    ),
    (Table::HashPrefix, &[("v4", BUILT), ("v6", BUILT)]),
    (Table::Sticky, &[("for", BUILT), ("size", BUILT)]),
    (Table::Queue, &[("max", BUILT), ("timeout", BUILT)]),
    (
        Table::Backend,
        &[
            ("address", BUILT),
            ("name", BUILT),
            ("weight", BUILT),
            ("backup", BUILT),
            ("max_sessions", BUILT),
            ("drain", BUILT),
        ],
    ),
    (
        Table::Health,
        &[
            ("probe", BUILT),
            ("path", BUILT),
            ("host", BUILT),
            ("method", BUILT),
            ("status", BUILT),
            ("send", BUILT),
            ("expect", BUILT),
            ("verify", BUILT),
            ("ca", BUILT),
            ("port", BUILT),
            ("interval", BUILT),
            ("fast_interval", BUILT),
            ("timeout", BUILT),
            ("rise", BUILT),
            ("fall", BUILT),
            ("down_backoff", BUILT),
            ("initial", BUILT),
        ],
    ),
    (Table::Outlier, &[("consecutive_failures", BUILT), ("eject", BUILT), ("max_ejected", BUILT)]),
];

/// Every key with its table, in the order of the documentation.
pub fn all() -> impl Iterator<Item = Key> {
    TABLES.iter().flat_map(|(table, rows)| {
        rows.iter().map(|(name, built)| Key { table: *table, name, built: *built })
    })
}

/// The key called `name` in `table`.
pub fn find(table: Table, name: &str) -> Option<Key> {
    all().find(|key| table.holds(key) && key.name == name)
}

/// The keys that may be written in `table`.
pub fn of(table: Table) -> impl Iterator<Item = Key> {
    all().filter(move |key| key.built && table.holds(key))
}

/// The tables in which a key called `name` may be written.
pub fn tables_with(name: &str) -> impl Iterator<Item = Table> {
    all().filter(move |key| key.built && key.name == name).map(|key| key.table)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If a key were both a listener's and a pool's, `[defaults]` would not know whose it is.
    #[test]
    fn listener_and_pool_keys_differ() {
        for key in all().filter(|key| key.table == Table::Listener) {
            assert!(find(Table::Pool, key.name).is_none(), "{} is ambiguous", key.name);
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
}
