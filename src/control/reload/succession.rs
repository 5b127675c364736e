//! What changes when one snapshot follows another, found beside the thread `control`: to put it in
//! force costs as much as has changed there, however many backends stay as they are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::Config;
use crate::control::plane::configured::configured_backends;
use crate::control::plane::overrides::{Overrides, admin_by_file};
use crate::control::watch::outlier::JudgingChanges;
use crate::control::watch::source_ports::SourceChanges;
use crate::shared::{Address, AdminState, Backend, BackendId, Pool, PoolId, Snapshot};

/// A snapshot with what its publication changes beside it.
#[derive(Debug)]
pub(crate) struct Succession {
    pub(crate) snapshot: Arc<Snapshot>,
    /// The one that it follows.
    pub(crate) previous: Arc<Snapshot>,
    /// Backends of which the file or an operator wants something else than before.
    pub(crate) admin: Vec<(Arc<Backend>, AdminState)>,
    /// Backends that are new to their pool, or have weight again, or none, or are backups, or not.
    pub(crate) joined: Vec<Arc<Backend>>,
    /// Backends that their pool has lost.
    pub(crate) left: Vec<Arc<Backend>>,
    /// Backends whose pool has no probes, and had, or had when it was there before.
    pub(crate) probeless: Vec<Arc<Backend>>,
    /// Backends that are new by name, each with one that has left whose address is the same and was
    /// probed in the same way: what was found out of that holds of it.
    pub(crate) renamed: Vec<(Arc<Backend>, Arc<Backend>)>,
    /// Backends that no worker can use any more.
    pub(crate) gone: Vec<Arc<Backend>>,
    pub(crate) gone_pools: Vec<PoolId>,
    pub(crate) judging: JudgingChanges,
    pub(crate) sources: SourceChanges,
}

impl Succession {
    /// From one snapshot to the next, which was made of `config`. `before` is the configuration in
    /// force. Exact as long as nothing else is put in force meanwhile: all that is compared here
    /// changes only with that, or with a verb.
    pub(crate) fn new(
        previous: Arc<Snapshot>,
        snapshot: Arc<Snapshot>,
        before: &Config,
        config: &Config,
        overrides: &Overrides,
    ) -> Self {
        let left = left(&previous, &snapshot);
        Self {
            admin: admin(config, &snapshot, overrides),
            joined: joined(&snapshot),
            probeless: probeless(before, config, &snapshot),
            renamed: renamed(before, &left, config, &previous, &snapshot),
            gone: gone(&previous, &snapshot),
            gone_pools: gone_pools(&previous, &snapshot),
            judging: JudgingChanges::new(&snapshot, &left),
            sources: SourceChanges::new(&previous, &snapshot),
            left,
            previous,
            snapshot,
        }
    }
}

fn admin(
    config: &Config,
    snapshot: &Snapshot,
    overrides: &Overrides,
) -> Vec<(Arc<Backend>, AdminState)> {
    let set: HashMap<(&str, &str), _> =
        overrides.iter().map(|((pool, name), set)| ((pool.as_str(), name.as_str()), set)).collect();
    configured_backends(config, snapshot)
        .filter_map(|(pool, backend, built)| {
            let set = set.get(&(pool.name.as_str(), backend.name.as_str()));
            let wanted = set.and_then(|set| set.admin).unwrap_or_else(|| admin_by_file(backend));
            (built.state.admin() != wanted).then(|| (Arc::clone(built), wanted))
        })
        .collect()
}

fn joined(snapshot: &Snapshot) -> Vec<Arc<Backend>> {
    let is_counted =
        |backend: &Backend| backend.state.is_member(backend.weight > 0, backend.backup);
    members(snapshot).filter(|backend| !is_counted(backend)).cloned().collect()
}

fn left(previous: &Snapshot, snapshot: &Snapshot) -> Vec<Arc<Backend>> {
    let stays: HashSet<BackendId> = members(snapshot).map(|backend| backend.id).collect();
    let stays = |backend: &Backend| stays.contains(&backend.id) && is_in(snapshot, backend);
    members(previous).filter(|backend| !stays(backend)).cloned().collect()
}

fn probeless(before: &Config, config: &Config, snapshot: &Snapshot) -> Vec<Arc<Backend>> {
    let probed = before.pools.iter().filter(|pool| pool.health.is_some());
    let probed: HashSet<&str> = probed.map(|pool| pool.name.as_str()).collect();
    configured_backends(config, snapshot)
        .filter(|(pool, _, built)| {
            let is_in_doubt = probed.contains(pool.name.as_str()) || !built.state.is_up();
            pool.health.is_none() && is_in_doubt
        })
        .map(|(.., built)| Arc::clone(built))
        .collect()
}

fn renamed(
    before: &Config,
    left: &[Arc<Backend>],
    config: &Config,
    previous: &Snapshot,
    snapshot: &Snapshot,
) -> Vec<(Arc<Backend>, Arc<Backend>)> {
    let probed: HashMap<&str, _> = before
        .pools
        .iter()
        .filter_map(|pool| Some((pool.name.as_str(), pool.health.as_ref()?)))
        .collect();
    let mut candidates: HashMap<&Address, Vec<_>> = HashMap::new();
    for old in left {
        if let Some(health) = probed.get(old.pool_name.as_str()) {
            candidates.entry(&old.address).or_default().push((*health, old));
        }
    }
    configured_backends(config, snapshot)
        .filter(|(.., built)| !is_in(previous, built))
        .filter_map(|(pool, _, built)| {
            let health = pool.health.as_ref()?;
            let found = candidates.get(&built.address)?.iter().find(|(its, _)| *its == health);
            found.map(|(_, old)| (Arc::clone(built), Arc::clone(old)))
        })
        .collect()
}

fn gone(previous: &Snapshot, snapshot: &Snapshot) -> Vec<Arc<Backend>> {
    let slots = previous.backends.iter().flatten();
    slots.filter(|backend| !is_in(snapshot, backend)).cloned().collect()
}

fn gone_pools(previous: &Snapshot, snapshot: &Snapshot) -> Vec<PoolId> {
    let ids = previous.pools.iter().flatten().map(|pool| pool.id);
    ids.filter(|id| snapshot.pool(*id).is_none()).collect()
}

/// Whether a worker can use it under this snapshot: another backend may have its id.
fn is_in(snapshot: &Snapshot, backend: &Backend) -> bool {
    let found = snapshot.backend(backend.id);
    found.is_some_and(|found| Arc::ptr_eq(&found.state, &backend.state))
}

fn members(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Backend>> {
    snapshot.pools.iter().flatten().flat_map(|pool: &Arc<Pool>| pool.backends())
}

#[cfg(test)]
mod tests;
