//! Faults of the scripted parts: what stands here for `PipePool` and for the worker's loop.

use evenkeel::dataplane::defects::{Defect, has};

// Without the feature the question is a constant: nothing is left of it in a build that serves.
#[cfg(not(feature = "defects"))]
const _: () = assert!(!has(Defect::DirtyPipe) && !has(Defect::NoOver));

/// A pipe that holds bytes goes back into the pool.
pub(crate) fn dirty_pipe() -> bool {
    has(Defect::DirtyPipe)
}

/// The half-closed bound is not armed by a turn that leaves work over.
pub(crate) fn late_half_closed() -> bool {
    has(Defect::LateHalfClosed)
}

/// A timer that found its session active is not armed again.
pub(crate) fn forgotten_timer() -> bool {
    has(Defect::ForgetTimer)
}
