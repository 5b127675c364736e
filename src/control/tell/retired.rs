//! What has left the configuration and still has sessions: it is shown until the last one ends.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::shared::{Listener, Snapshot};

/// Listeners of the configuration in its order, then those that only have sessions left.
pub(crate) fn listeners(snapshot: &Snapshot) -> Vec<&Arc<Listener>> {
    let left = snapshot.listeners.iter().flatten();
    let left = left.filter(|listener| is_retired(listener, snapshot));
    let left = left.filter(|listener| listener.state.active.value() > 0);
    snapshot.open_listeners().chain(left).collect()
}

/// Whether a listener accepts no more. No other listener has its name: compiling would have given a
/// listener of that name its place.
pub(crate) fn is_retired(listener: &Listener, snapshot: &Snapshot) -> bool {
    !snapshot.is_open(listener)
}

/// Sessions of backends that are gone, by pool and name, unless a backend of the configuration is
/// called the same.
pub(crate) fn backend_sessions(snapshot: &Snapshot) -> BTreeMap<(&str, &str), u64> {
    let pools = snapshot.pools.iter().flatten();
    let configured = pools.flat_map(|pool| pool.backends());
    let configured: HashSet<(&str, &str)> =
        configured.map(|one| (one.pool_name.as_str(), one.name.as_str())).collect();
    let mut sessions = BTreeMap::new();
    for backend in snapshot.backends.iter().flatten() {
        let name = (backend.pool_name.as_str(), backend.name.as_str());
        let active = backend.state.active();
        if active > 0 && !configured.contains(&name) {
            *sessions.entry(name).or_default() += active;
        }
    }
    sessions
}
