//! The table of every key the file format knows.
//!
//! It decides whether a key is known in a table, and where else it would be valid. A new key is a
//! row here and its conversion in the module that reads the table.

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
}

/// The keys of one table.
type Rows = (Table, &'static [&'static str]);

/// Every table of the format, in the order of the documentation.
const TABLES: &[Rows] = &[
    (
        Table::Global,
        &[
            "workers",
            "max_sessions",
            "pin_workers",
            "drain_timeout",
            "shutdown_delay",
            "splice",
            "spin",
            "hash_seed",
            "log",
        ],
    ),
    (Table::Log, &["level", "format", "sessions"]),
    (Table::Admin, &["socket", "http"]),
    (
        Table::Listener,
        &[
            "bind",
            "pool",
            "protocol",
            "idle_timeout",
            "half_closed_timeout",
            "max_sessions",
            "backlog",
            "allow",
            "deny",
            "accept_proxy",
            "max_lifetime",
            "keepalive",
            "user_timeout",
            "fast_open",
            "defer_accept",
            "mptcp",
            "bandwidth",
            "route",
            "peek",
            "limit",
        ],
    ),
    (Table::AcceptProxy, &["from", "others", "timeout"]),
    (Table::Route, &["sni", "alpn", "client", "pool"]),
    (Table::Peek, &["timeout", "max_bytes", "on_timeout"]),
    (Table::Keepalive, &["idle", "interval", "count"]),
    (Table::Bandwidth, &["up", "down"]),
    (
        Table::Limit,
        &[
            "algorithm",
            "rate",
            "burst",
            "max_concurrent",
            "key",
            "action",
            "mode",
            "exempt",
            "table_size",
            "listener_rate",
        ],
    ),
    (Table::LimitKey, &["v4", "v6"]),
    (
        Table::Pool,
        &[
            "balance",
            "hash_key",
            "hash_prefix",
            "table_size",
            "load_factor",
            "sticky",
            "backends",
            "connect_timeout",
            "retries",
            "queue",
            "send_proxy",
            "source",
            "transparent",
            "slow_start",
            "panic_threshold",
            "on_down",
            "health",
            "outlier",
        ],
    ),
    (Table::HashPrefix, &["v4", "v6"]),
    (Table::Sticky, &["for", "size"]),
    (Table::Queue, &["max", "timeout"]),
    (Table::Backend, &["address", "name", "weight", "backup", "max_sessions", "drain"]),
    (
        Table::Health,
        &[
            "probe",
            "path",
            "host",
            "method",
            "status",
            "send",
            "expect",
            "verify",
            "ca",
            "port",
            "interval",
            "fast_interval",
            "timeout",
            "rise",
            "fall",
            "down_backoff",
            "initial",
        ],
    ),
    (Table::Outlier, &["consecutive_failures", "eject", "max_ejected"]),
];

/// Every key with its table, in the order of the documentation.
pub fn all() -> impl Iterator<Item = Key> {
    TABLES.iter().flat_map(|(table, rows)| rows.iter().map(|name| Key { table: *table, name }))
}

/// The key called `name` in `table`.
pub fn find(table: Table, name: &str) -> Option<Key> {
    all().find(|key| table.holds(key) && key.name == name)
}

/// The keys that may be written in `table`.
pub fn of(table: Table) -> impl Iterator<Item = Key> {
    all().filter(move |key| table.holds(key))
}

/// The tables in which a key called `name` may be written.
pub fn tables_with(name: &str) -> impl Iterator<Item = Table> {
    all().filter(move |key| key.name == name).map(|key| key.table)
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
