//! Orders that sessions leave their backend: it is down (`on_down`), it is a backup and a primary
//! can serve again (`on_up`), or an operator empties it (`drain --reset`).

use std::sync::Arc;

use crate::config::LeaveConfig;
use crate::config::units::show_rate;
use crate::control::plane::configured::leave;
use crate::control::plane::drain_book::DrainOrder;
use crate::control::plane::state::Plane;
use crate::control::words::count;
use crate::dataplane::Command;
use crate::policy::admit::shared_rate::SharedRate;
use crate::shared::{Backend, Leave, LeaveCause, LeaveOrder, Pool};

/// Has the sessions of a backend that is down reset, as `on_down` of its pool says. A pool that
/// panics and doubts its verdicts keeps them until the panic ends.
pub(super) fn leave_down(plane: &Plane, backend: &Backend, pool: &Pool) {
    let is_doubted = pool.terms.panic_threshold.doubts_verdicts() && pool.state.is_panicking();
    if pool.on_down == Leave::Keep || is_doubted {
        return;
    }
    let left = backend.state.active();
    if left > 0 {
        let sessions = count(left, "session");
        tracing::warn!("backend {}/{} is down: resetting {sessions}", pool.name, backend.name);
    }
    tell(plane, LeaveOrder::new(backend, LeaveCause::Down, Arc::default()));
}

/// Has the sessions on backups reset once a primary can serve, as `on_up` of the pool says. All its
/// backups together keep one pace.
pub(super) fn leave_backups(plane: &Plane, pool: &Pool) {
    if pool.on_up == Leave::Keep {
        return;
    }
    let backups = &pool.backup.members;
    let left = backups.iter().map(|backup| backup.state.active()).sum();
    if left > 0 {
        let sessions = count(left, "session");
        tracing::warn!("pool {}: a primary can serve: resetting {sessions} on backups", pool.name);
    }
    let pace = Arc::<SharedRate>::default();
    for backup in backups {
        tell(plane, LeaveOrder::new(backup, LeaveCause::PrimaryUp, Arc::clone(&pace)));
    }
}

/// Has the sessions of a backend that an operator has just drained reset, in this way; returns what
/// happens, in words, or `None` where they are kept.
pub(crate) fn leave_drained(
    plane: &Plane,
    backend: &Backend,
    wanted: LeaveConfig,
) -> Option<String> {
    let words = reset_words(wanted)?;
    let sessions = count(backend.state.active(), "session");
    let cause = LeaveCause::Drain(leave(wanted));
    let order = tell(plane, LeaveOrder::new(backend, cause, Arc::default()));
    plane.drains.put(backend.id, DrainOrder { order, wanted });
    Some(format!("resetting {sessions} {words}"))
}

/// How sessions are reset, in words; `None`: they are kept.
pub(crate) fn reset_words(wanted: LeaveConfig) -> Option<String> {
    match wanted {
        LeaveConfig::Keep => None,
        LeaveConfig::Reset => Some("at once".to_owned()),
        LeaveConfig::Pace(rate) => Some(format!("at {}", show_rate(rate))),
    }
}

/// Gives an order to all workers; returns it.
fn tell(plane: &Plane, order: LeaveOrder) -> Arc<LeaveOrder> {
    let order = Arc::new(order);
    plane.workers.tell(|| Command::Leave(Arc::clone(&order)));
    order
}
