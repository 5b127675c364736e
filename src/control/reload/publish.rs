//! From a checked configuration to a published snapshot, and everything that follows from it.

use std::sync::Arc;

use tokio::task::consume_budget;

use crate::config::Config;
use crate::control::host::gates::ListenerGate;
use crate::control::plane::overrides::Overrides;
use crate::control::plane::state::Plane;
use crate::control::reload::compile::compile;
use crate::control::reload::compile::inputs::Inputs;
use crate::control::reload::succession::Succession;
use crate::control::watch::panic::judge_pool;
use crate::control::watch::verdict::set_verdict;
use crate::control::watch::{outlier, source_ports};
use crate::shared::{AddressRange, Backend, Snapshot, Tally};
use crate::sys::memory::prefer_large_pages;
use crate::sys::process;

/// Makes the snapshot of a configuration, which follows the one in force, and finds what changes
/// with it. `addresses` are the real ones of each listener, in the order of the configuration,
/// `gates` theirs; empty: as before. Large tables take long: not on the thread `control`, once it
/// serves.
///
/// # Errors
/// In words, as [`compile`].
pub(crate) fn compiled(
    plane: &Plane,
    config: &Config,
    addresses: &[Vec<AddressRange>],
    overrides: &Overrides,
    gates: &[ListenerGate],
) -> Result<Succession, String> {
    let previous = plane.publisher.latest();
    // Once: what comes later follows a snapshot.
    let inherited = std::mem::take(&mut *plane.inherited.lock());
    let inputs = Inputs {
        previous: &previous,
        acknowledged: plane.workers.acknowledged(),
        addresses,
        overrides,
        gates,
        inherited: &inherited,
        workers: plane.workers.states.len(),
        now_us: plane.now_us(),
        sessions_max: plane.sizes.sessions(config),
        source_ports: process::source_ports(),
        seeds: [(); 4].map(|()| fastrand::u64(..)),
    };
    let snapshot = Arc::new(compile(config, &inputs)?);
    map_tables(&snapshot);
    let before = Arc::clone(&plane.current.lock().config);
    Ok(Succession::new(previous, snapshot, &before, config, overrides))
}

/// Puts a snapshot in force with all that follows from it.
pub(crate) async fn publish(plane: &Arc<Plane>, succession: Succession) {
    put_in_force(plane, &succession);
    follow(plane, &succession).await;
    drop_when_unused(plane, succession);
}

/// Publishes a snapshot, and sets what the file and operators want of its backends.
pub(crate) fn put_in_force(plane: &Plane, succession: &Succession) {
    let Succession { snapshot, previous, admin, joined, left, renamed, .. } = succession;
    for (backend, admin) in admin {
        with_tally(snapshot, backend, |tally| backend.state.set_admin(*admin, tally));
    }
    for (backend, old) in renamed {
        if let Some(is_up) = old.state.belief().verdict() {
            with_tally(snapshot, backend, |tally| backend.state.set_up(is_up, tally));
        }
    }
    plane.publisher.publish(Arc::clone(snapshot));
    for backend in left {
        with_tally(previous, backend, |tally| backend.state.leave(tally));
    }
    for backend in joined {
        let (has_weight, is_backup) = (backend.weight > 0, backend.backup);
        with_tally(snapshot, backend, |tally| backend.state.join(has_weight, is_backup, tally));
    }
    plane.workers.wake();
}

fn with_tally(snapshot: &Snapshot, backend: &Backend, change: impl FnOnce(&Tally)) {
    // A backend of a snapshot has its pool there.
    if let Some(pool) = snapshot.pool(backend.pool) {
        change(&pool.state.tally);
    }
}

/// Draws the consequences of a snapshot that has been put in force. Others act in between.
pub(crate) async fn follow(plane: &Plane, succession: &Succession) {
    let Succession { snapshot, renamed, probeless, gone, .. } = succession;
    let Succession { gone_pools, judging, sources, .. } = succession;
    for (backend, old) in renamed {
        plane.health.lock().know_as(old, backend);
        consume_budget().await;
    }
    // A pool without probes has no verdicts: its backends are up.
    for backend in probeless {
        if !backend.state.is_up() {
            set_verdict(plane, backend, true, "its pool has no probes any more");
        }
        consume_budget().await;
    }
    outlier::take_up(plane, judging).await;
    source_ports::take_up(plane, sources).await;
    for backend in gone {
        plane.health.lock().forget(backend);
        consume_budget().await;
    }
    for pool in gone_pools {
        plane.loss_bells.forget(*pool);
    }
    // As many orders as operators have given.
    plane.drains.keep(snapshot);
    for pool in snapshot.pools.iter().flatten() {
        judge_pool(plane, pool);
        consume_budget().await;
    }
}

/// Drops something that belongs to a snapshot no longer in force: beside the thread `control`, and
/// once no worker uses it, since the last user frees all its tables.
pub(crate) fn drop_when_unused(plane: &Arc<Plane>, old: impl Send + 'static) {
    let (plane, latest) = (Arc::clone(plane), plane.publisher.latest().generation);
    tokio::task::spawn_blocking(move || {
        plane.workers.await_up_to(latest);
        drop(old);
    });
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
