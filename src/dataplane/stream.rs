//! One proxied connection: its states and transitions.
//!
//! Two sockets, two relays. Events set latches; [`Stream::advance`] does all the work. Half-close
//! is a property of one relay, and the session is over when both are. A reset by one side first
//! delivers what was read before it, then resets the other side; a reset that follows a FIN is no
//! longer news. Nothing here knows the kernel: see [`wire`].

pub mod pacing;
pub mod passed;
mod path_choice;
pub mod port;
pub mod relay;
pub mod wire;

use std::io;

use crate::shared::{CloseReason, PathKind, SpliceMode};

pub use port::Readiness;
use port::{Port, Ports};
use relay::{Flow, Relay, Turn};
use wire::{Holds, Side, Wire};

/// Reads that one turn discards of what can reach no peer any more.
const DISCARDS_PER_TURN: usize = 4;

/// What an event was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum News {
    /// The session may be able to move.
    Some,
    /// More has come from a side that already waits for a full target. Each arrival tells this
    /// anew, so the worker mutes the side.
    OnlyMore,
}

/// How a session stands after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Wait for the next event.
    Waiting,
    /// More can be done at once.
    Busy,
    /// All bytes are sent, but a close now could lose some: look again soon.
    Lingering,
    /// It is over.
    Over(End),
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: CloseReason,
    /// Which sides are to see a reset instead of a FIN.
    pub reset: Reset,
}

/// Which sides are to see a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Neither.
    None,
    /// One of them.
    One(Side),
    /// Both.
    Both,
}

/// One proxied connection, once its backend is connected.
#[derive(Debug)]
pub struct Stream<P> {
    ports: Ports,
    to_backend: Relay<P>,
    to_client: Relay<P>,
    aborted_by: Option<Side>,
}

impl<P: Holds> Stream<P> {
    /// A session whose client has been accepted and whose backend is not connected yet.
    #[must_use]
    pub fn new(splice: SpliceMode) -> Self {
        let client = Port::WRITABLE;
        Self {
            ports: Ports { client, backend: Port::default() },
            to_backend: Relay::new(splice),
            to_client: Relay::new(splice),
            aborted_by: None,
        }
    }

