//! A pool after a change of its backends' health: whether it serves, whether it panics, whether
//! more primaries can serve, and what follows from that.
//!
//! The rule of panic is `policy/balance/panic_mode.rs`.

use crate::control::plane::state::Plane;
use crate::control::watch::leave::{leave_backups, leave_down};
use crate::control::words::too_few_healthy;
use crate::policy::health::pool_health::PoolHealth;
use crate::policy::health::rise_fall::Belief;
use crate::shared::Pool;

/// Decides how a pool stands, logs a change, and acts on it. Whoever changes the health of a
/// backend, or what operators and the file want of it, calls it.
pub(crate) fn judge_pool(plane: &Plane, pool: &Pool) {
    let change = decide(plane, pool);
    follow(plane, pool, &change);
}

/// What has changed for a pool.
pub(super) struct PoolChange {
    health: PoolHealth,
    /// It panics from now on, or does not any more.
    panicking: Option<bool>,
    has_more_primaries: bool,
}

/// Decides whether a pool serves and panics, and puts that in force.
pub(super) fn decide(plane: &Plane, pool: &Pool) -> PoolChange {
    let health = pool.health();
    if pool.state.set_serving(health.serves()) && !health.serves() {
        plane.loss_bells.ring(pool.id);
    }
    let panicking = pool.terms.panic_threshold.is_panicking(health);
    let was_panicking = pool.state.set_panicking(panicking);
    let primaries = health.healthy - health.healthy_backups;
    PoolChange {
        health,
        panicking: (was_panicking != panicking).then_some(panicking),
        has_more_primaries: pool.state.set_primaries(primaries) < primaries,
    }
}

/// Logs a change, and has sessions leave that a panic, or the want of a primary, has brought where
/// they are, as `on_down` and `on_up` say.
pub(super) fn follow(plane: &Plane, pool: &Pool, change: &PoolChange) {
    // A backend that can serve again is a place; the worker that is called finds out.
    pool.state.line.place_is_free();
    match change.panicking {
        Some(true) => {
            let PoolHealth { healthy, total, .. } = change.health;
            let words = too_few_healthy(healthy as u64, total as u64);
            tracing::error!("pool {}: {words}", pool.name);
        }
        Some(false) => end_panic(plane, pool),
        None => {}
    }
    if change.has_more_primaries {
        leave_backups(plane, pool);
    }
}

/// Sessions that a panic has let in end with it, unless `on_down` keeps them.
fn end_panic(plane: &Plane, pool: &Pool) {
    tracing::warn!("pool {}: verdicts count again", pool.name);
    // Sessions of a drained backend are the operator's to end.
    for backend in pool.backends().filter(|backend| backend.is_wanted()) {
        if backend.state.belief() == Belief::Down {
            leave_down(plane, backend, pool);
        }
    }
}
