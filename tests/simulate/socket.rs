//! One scripted socket: what Linux keeps of a connection, and the peer at its other end.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::stream::Readiness;
use evenkeel::sys::socket::ConnectStatus;
use mio::Token;

use super::bytes::Speech;

/// Position of a socket in the network.
pub(crate) type SocketId = usize;

/// How a connection attempt stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The handshake still runs: there is nothing to tell.
    Pending,
    /// There is none, or it succeeded.
    #[default]
    Established,
    Failed,
}

/// What the kernel was asked to tell of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    All,
    /// Room to write, errors and hang-ups.
    Muted,
    /// A held client's: no urgent data.
    Held,
}

/// The epoll instance that a socket is registered with, and its token there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpollEntry {
    pub(crate) worker: usize,
    pub(crate) token: Token,
}

#[derive(Debug, Default)]
pub(crate) struct Socket {
    pub(crate) speech: Speech,
    /// The peer's address; `None` on a Unix socket.
    pub(crate) address: Option<SocketAddr>,
    /// By its PROXY header.
    pub(crate) claimed: Option<SocketAddr>,
    /// The worker has accepted it.
    pub(crate) accepted: bool,
    pub(crate) attempt: Attempt,
    /// Descriptors of it beside the first one.
    pub(crate) twins: usize,
    /// It belongs to a session that moves bytes.
    pub(crate) is_in_use: bool,
    /// How it is registered.
    pub(crate) registered: Option<(EpollEntry, Interest)>,
    /// The session's other socket.
    pub(crate) across: Option<SocketId>,
    /// Sent by the peer, and how much of it has been received.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Where the peer's urgent byte is, until it has been read.
    pub(crate) mark: Option<u64>,
    /// The peer has sent FIN.
    pub(crate) peer_finished: bool,
    /// The connection is gone: RST, or the kernel has given it up.
    pub(crate) reset: bool,
    /// It was given up by the kernel, not reset by its peer.
    pub(crate) unanswered: bool,
    /// Not reported yet.
    pub(crate) error: Option<ErrorKind>,
    /// Whether an error is told before the EOF that came first (Linux does it either way round).
    pub(crate) error_before_eof: bool,
    /// Bytes in the send buffer, and what the peer has read of our stream.
    pub(crate) buffered: u64,
    pub(crate) delivered: u64,
    /// When the peer last read.
    pub(crate) read_at: Tick,
    pub(crate) capacity: u64,
    /// The PROXY header that we sent first, as far as it goes.
    pub(crate) greeting: Vec<u8>,
    /// It has to come before anything else.
    pub(crate) wants_greeting: bool,
    /// The answer that a held client was sent.
    pub(crate) answer: Vec<u8>,
    /// A write found no room, so an edge is owed once there is some.
    pub(crate) no_space: bool,
    /// Bytes wait in the send buffer for a FIN.
    pub(crate) corked: bool,
    /// We have sent FIN.
    pub(crate) shut: bool,
    /// The peer reads no more.
    pub(crate) stalled: bool,
    /// We have closed it, and whether by a reset.
    pub(crate) closed: bool,
    /// As which of all.
    pub(crate) closed_as: u64,
    pub(crate) resets_on_close: bool,
    /// What has happened since the last event, if anything.
    pub(crate) edge: Option<Readiness>,
    /// Bytes moved and calls interrupted in this turn: what it may call progress.
    pub(crate) moved: u64,
}

impl Socket {
    pub(crate) fn new(speech: Speech, random: &mut fastrand::Rng) -> Self {
        Self {
            speech,
            capacity: [1, 7, 4096, 70_000, 300_000][random.usize(..5)],
            error_before_eof: random.u8(..4) == 0,
            ..Self::default()
        }
    }

    /// The handshake is done.
    pub(crate) fn answer_handshake(&mut self) {
        self.attempt = Attempt::Established;
        self.raise();
    }

    /// The handshake has failed.
    pub(crate) fn refuse_handshake(&mut self, kind: ErrorKind) {
        self.attempt = Attempt::Failed;
        self.fail(kind);
    }

    /// Asking takes SO_ERROR, which clears it.
    pub(crate) fn connect_status(&mut self) -> ConnectStatus {
        match (self.error.take(), self.attempt) {
            (Some(error), _) => ConnectStatus::Failed(error.into()),
            (None, Attempt::Failed) => ConnectStatus::Failed(ErrorKind::TimedOut.into()),
            (None, Attempt::Pending) => ConnectStatus::Pending,
            (None, Attempt::Established) => ConnectStatus::Established,
        }
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.sent - self.received
    }

