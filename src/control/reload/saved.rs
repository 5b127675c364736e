//! What operators have set is written to the state file after each change of it.

use std::sync::Arc;

use crate::control::off_thread::off_thread;
use crate::control::plane::state::Plane;

/// Writes what is set now, where the service has a state file. A process that has handed over
/// writes no more: the file is that of the other one.
pub(crate) async fn save(plane: &Arc<Plane>) {
    if !plane.state_file.is_kept() || plane.upgrades.has_handed_over() {
        return;
    }
    let overrides = plane.current.lock().overrides.clone();
    let its = Arc::clone(plane);
    off_thread(move || its.state_file.write(&overrides, &its.bans, its.now_us())).await;
}
