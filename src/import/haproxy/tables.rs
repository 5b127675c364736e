//! Stick tables of HAProxy: what they count, and of whom.

use std::time::Duration;

use crate::import::draft::KeyLines;

use super::quantities::{haproxy_size, haproxy_time};
use super::sections::ConfigLine;

/// A `stick-table` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StickTable {
    /// The proxy that has it.
    pub(super) owner: String,
    /// Whether it is about IPv4 clients, or those of both families.
    pub(super) is_v4: bool,
    pub(super) is_v6: bool,
    pub(super) size: Option<u64>,
    pub(super) expire: Option<Duration>,
    /// The period of `conn_rate`.
    pub(super) period: Option<Duration>,
}

/// Entries that a table of evenkeel may have.
const ENTRIES_MIN: u64 = 8;
const ENTRIES_MAX: u64 = 16_777_216;

impl StickTable {
    /// Reads a line; the second is what it has beside, which nothing counts here.
    pub(super) fn read(owner: &str, line: &ConfigLine) -> (Self, Vec<String>) {
        let mut table = Self {
            owner: owner.to_owned(),
            is_v4: false,
            is_v6: false,
            size: None,
            expire: None,
            period: None,
        };
        let mut other = Vec::new();
        let mut rest = line.from(1).iter();
        while let Some(word) = rest.next() {
            if word == "nopurge" {
                other.push(word.clone());
                continue;
            }
            let value = rest.next().map_or("", String::as_str);
            match word.as_str() {
                "type" => {
                    table.is_v4 = matches!(value, "ip" | "ipv6");
                    table.is_v6 = value == "ipv6";
                }
                "size" => table.size = haproxy_size(value),
                "expire" => table.expire = haproxy_time(value),
                "store" => other.extend(table.store(value)),
                word => other.push(format!("{word} {value}")),
            }
        }
        (table, other)
    }

    fn store(&mut self, list: &str) -> Vec<String> {
        let mut other = Vec::new();
        // A comma within parentheses cannot be: each has one period.
        for counter in list.split(',') {
            match counter.strip_prefix("conn_rate(").and_then(|rest| rest.strip_suffix(')')) {
                Some(period) => self.period = haproxy_time(period),
                None if counter == "conn_cur" => {}
                None => other.push(counter.to_owned()),
            }
        }
        other
    }

    /// Its size, as `table_size` of a limit and `size` of `sticky` take it.
    pub(super) fn entries(&self) -> Option<u64> {
        self.size.map(|size| size.clamp(ENTRIES_MIN, ENTRIES_MAX))
    }
}

/// How much of an address `src,ipmask(V4,V6)` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientMask {
    v4: u8,
    v6: u8,
}

impl ClientMask {
    /// `key` of a limit: how much of an address is one client.
    pub(super) fn key(self) -> String {
        let mut key = KeyLines::default();
        key.set("v4", self.v4);
        key.set("v6", self.v6);
        key.inline()
    }

    /// The mask of what is tracked, where it is the client's address.
    pub(super) fn of(fetch: &str) -> Option<Self> {
        if fetch == "src" {
            return Some(Self { v4: 32, v6: 128 });
        }
        let lengths = fetch.strip_prefix("src,ipmask(")?.strip_suffix(')')?;
        let (v4, v6) = lengths.split_once(',').unwrap_or((lengths, "128"));
        let v4 = v4.parse().ok().filter(|length| *length <= 32)?;
        let v6 = v6.parse().ok().filter(|length| *length <= 128)?;
        Some(Self { v4, v6 })
    }
}