    pub(crate) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.buffered)
    }

    /// Bytes of the session that have been taken towards the peer.
    pub(crate) fn taken(&self) -> u64 {
        self.delivered + self.buffered - self.greeting.len() as u64
    }

    /// Bytes for the session that the peer has sent, and that have been received.
    pub(crate) fn meant(&self) -> u64 {
        self.sent.saturating_sub(self.speech.header)
    }

    pub(crate) fn got(&self) -> u64 {
        self.received.saturating_sub(self.speech.header)
    }

    pub(crate) fn is_muted(&self) -> bool {
        self.registered.is_some_and(|(_, interest)| interest == Interest::Muted)
    }

    pub(crate) fn is_held(&self) -> bool {
        self.registered.is_some_and(|(_, interest)| interest == Interest::Held)
    }

    /// What epoll says of the socket now, in mio's words.
    pub(crate) fn state(&self) -> Readiness {
        if self.attempt == Attempt::Pending && self.error.is_none() {
            return Readiness::default();
        }
        let over = self.peer_finished || self.reset;
        let hung_up = self.reset || self.peer_finished && self.shut;
        let urgent = self.mark.is_some();
        Readiness {
            readable: self.waiting() > 0 || over || urgent,
            writable: self.room() > 0 || hung_up || self.shut,
            read_closed: over && self.error.is_none(),
            error: self.error.is_some(),
            urgent,
        }
    }

    /// Something has happened that epoll tells of.
    pub(crate) fn raise(&mut self) {
        let state = self.state();
        let edge = self.edge.get_or_insert_with(Readiness::default);
        edge.readable |= state.readable;
        edge.writable |= state.writable;
        edge.error |= state.error;
        edge.read_closed = (edge.read_closed | state.read_closed) & !edge.error;
        edge.urgent |= state.urgent;
    }

    /// The event, if one is due. Linux looks at the socket when it is asked (`fresh`).
    pub(crate) fn take_event(&mut self, fresh: bool) -> Option<(Token, Readiness)> {
        let (entry, interest) = self.registered?;
        let edge = self.edge.take()?;
        let mut event = if fresh { self.state() } else { edge };
        if interest == Interest::Muted {
            // A hang-up and an error are told whatever was asked for.
            let hung_up = self.reset || self.peer_finished && self.shut;
            event.readable = false;
            event.read_closed &= hung_up;
        }
        event.urgent &= interest == Interest::All;
        (event != Readiness::default()).then_some((entry.token, event))
    }

    pub(crate) fn arrive(&mut self, count: u64, urgent: bool) {
        if self.peer_finished || self.reset || count == 0 {
            return;
        }
        self.sent += count;
        if urgent {
            self.mark = Some(self.sent - 1);
        }
        self.raise();
    }

    pub(crate) fn finish(&mut self) {
        if !self.peer_finished && !self.reset {
            self.peer_finished = true;
            self.raise();
        }
    }

    pub(crate) fn fail(&mut self, kind: ErrorKind) {
        if !self.reset {
            self.reset = true;
            self.unanswered = kind != ErrorKind::ConnectionReset;
            let is_late = self.peer_finished && !self.unanswered;
            self.error = Some(if is_late { ErrorKind::BrokenPipe } else { kind });
            self.raise();
        }
    }

    /// The peer reads. The kernel wakes a writer when a third of the buffer is free; any free byte
    /// is harder on us.
    pub(crate) fn peer_reads(&mut self, most: u64, now: Tick) {
        let read = self.buffered.min(most);
        if read > 0 {
            self.read_at = now;
        }
        self.buffered -= read;
        self.delivered += read;
        if self.no_space && self.room() > 0 {
            self.no_space = false;
            self.raise();
        }
    }

    /// How many of `most` bytes a read takes, or how it ends.
    pub(crate) fn take(&mut self, most: u64, splices: bool, lies: bool) -> io::Result<u64> {
        let waiting = self.waiting();
        if waiting == 0 {
            if self.peer_finished && !self.error_before_eof {
                return Ok(0);
            }
            return match self.error.take() {
                Some(error) => Err(error.into()),
                None if self.peer_finished || self.reset => Ok(0),
                None => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let mut count = waiting.min(most);
        if let Some(ahead) = self.mark.and_then(|mark| mark.checked_sub(self.received)) {
            match ahead {
                0 if splices && lies => return Ok(0),
                0 if splices => return Err(ErrorKind::WouldBlock.into()),
                0 => self.mark = None,
                _ => count = count.min(ahead),
            }
        }
        self.received += count;
        self.moved += count;
        Ok(count)
    }

    /// A reset comes while splice(2) sends in parts: the error went with the part that it stopped,
    /// and no later call reports it.
    pub(crate) fn reset_unheard(&mut self) {
        if !self.reset {
            self.reset = true;
            self.raise();
        }
    }

    /// How many of `wanted` bytes a write takes.
    pub(crate) fn put(&mut self, wanted: u64, pressed: bool) -> io::Result<u64> {
        if let Some(error) = self.error.take() {
            return Err(error.into());
        }
        if self.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = if pressed { 0 } else { self.room().min(wanted) };
        self.no_space |= count < wanted;
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.buffered += count;
        self.moved += count;
        Ok(count)
    }
}
