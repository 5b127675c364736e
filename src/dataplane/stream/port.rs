//! What a session knows of its two sockets from one event to the next.

use std::io;

use bitflags::bitflags;

use crate::shared::CloseReason;

use super::wire::Side;

/// What an event said of one socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read may find something.
    pub readable: bool,
    /// A write may find room.
    pub writable: bool,
    /// The peer has sent FIN.
    pub read_closed: bool,
    /// The socket has an error or is wholly shut.
    pub error: bool,
    /// Urgent data has come.
    pub urgent: bool,
}

bitflags! {
    /// What is known of one socket between two events. Events only set these; reads and writes
    /// that would block clear them.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Port: u16 {
        /// A read may find something.
        const READABLE = 1;
        /// A write may find room.
        const WRITABLE = 1 << 1;
        /// Nothing more will come (FIN, reset, hang-up), so no further edge will tell of it: reads
        /// go on until they give EOF or the error.
        const OVER = 1 << 2;
        /// It ends with FIN and nothing else: a short read then proves EOF.
        const FINISHED = 1 << 3;
        /// It has failed: once its own stream has been read to the end, no read will tell of that.
        const FAILED = 1 << 4;
        /// Urgent data has been seen. Reads stop at its mark and splice(2) never passes it, so
        /// neither "short read means empty" nor splicing may be used any more.
        const URGENT = 1 << 5;
        /// A read may end before what has come does (a Unix socket, at passed descriptors): a short
        /// one proves nothing.
        const PARTED = 1 << 6;
        /// A write was answered by a reset, which clears the socket's error: the 0 that reads give
        /// from then on is no clean EOF.
        const RESET = 1 << 7;
        /// The kernel has given the peer up, since it did not answer.
        const UNANSWERED = 1 << 8;
        /// More arrivals need no event: see [`OnlyMore`](crate::dataplane::stream::News::OnlyMore).
        const MUTED = 1 << 9;
    }
}

impl Port {
    /// What is known after an event.
    #[inline]
    pub(super) fn after(self, readiness: Readiness) -> Self {
        let mut heard = Self::empty();
        heard.set(Self::READABLE, readiness.readable);
        heard.set(Self::WRITABLE, readiness.writable);
        heard.set(Self::URGENT, readiness.urgent);
        if readiness.read_closed {
            heard |= Self::READABLE | Self::OVER;
            // A muted side is not told of urgent data, which ends reads early, too.
            heard.set(Self::FINISHED, !self.contains(Self::MUTED));
        }
        if readiness.error {
            heard |= Self::READABLE | Self::WRITABLE | Self::OVER | Self::FAILED;
        }
        let mut port = self | heard;
        if port.intersects(Self::FAILED | Self::RESET) {
            // After an error the queue may end in a reset: a short read proves nothing then.
            port.remove(Self::FINISHED);
        }
        port
    }

    /// Whether an error of a write that goes on says EPIPE for a reset that was not heard of.
    pub(super) fn hides_a_reset(self, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::BrokenPipe && !self.contains(Self::FINISHED)
    }

    /// Takes in why the socket failed.
    pub(super) fn note_error(&mut self, error: &io::Error) {
        if is_unanswered(error) {
            self.insert(Self::UNANSWERED);
        }
    }
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
        let port = match side {
            Side::Client => self.client,
            Side::Backend => self.backend,
        };
        match (side, port.contains(Port::UNANSWERED)) {
            (Side::Client, false) => CloseReason::ClientReset,
            (Side::Client, true) => CloseReason::ClientTimeout,
            (Side::Backend, false) => CloseReason::BackendReset,
            (Side::Backend, true) => CloseReason::BackendTimeout,
        }
    }
}

/// Whether an error of a socket says that its peer did not answer: ETIMEDOUT, or what an ICMP
/// message gave as the reason why nothing arrives (EHOSTUNREACH, ENETUNREACH and others; tcp(7),
/// ip(7)). The peer's own ends are the others.
fn is_unanswered(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}
