//! From a checked configuration to a published snapshot, and everything that follows from it.

use std::sync::Arc;

use crate::config::Config;
use crate::control::plane::configured::configured_backends;
use crate::control::plane::overrides::{Overrides, admin_by_file};
use crate::control::plane::state::Plane;
use crate::control::reload::compile::compile;
use crate::control::reload::compile::inputs::Inputs;
use crate::control::watch::panic::judge_pool;
use crate::control::watch::verdict::set_verdict;
use crate::control::watch::{outlier, source_ports};
use crate::shared::{AddressRange, Snapshot};
use crate::sys::memory::prefer_large_pages;
use crate::sys::process;

/// Makes the snapshot of a configuration, which follows the one in force. `addresses` are the real
/// ones of each listener, in the order of the configuration. Large tables take long: not on
/// the thread `control`, once it serves.
///
/// # Errors
/// In words, as [`compile`].
pub(crate) fn compiled(
    plane: &Plane,
    config: &Config,
    addresses: &[Vec<AddressRange>],
    overrides: &Overrides,
) -> Result<Arc<Snapshot>, String> {
    let previous = plane.publisher.latest();
    let inputs = Inputs {
        previous: &previous,
        acknowledged: plane.workers.acknowledged(),
        addresses,
        overrides,
        workers: plane.workers.states.len(),
        now_us: plane.now_us(),
        sessions_max: plane.sizes.sessions(config),
        source_ports: process::source_ports(),
        seeds: [(); 4].map(|()| fastrand::u64(..)),
    };
    let snapshot = Arc::new(compile(config, &inputs)?);
    map_tables(&snapshot);
    Ok(snapshot)
}

/// Publishes a snapshot that was made of this configuration, and sets what the file and operators
/// want of its backends.
pub(crate) fn publish(
    plane: &Plane,
    config: &Config,
    snapshot: &Arc<Snapshot>,
    overrides: &Overrides,
) {
    apply_admin_states(config, snapshot, overrides);
    plane.publisher.publish(Arc::clone(snapshot));
    lift_probeless(plane, config, snapshot);
    outlier::take_up(plane, snapshot);
    source_ports::take_up(plane, snapshot);
    plane.health.lock().keep(snapshot);
    plane.loss_bells.keep(snapshot);
    plane.drains.keep(snapshot);
    for pool in snapshot.pools.iter().flatten() {
        judge_pool(plane, pool);
    }
    plane.workers.wake();
}

/// Asks the kernel to put the tables that workers look up at random on large pages. Other memory is
/// left alone.
fn map_tables(snapshot: &Snapshot) {
    let limits = snapshot.open_listeners().flat_map(|listener| &listener.limits);
    let choices = snapshot.pools.iter().flatten().filter_map(|pool| pool.sticky.as_ref());
    limits
        .flat_map(|limit| limit.limiter.extents())
        .chain(choices.map(|sticky| sticky.memory.extent()))
        .for_each(prefer_large_pages);
}

fn apply_admin_states(config: &Config, snapshot: &Snapshot, overrides: &Overrides) {
    for (pool, backend, built) in configured_backends(config, snapshot) {
        let set = overrides.get(&(pool.name.clone(), backend.name.clone()));
        let set = set.and_then(|set| set.admin);
        built.state.set_admin(set.unwrap_or_else(|| admin_by_file(backend)));
    }
}

/// A pool without probes has no verdicts: its backends are up.
fn lift_probeless(plane: &Plane, config: &Config, snapshot: &Snapshot) {
    for (pool, _, built) in configured_backends(config, snapshot) {
        if pool.health.is_none() && !built.state.is_up() {
            set_verdict(plane, built, true, "its pool has no probes any more");
        }
    }
}
