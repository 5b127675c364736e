//! The verdict of probes: put in force, recorded with its reason, logged, and acted on.

use std::sync::Arc;

use crate::control::plane::configured::is_wanted;
use crate::control::plane::health_book::BackendVerdict;
use crate::control::plane::state::Plane;
use crate::control::watch::panic::{decide_panic, tell_panic};
use crate::control::words::count;
use crate::dataplane::Command;
use crate::policy::admit::shared_rate::SharedRate;
use crate::shared::{Backend, OnDown, Pool};

/// Puts the verdict of a backend's probes in force and logs it with its `reason`.
pub(crate) fn set_verdict(plane: &Plane, backend: &Backend, up: bool, reason: &str) {
    if up && !backend.state.is_up() {
        backend.state.begin(plane.now_us());
    }
    backend.state.set_up(up);
    let verdict = BackendVerdict::from_now(reason);
    plane.health.lock().verdicts.insert(backend.id, verdict);
    let snapshot = plane.publisher.latest();
    let Some(pool) = snapshot.pool(backend.pool) else { return };
    // Panic is decided before the line is written: its reader may rely on what the line says.
    let panic = decide_panic(pool);
    tell_verdict(pool, backend, up, reason);
    if let Some(panic) = panic {
        tell_panic(pool, &panic);
    }
    if !up {
        end_sessions_of(plane, backend, pool);
    }
}

fn tell_verdict(pool: &Pool, backend: &Backend, up: bool, reason: &str) {
    let total = pool.backends().count();
    let left = pool.backends().filter(|b| b.state.is_healthy() && is_wanted(b)).count();
    let (word, tail) = if up { ("up", "up") } else { ("down", "left") };
    tracing::warn!(
        "backend {}/{} {word}: {reason}, {left} of {total} {tail}",
        backend.pool_name,
        backend.name,
    );
}

/// Resets the sessions of a backend that went down, if `on_down` of its pool says so. A pool that
/// panics because of its threshold does not believe the verdict.
fn end_sessions_of(plane: &Plane, backend: &Backend, pool: &Pool) {
    let is_doubted = pool.terms.panic_threshold > 0 && pool.state.is_panicking();
    if pool.on_down == OnDown::Keep || is_doubted {
        return;
    }
    let left = backend.state.active();
    if left > 0 {
        let sessions = count(left, "session");
        tracing::warn!("backend {}/{} is down: resetting {sessions}", pool.name, backend.name);
    }
    let pace = Arc::new(SharedRate::default());
    plane.workers.tell(|| Command::BackendDown { backend: backend.id, pace: Arc::clone(&pace) });
}
