//! The verdict of probes: put in force, recorded with its reason, logged, and acted on.

use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::state::Plane;
use crate::control::watch::leave::leave_down;
use crate::control::watch::panic::{decide, follow};
use crate::shared::{Backend, Pool};

/// Puts the verdict of a backend's probes in force and logs it with its `reason`.
pub(crate) fn set_verdict(plane: &Plane, backend: &Backend, up: bool, reason: &str) {
    let snapshot = plane.publisher.latest();
    // Its pool is gone, and it with it.
    let Some(pool) = snapshot.pool(backend.pool) else { return };
    if up && !backend.state.is_up() {
        backend.state.begin(plane.now_us());
    }
    backend.state.set_up(up, &pool.state.tally);
    plane.health.lock().of(backend).verdict = Some(BackendVerdict::from_now(reason));
    // Panic is decided before the line is written: its reader may rely on what the line says.
    let change = decide(plane, pool);
    tell_verdict(pool, backend, up, reason);
    follow(plane, pool, &change);
    if !up {
        leave_down(plane, backend, pool);
    }
}

fn tell_verdict(pool: &Pool, backend: &Backend, up: bool, reason: &str) {
    let total = pool.backends().count();
    let left = pool.health().healthy;
    let (word, tail) = if up { ("up", "up") } else { ("down", "left") };
    tracing::warn!(
        "backend {}/{} {word}: {reason}, {left} of {total} {tail}",
        backend.pool_name,
        backend.name,
    );
}
