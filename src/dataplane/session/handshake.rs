//! What an event says of a connection attempt that was under way.

use std::io;

use crate::dataplane::stream::Readiness;
use crate::dataplane::stream::wire::Side;
use crate::sys::socket::ConnectStatus;

/// How an attempt stands after an event.
#[derive(Debug)]
pub enum Handshake {
    /// As before.
    Waits,
    /// As before, and what the event said of the backend's socket is not to be believed.
    Unproven,
    /// It is done.
    Done,
    /// It failed.
    Failed(io::Error),
    /// The client is gone.
    Abandoned,
}

impl Handshake {
    /// Judges an event. Plainly writable is connected; anything else is proven by asking, since
    /// some kernels report HUP while the handshake still runs.
    pub fn judge(
        side: Side,
        readiness: Readiness,
        ask: impl FnOnce() -> Option<ConnectStatus>,
    ) -> Self {
        match side {
            Side::Client if readiness.error => return Self::Abandoned,
            Side::Client => return Self::Waits,
            Side::Backend => {}
        }
        if readiness.writable && !readiness.error && !readiness.read_closed {
            return Self::Done;
        }
        match ask() {
            Some(ConnectStatus::Established) => Self::Done,
            Some(ConnectStatus::Pending) => Self::Unproven,
            Some(ConnectStatus::Failed(error)) => Self::Failed(error),
            None => Self::Waits,
        }
    }
}

/// Whether another backend is to be tried once `failed` have failed.
#[must_use]
pub fn may_retry(failed: usize, retries: u32) -> bool {
    failed <= retries as usize
}
