//! Why a probe did not pass.

use std::time::Duration;

/// Why a probe did not pass, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbeFailure {
    /// The backend does not serve as it should.
    Backend(String),
    /// The backend does not serve, and says how long it wants to be left alone.
    Later { reason: String, after: Duration },
    /// We could not ask: no evidence for or against the backend.
    Ourselves(String),
}
