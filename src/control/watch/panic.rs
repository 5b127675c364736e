//! A pool after a change of its backends' health: whether it serves, whether it panics, and what
//! follows from that.
//!
//! The rule is `policy/balance/panic_mode.rs`.

use crate::control::plane::state::Plane;
use crate::control::watch::on_down::end_sessions_of;
use crate::control::words::too_few_healthy;
use crate::policy::health::pool_health::PoolHealth;
use crate::policy::health::rise_fall::Belief;
use crate::shared::Pool;

/// Decides whether a pool panics, logs a change, and acts on it. Whoever changes the health of a
/// backend calls it.
pub(crate) fn judge_panic(plane: &Plane, pool: &Pool) {
    if let Some(panic) = decide_panic(plane, pool) {
        follow_panic(plane, pool, &panic);
    }
}

/// The start or the end of a panic.
pub(super) struct PanicChange {
    panicking: bool,
    health: PoolHealth,
}

/// Decides whether a pool serves and panics, and puts that in force. Returns a change of panic.
pub(super) fn decide_panic(plane: &Plane, pool: &Pool) -> Option<PanicChange> {
    let health = pool.health();
    if pool.state.set_serving(health.serves()) && !health.serves() {
        plane.loss_bells.ring(pool.id);
    }
    let panicking = pool.terms.panic_threshold.is_panicking(health);
    let was_panicking = pool.state.set_panicking(panicking);
    (was_panicking != panicking).then_some(PanicChange { panicking, health })
}

/// Logs a change. Sessions that a panic has let in end with it, unless `on_down` keeps them.
pub(super) fn follow_panic(plane: &Plane, pool: &Pool, change: &PanicChange) {
    if change.panicking {
        let words = too_few_healthy(change.health.healthy as u64, change.health.total as u64);
        tracing::error!("pool {}: {words}", pool.name);
        return;
    }
    tracing::warn!("pool {}: verdicts count again", pool.name);
    // Sessions of a drained backend are the operator's to end.
    for backend in pool.backends().filter(|backend| backend.is_wanted()) {
        if backend.state.belief() == Belief::Down {
            end_sessions_of(plane, backend, pool);
        }
    }
}