    /// Keeps what the client sent before there was a backend. There may be more: the events that
    /// told of it have been used up.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.to_backend.preload(bytes);
        self.ports.client.insert(Port::READABLE);
    }

    /// Short reads of one side prove nothing: see [`Port::PARTED`].
    pub fn expect_parts(&mut self, side: Side) {
        self.ports.port(side).insert(Port::PARTED);
    }

    /// What [`Self::preload`] keeps, as long as there is no backend.
    #[must_use]
    pub fn preloaded(&self) -> &[u8] {
        self.to_backend.buffered()
    }

    /// The client sent FIN before there was a backend.
    pub fn client_ended(&mut self) {
        self.to_backend.end();
        self.ports.client.remove(Port::READABLE);
    }

    /// The backend is connected: bytes may go.
    pub fn connected(&mut self) {
        let backend = &mut self.ports.backend;
        backend.insert(Port::WRITABLE);
        // A hang-up reported while the handshake ran may have been false, and asking has shown no
        // error since. `over` stays: reads go on until they say how it ends.
        backend.remove(Port::FINISHED | Port::FAILED);
    }

    /// Forgets what was known of the backend's socket; another attempt follows.
    pub fn backend_replaced(&mut self) {
        self.ports.backend = Port::default();
    }

    /// Records what an event said; does no work.
    pub fn note(&mut self, side: Side, readiness: Readiness) -> News {
        let before = self.port(side);
        let port = before.after(readiness);
        *self.ports.port(side) = port;
        if port == before && self.is_held_back(side) { News::OnlyMore } else { News::Some }
    }

    /// Whether one side has more than the other takes now.
    fn is_held_back(&self, from: Side) -> bool {
        self.port(from).contains(Port::READABLE)
            && !self.port(from.other()).contains(Port::WRITABLE)
            && (self.held(from) > 0 || self.relay(from).is_open())
    }

    /// Whether any side is muted.
    #[must_use]
    pub fn is_muted(&self) -> bool {
        (self.ports.client | self.ports.backend).contains(Port::MUTED)
    }

    /// Remembers that one side is muted; false when it was already.
    pub fn mute(&mut self, side: Side) -> bool {
        let port = self.ports.port(side);
        let is_news = !port.contains(Port::MUTED);
        port.insert(Port::MUTED);
        is_news
    }

    /// Whether a muted side has to be heard again, which is then taken as done.
    #[must_use]
    pub fn unmute(&mut self, side: Side) -> bool {
        let is_due = self.port(side).contains(Port::MUTED) && !self.is_held_back(side);
        if is_due {
            self.ports.port(side).remove(Port::MUTED);
        }
        is_due
    }

    /// Whether one side has sent EOF and the other has not.
    #[must_use]
    pub fn is_half_closed(&self) -> bool {
        self.to_backend.has_ended() != self.to_client.has_ended()
    }

    /// Whether one side has sent EOF.
    #[must_use]
    pub fn has_ended(&self, side: Side) -> bool {
        self.relay(side).has_ended()
    }

    /// Bytes delivered: to the backend, to the client; each copied and spliced.
    #[must_use]
    pub fn delivered(&self) -> [(u64, u64); 2] {
        [self.to_backend.delivered(), self.to_client.delivered()]
    }

    /// Bytes taken from one side and not yet delivered to the other.
    #[must_use]
    pub fn held(&self, from: Side) -> usize {
        self.relay(from).held()
    }

    /// What is known of one socket.
    #[must_use]
    pub fn port(&self, side: Side) -> Port {
        match side {
            Side::Client => self.ports.client,
            Side::Backend => self.ports.backend,
        }
    }

    /// Whether more may be taken from the client, and from the backend, as far as is known.
    #[must_use]
    pub fn has_more(&self) -> [bool; 2] {
        [Side::Client, Side::Backend].map(|from| {
            let can_move = self.port(from).contains(Port::READABLE)
                && self.port(from.other()).contains(Port::WRITABLE);
            self.relay(from).is_open() && can_move
        })
    }

    /// How most of its bytes went.
    #[must_use]
    pub fn path(&self) -> PathKind {
        let [(copied_up, spliced_up), (copied_down, spliced_down)] = self.delivered();
        if spliced_up + spliced_down > copied_up + copied_down {
            PathKind::Splice
        } else {
            PathKind::Copy
        }
    }

    /// Moves what can be moved, both ways.
    pub fn advance<W: Wire<Pipe = P>>(&mut self, turn: &mut Turn<'_, W>) -> Standing {
        let mut busy = false;
        // A failure of one direction can let the other go on or end: look again, a bounded number
        // of times, since each direction fails at most once.
        for _ in 0..4 {
            let mut changed = false;
            for from in [Side::Client, Side::Backend] {
                // Of most events one direction moves.
                if self.relay(from).is_at_rest(self.port(from), self.port(from.other())) {
                    continue;
                }
                turn.is_last = self.relay(from.other()).is_finished();
                match self.move_from(from, turn) {
                    Flow::Waiting | Flow::Finished => continue,
                    Flow::Busy => {
                        busy = true;
                        continue;
                    }
                    Flow::SourceFailed(error) => self.source_failed(from, &error, turn.wire),
                    Flow::TargetFailed(error) => self.target_failed(from, &error, turn.wire),
                }
                changed = true;
            }
            changed |= self.break_towards_the_failed(turn.wire);
            if !changed {
                break;
            }
        }
        busy |= self.discard_the_unheard(turn);
        match self.end() {
            Some(_) if self.must_linger(turn) => Standing::Lingering,
            Some(end) => Standing::Over(self.with_blame(end, turn.wire)),
            None if busy => Standing::Busy,
            None => Standing::Waiting,
        }
    }

    /// One side has sent EOF and takes no more. The kernel holds all its bytes for the other side,
    /// whose own bytes go nowhere any more. Closed with that unread, or receiving it once closed, a
    /// socket sends a reset and drops what is not acknowledged (RFC 2525, section 2.17).
    fn must_linger<W: Wire<Pipe = P>>(&mut self, turn: &mut Turn<'_, W>) -> bool {
        let is_stranded =
            |side: Side| !self.relay(side).has_ended() && self.relay(side.other()).is_finished();
        let stranded = [Side::Client, Side::Backend];
        let Some(side) = stranded.into_iter().find(|side| is_stranded(*side)) else {
            return false;
        };
        for _ in 0..DISCARDS_PER_TURN {
            match turn.wire.receive(side, turn.scratch) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => return false,
            }
        }
        turn.wire.unacknowledged(side) > 0
    }

    /// One side takes no more, and what it sent before still has to go. Meanwhile the other side
    /// may be one that writes before it reads: what it sends is thrown away, or both would wait
    /// for each other. True when there may be more of it.
    fn discard_the_unheard<W: Wire<Pipe = P>>(&mut self, turn: &mut Turn<'_, W>) -> bool {
        let is_unheard = |side: Side| {
            self.relay(side).is_broken()
                && !self.relay(side.other()).is_over()
                && self.port(side).contains(Port::READABLE)
        };
        let unheard = [Side::Client, Side::Backend];
        let Some(side) = unheard.into_iter().find(|side| is_unheard(*side)) else {
            return false;
        };
        for _ in 0..DISCARDS_PER_TURN {
            match turn.wire.receive(side, turn.scratch) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ports.port(side).remove(Port::READABLE);
                    return false;
                }
                ended => {
                    // Its error is taken with that: the next write says EPIPE, which ends a session
                    // whose other side is gone in the same way.
                    let port = self.ports.port(side);
                    port.remove(Port::READABLE);
                    if let Err(error) = ended {
                        port.note_error(&error);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// The sides that have to see a reset when evenkeel ends the session by itself: each one that
    /// has not been given its peer's FIN. A FIN of our own would call a cut stream complete.
    #[must_use]
    pub fn cut_off(&self) -> Reset {
        match [Side::Client, Side::Backend].map(|from| self.relay(from).is_finished()) {
            [true, true] => Reset::None,
            [true, false] => Reset::One(Side::Client),
            [false, true] => Reset::One(Side::Backend),
            [false, false] => Reset::Both,
        }
    }

    /// Whether one side takes no more of what the other sends, which is thrown away.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.to_backend.is_broken() || self.to_client.is_broken()
    }

    /// Whether a byte of either side has been delivered, or is held to be.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        let is_held = |from| self.held(from) > 0;
        self.delivered() != [(0, 0); 2] || is_held(Side::Client) || is_held(Side::Backend)
    }

    /// Gives back what the session borrowed; call once, at its end.
    pub fn release<W: Wire<Pipe = P>>(&mut self, wire: &mut W) {
        self.to_backend.drop_held(wire);
        self.to_client.drop_held(wire);
    }

    fn move_from<W: Wire<Pipe = P>>(&mut self, from: Side, turn: &mut Turn<'_, W>) -> Flow {
        let relay = match from {
            Side::Client => &mut self.to_backend,
            Side::Backend => &mut self.to_client,
        };
        relay.advance(from, &mut self.ports, turn)
    }

    /// The relay of what one side sends.
    fn relay(&self, from: Side) -> &Relay<P> {
        match from {
            Side::Client => &self.to_backend,
            Side::Backend => &self.to_client,
        }
    }

    fn relay_mut(&mut self, from: Side) -> &mut Relay<P> {
        match from {
            Side::Client => &mut self.to_backend,
            Side::Backend => &mut self.to_client,
        }
    }

    /// A socket that fails after its FIN has been read gets no more reads that would say so: what
    /// goes towards it is given up here.
    fn break_towards_the_failed<W: Wire<Pipe = P>>(&mut self, wire: &mut W) -> bool {
        let mut changed = false;
        for side in [Side::Client, Side::Backend] {
            let nothing_left_to_read = self.relay(side).is_over();
            let towards = self.relay(side.other());
            if nothing_left_to_read && !towards.is_over() && self.port(side).contains(Port::FAILED)
            {
                self.relay_mut(side.other()).break_off(wire);
                changed = true;
            }
        }
        changed
    }

    /// `from` was reset: its bytes still go, nothing goes to it any more.
    fn source_failed<W: Wire<Pipe = P>>(&mut self, from: Side, error: &io::Error, wire: &mut W) {
        self.ports.port(from).note_error(error);
        self.aborted_by.get_or_insert(from);
        self.relay_mut(from).abort();
        self.relay_mut(from.other()).break_off(wire);
    }

    /// The other side of `from` takes no more. What it sent before may still be unread.
    fn target_failed<W: Wire<Pipe = P>>(&mut self, from: Side, error: &io::Error, wire: &mut W) {
        let target = self.ports.port(from.other());
        target.insert(Port::READABLE | Port::OVER);
        target.note_error(error);
        // EPIPE: it had sent FIN before the reset, so its own stream ended cleanly.
        if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) {
            target.insert(Port::RESET);
        }
        if target.contains(Port::RESET) {
            target.remove(Port::FINISHED);
        }
        self.relay_mut(from).break_off(wire);
    }

    fn end(&self) -> Option<End> {
        if let Some(side) = self.aborted_by {
            let reason = self.ports.failure_of(side);
            return (self.relay(side).held() == 0).then_some(End { reason, reset: Reset::Both });
        }
        if !(self.to_backend.is_over() && self.to_client.is_over()) {
            return None;
        }
        let reason = if self.to_backend.has_ended() && self.to_client.has_ended() {
            CloseReason::Done
        } else if self.to_client.has_ended() {
            self.ports.failure_of(Side::Backend)
        } else {
            self.ports.failure_of(Side::Client)
        };
        Some(End { reason, reset: Reset::None })
    }

    /// The end, with an error taken into account that no call has reported: of a side to which
    /// nothing went any more.
    fn with_blame<W: Wire<Pipe = P>>(&mut self, end: End, wire: &mut W) -> End {
        let side = match end.reason {
            CloseReason::ClientReset => Side::Client,
            CloseReason::BackendReset => Side::Backend,
            _ => return end,
        };
        let port = self.ports.port(side);
        port.remove(Port::UNANSWERED);
        if let Some(error) = wire.take_error(side) {
            port.note_error(&error);
        }
        End { reason: self.ports.failure_of(side), ..end }
    }
}
