//! The reasons why a probe does not pass.

use std::io::{self, ErrorKind};
use std::time::Duration;

/// The reason why a probe did not pass, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbeFailure {
    /// The backend does not serve as it should.
    Backend(String),
    /// The backend does not serve, and names the time until the next probe makes sense.
    Later { reason: String, after: Duration },
    /// No probe could be made: no evidence for or against the backend.
    Ourselves(String),
}

/// Whether an error is a reset by the peer; Linux calls one behind a FIN EPIPE.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
