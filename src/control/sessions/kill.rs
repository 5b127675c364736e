//! The end of sessions by an operator's hand. It waits for workers: not on the thread `control`.

use std::sync::Arc;

use crate::config::LeaveConfig;
use crate::control::plane::configured::leave;
use crate::control::plane::state::Plane;
use crate::control::sessions::scan::{SilentWorker, scan};
use crate::dataplane::{Command, SessionFilter, Sighting, SlotKey};
use crate::shared::LeaveOrder;

/// Has the sessions that are meant reset, at once or at a pace over all workers, those first that
/// have been silent for longest. Returns their number. Sessions that begin later stay.
///
/// # Errors
/// A worker does not answer; nothing is reset then.
pub(crate) fn kill(
    plane: &Plane,
    filter: &Arc<SessionFilter>,
    wanted: LeaveConfig,
) -> Result<u64, SilentWorker> {
    let mut named: Vec<Vec<Sighting>> = vec![Vec::new(); plane.workers.handles.len()];
    scan(&plane.workers, filter, |worker, found| {
        if let Some(its) = named.get_mut(worker) {
            its.extend_from_slice(found);
        }
    })?;
    let order = Arc::new(LeaveOrder::to_kill(leave(wanted)));
    plane.kills.put(&order);
    let mut count = 0;
    for (worker, mut its) in plane.workers.handles.iter().zip(named) {
        if its.is_empty() {
            continue;
        }
        its.sort_unstable_by_key(|sighting| sighting.active_us);
        let keys: Vec<SlotKey> = its.iter().map(|sighting| sighting.key).collect();
        count += keys.len() as u64;
        if let Err(error) = worker.send(Command::LeaveNamed(Arc::clone(&order), keys)) {
            tracing::error!(%error, "cannot reach a worker");
        }
    }
    Ok(count)
}
