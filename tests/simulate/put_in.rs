//! Faults of the scripted parts: what stands here for `PipePool` and for the worker's loop.

use evenkeel::dataplane::defects::{Defect, has};

/// A pipe that holds bytes goes back into the pool.
pub(crate) fn dirty_pipe() -> bool {
    has(Defect::DirtyPipe)
}

/// A timer that found its session active is not armed again.
pub(crate) fn forgotten_timer() -> bool {
    has(Defect::ForgetTimer)
}
