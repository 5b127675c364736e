//! What a session knows of its two sockets from one event to the next.

use std::io;

use crate::shared::CloseReason;

use super::wire::Side;

/// What is known of one socket between two events. Events only set these; reads and writes that
/// would block clear them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// A read may find something.
    pub readable: bool,
    /// A write may find room.
    pub writable: bool,
    /// Nothing more will come (FIN, reset, hang-up), so no further edge will tell of it: reads go
    /// on until they give EOF or the error.
    pub over: bool,
    /// It ends with FIN and nothing else: a short read then proves EOF.
    pub finished: bool,
    /// It has failed: once its own stream has been read to the end, no read will tell of that.
    pub failed: bool,
    /// Urgent data has been seen. Reads stop at its mark and splice(2) never passes it, so neither
    /// "short read means empty" nor splicing may be used any more.
    pub urgent: bool,
    /// A read may end before what has come does (a Unix socket, at passed descriptors): a short one
    /// proves nothing.
    pub parted: bool,
    /// A write was answered by a reset, which clears the socket's error: the 0 that reads give
    /// from then on is no clean EOF.
    pub reset: bool,
    /// The kernel has given the peer up, since it did not answer.
    pub unanswered: bool,
    /// More arrivals need no event: see [`OnlyMore`](crate::dataplane::stream::News::OnlyMore).
    pub muted: bool,
}

/// Both sockets of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// The client's.
    pub client: Port,
    /// The backend's.
    pub backend: Port,
}

impl Ports {
    /// The port of one side.
    pub fn port(&mut self, side: Side) -> &mut Port {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }
    /// Why a session ends whose one side has failed.
    pub(super) fn failure_of(self, side: Side) -> CloseReason {
        match (side, self.client.unanswered, self.backend.unanswered) {
            (Side::Client, false, _) => CloseReason::ClientReset,
            (Side::Client, true, _) => CloseReason::ClientTimeout,
            (Side::Backend, _, false) => CloseReason::BackendReset,
            (Side::Backend, _, true) => CloseReason::BackendTimeout,
        }
    }
}

/// Whether an error of a socket says that its peer did not answer: ETIMEDOUT, or what an ICMP
/// message gave as the reason why nothing arrives (EHOSTUNREACH, ENETUNREACH and others; tcp(7),
/// ip(7)). The peer's own ends are the others.
pub(super) fn is_unanswered(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}
