//! The end of sessions whose backend is down, as `on_down` of its pool says.

use std::sync::Arc;

use crate::control::plane::state::Plane;
use crate::control::words::count;
use crate::dataplane::Command;
use crate::policy::admit::shared_rate::SharedRate;
use crate::shared::{Backend, OnDown, Pool};

/// Has the sessions of a backend that is down reset, at once or at a pace. A pool that panics and
/// doubts its verdicts keeps them until the panic ends.
pub(super) fn end_sessions_of(plane: &Plane, backend: &Backend, pool: &Pool) {
    let is_doubted = pool.terms.panic_threshold.doubts_verdicts() && pool.state.is_panicking();
    if pool.on_down == OnDown::Keep || is_doubted {
        return;
    }
    let left = backend.state.active();
    if left == 0 {
        return;
    }
    let sessions = count(left, "session");
    tracing::warn!("backend {}/{} is down: resetting {sessions}", pool.name, backend.name);
    let pace = Arc::new(SharedRate::default());
    plane.workers.tell(|| Command::BackendDown { backend: backend.id, pace: Arc::clone(&pace) });
}
