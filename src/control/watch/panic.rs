//! Panic of a pool: decided, put in force, and logged.
//!
//! The rule is `policy/balance/panic_mode.rs`.

use crate::control::plane::configured::is_wanted;
use crate::control::words::too_few_healthy;
use crate::policy::balance::panic_mode::is_panicking;
use crate::shared::Pool;

/// Decides whether a pool panics, and logs a change.
pub(crate) fn judge_panic(pool: &Pool) {
    if let Some(panic) = decide_panic(pool) {
        tell_panic(pool, &panic);
    }
}

/// The start or the end of a panic.
pub(super) struct PanicChange {
    panicking: bool,
    healthy: usize,
    wanted: usize,
}

/// Decides whether a pool panics and puts that in force. Returns a change.
pub(super) fn decide_panic(pool: &Pool) -> Option<PanicChange> {
    let wanted: Vec<_> = pool.backends().filter(|backend| is_wanted(backend)).collect();
    let healthy = wanted.iter().filter(|backend| backend.state.is_healthy()).count();
    let panicking = is_panicking(healthy, wanted.len(), pool.terms.panic_threshold);
    let was_panicking = pool.state.set_panicking(panicking);
    (was_panicking != panicking).then_some(PanicChange { panicking, healthy, wanted: wanted.len() })
}

/// Logs a change.
pub(super) fn tell_panic(pool: &Pool, change: &PanicChange) {
    if change.panicking {
        let words = too_few_healthy(change.healthy as u64, change.wanted as u64);
        tracing::error!("pool {}: {words}", pool.name);
    } else {
        tracing::warn!("pool {}: enough healthy backends again", pool.name);
    }
}
