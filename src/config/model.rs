//! The checked configuration: what every other part of the program runs with.
//!
//! [`Config`] is total: every default is filled in, every name resolved, every value in range.
//! Its types say what exists, nothing about TOML; optional means "off" or "auto", never "unknown".
//! The type of a table stands in the file that reads and shows the table.

use std::collections::BTreeSet;

use crate::policy::address_range::AddressRange;

use super::listener::ListenerConfig;
use super::pool::PoolConfig;
use super::process::{Admin, Global};

/// A whole configuration file, defaults filled in and names resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`: what concerns the process as a whole.
    pub global: Global,
    /// `[admin]`: how operators and tools reach the process.
    pub admin: Admin,
    /// `[listener.NAME]` tables, in the order of the file.
    pub listeners: Vec<ListenerConfig>,
    /// `[pool.NAME]` tables, in the order of the file.
    pub pools: Vec<PoolConfig>,
}

impl Config {
    /// The listeners whose clients may go to the pool with this index.
    pub(crate) fn listeners_of(&self, pool: usize) -> impl Iterator<Item = &ListenerConfig> {
        let leads_there = move |listener: &&ListenerConfig| listener.pools().any(|it| it == pool);
        self.listeners.iter().filter(leads_there)
    }

    /// The ports to which clients of the pool with this index may connect, each once.
    pub(crate) fn ports_of(&self, pool: usize) -> impl Iterator<Item = u16> {
        let binds = self.listeners_of(pool).flat_map(|listener| &listener.bind);
        binds.filter_map(AddressRange::ports).flatten().collect::<BTreeSet<u16>>().into_iter()
    }

    /// The configuration as a file that says everything: it parses again to an equal `Config`.
    /// Keys that are optional and unset are left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let pool_name =
            |index: usize| self.pools.get(index).map_or("", |pool: &PoolConfig| pool.name.as_str());
        let global = self.global.entries().below("[global]");
        let mut out = global.trim_start().to_owned();
        out += &self.admin.entries().below("[admin]");
        out.extend(self.listeners.iter().map(|listener| listener.shown(pool_name)));
        out.extend(self.pools.iter().map(PoolConfig::shown));
        out
    }
}
