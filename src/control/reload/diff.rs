//! What a new configuration changes, in words for an operator.

use std::collections::{HashMap, HashSet};

use crate::config::{BackendConfig, Config, ListenerConfig, PoolConfig};

/// One line for each listener, pool and backend that is new, gone or different.
pub(crate) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    let names =
        |listeners: &[ListenerConfig]| listeners.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
    compare("listener", &names(&old.listeners), &names(&new.listeners), &mut lines);
    for listener in &new.listeners {
        if let Some(before) = old.listeners.iter().find(|before| before.name == listener.name)
            && !(PlacedListener { listener: before, config: old })
                .is_same(&PlacedListener { listener, config: new })
        {
            lines.push(format!("listener {} changed", listener.name));
        }
    }
    let names =
        |pools: &[PoolConfig]| pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
    compare("pool", &names(&old.pools), &names(&new.pools), &mut lines);
    for pool in &new.pools {
        if let Some(before) = old.pools.iter().find(|before| before.name == pool.name) {
            pool_changes(before, pool, &mut lines);
        }
    }
    if old.global != new.global {
        lines.push("global settings changed".into());
    }
    lines
}

/// A listener and the configuration it stands in: it names its pool by position there.
struct PlacedListener<'a> {
    listener: &'a ListenerConfig,
    config: &'a Config,
}

impl PlacedListener<'_> {
    fn pool_name(&self) -> Option<&str> {
        self.config.pools.get(self.listener.pool).map(|pool| pool.name.as_str())
    }

    /// Whether both mean the same: a position may move without a change of meaning.
    fn is_same(&self, other: &Self) -> bool {
        let moved = ListenerConfig { pool: other.listener.pool, ..self.listener.clone() };
        self.pool_name() == other.pool_name() && moved == *other.listener
    }
}

fn pool_changes(before: &PoolConfig, after: &PoolConfig, lines: &mut Vec<String>) {
    let names = |pool: &PoolConfig| {
        pool.backends.iter().map(|b| format!("{}/{}", pool.name, b.name)).collect::<Vec<_>>()
    };
    compare("backend", &names(before), &names(after), lines);
    let known: HashMap<&str, &BackendConfig> =
        before.backends.iter().map(|old| (old.name.as_str(), old)).collect();
    for backend in &after.backends {
        if known.get(backend.name.as_str()).is_some_and(|old| *old != backend) {
            lines.push(format!("backend {}/{} changed", after.name, backend.name));
        }
    }
    if (PoolConfig { backends: Vec::new(), ..before.clone() })
        != (PoolConfig { backends: Vec::new(), ..after.clone() })
    {
        lines.push(format!("pool {} changed", after.name));
    }
}

fn compare(kind: &str, old: &[String], new: &[String], lines: &mut Vec<String>) {
    let (was, is): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
    for name in new.iter().filter(|name| !was.contains(name)) {
        lines.push(format!("{kind} {name} added"));
    }
    for name in old.iter().filter(|name| !is.contains(name)) {
        lines.push(format!("{kind} {name} removed"));
    }
}
