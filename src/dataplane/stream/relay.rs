//! One direction of a session.
//!
//! A relay holds at most one batch: a spill buffer or a pipe. It takes a new batch only when it
//! holds nothing, delivers before it takes, and passes EOF on only when nothing is held. So bytes
//! in = bytes out + held, `EAGAIN` on a pipe fill means "socket empty", and a slow target stops
//! the source. Small reads are copied through the worker's scratch buffer, large ones spliced.

pub mod passed;

use std::io::{self, ErrorKind};

use crate::shared::SpliceMode;

use super::pacing::Allowances;
use super::path_choice::PathChoice;
use super::port::{Port, Ports};
use super::wire::{Holds, Side, Wire};

/// Batches one direction may move before it lets others have their turn.
const BATCHES_PER_TURN: usize = 4;

/// How an attempt to move bytes ended.
#[derive(Debug)]
pub enum Flow {
    /// Nothing to do until the next event.
    Waiting,
    /// More can be done; it is the turn of other sessions.
    Busy,
    /// EOF has been passed on; nothing will ever move again.
    Finished,
    /// The source failed; what was read before is delivered or still held.
    SourceFailed(io::Error),
    /// The target takes no more.
    TargetFailed(io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Moving bytes.
    Open,
    /// The source has ended; what is held still has to go.
    Ending,
    /// FIN has been passed on.
    Finished,
    /// The source was reset; what is held still has to go, and no FIN follows.
    Aborting,
    /// The target takes no more.
    Broken,
}

#[derive(Debug)]
enum Held<P> {
    Nothing,
    Buffer { bytes: Box<[u8]>, sent: usize },
    Pipe(P),
}

/// One direction of a session.
#[derive(Debug)]
pub struct Relay<P> {
    held: Held<P>,
    state: State,
    path: PathChoice,
    copied: u64,
    spliced: u64,
}

/// What a relay needs from outside for one turn.
#[derive(Debug)]
pub struct Turn<'a, W> {
    /// The sockets.
    pub wire: &'a mut W,
    /// The worker's buffer.
    pub scratch: &'a mut [u8],
    /// When to splice.
    pub splice: SpliceMode,
    /// Bytes that one direction moves in a run; the batch that reaches the bound is finished.
    pub run_bytes: u64,
    /// The other direction has passed its EOF on: once this one is over, both sockets are closed,
    /// and the close sends the FIN.
    pub is_last: bool,
    /// Bytes that may be taken.
    pub allowances: Allowances,
}

impl<P: Holds> Relay<P> {
    /// A relay that has moved nothing yet.
    #[must_use]
    pub fn new(splice: SpliceMode) -> Self {
        let path = PathChoice::new(splice);
        Self { held: Held::Nothing, state: State::Open, path, copied: 0, spliced: 0 }
    }

    /// Keeps bytes that were received before there was a target.
    pub fn preload(&mut self, bytes: &[u8]) {
        debug_assert!(matches!(self.held, Held::Nothing), "preloaded twice");
        if !bytes.is_empty() {
            self.held = Held::Buffer { bytes: bytes.into(), sent: 0 };
        }
    }

    /// What is kept in a buffer and not yet delivered.
    #[must_use]
    pub fn buffered(&self) -> &[u8] {
        match &self.held {
            Held::Buffer { bytes, sent } => bytes.get(*sent..).unwrap_or_default(),
            Held::Nothing | Held::Pipe(_) => &[],
        }
    }

    /// Bytes delivered so far, copied and spliced.
    #[must_use]
    pub fn delivered(&self) -> (u64, u64) {
        (self.copied, self.spliced)
    }

    /// Bytes taken from the source and not yet delivered.
    #[must_use]
    pub fn held(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::Buffer { bytes, sent } => bytes.len() - sent,
            Held::Pipe(pipe) => pipe.held(),
        }
    }

    /// Whether EOF has been passed on or never can be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::Broken)
    }

    /// Whether EOF has been passed on.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Whether the target takes no more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether the source may still send.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the source has sent EOF.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ending | State::Finished)
    }

    /// Treats the source as ended: what is held goes, then FIN.
    pub fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending;
        }
    }

    /// Treats the source as reset: what is held goes, then nothing.
    pub fn abort(&mut self) {
        if matches!(self.state, State::Open | State::Ending) {
            self.state = State::Aborting;
        }
    }

    /// Gives the direction up, with what it holds.
    pub fn break_off<W: Wire<Pipe = P>>(&mut self, wire: &mut W) {
        self.drop_held(wire);
        self.state = State::Broken;
    }

    /// Returns the pipe, if one is out; for the end of a session.
    pub fn drop_held<W: Wire<Pipe = P>>(&mut self, wire: &mut W) {
        if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            wire.return_pipe(pipe);
        }
    }

    /// Whether [`Self::advance`] would do nothing now, and answer [`Flow::Waiting`].
    #[must_use]
    pub fn is_at_rest(&self, source: Port, target: Port) -> bool {
        let can_take = source.contains(Port::READABLE) && target.contains(Port::WRITABLE);
        !can_take && self.state == State::Open && matches!(self.held, Held::Nothing)
    }

    /// Moves what can be moved from `from` to the other side.
    pub fn advance<W: Wire<Pipe = P>>(
        &mut self,
        from: Side,
        ports: &mut Ports,
        turn: &mut Turn<'_, W>,
    ) -> Flow {
        if self.is_over() {
            return Flow::Finished;
        }
        let before = self.copied + self.spliced;
        for batches in 1.. {
            if let Some(flow) = self.step(from, ports, turn) {
                return flow;
            }
            let is_enough = batches >= BATCHES_PER_TURN
                || self.copied + self.spliced - before >= turn.run_bytes;
            // Last bytes may wait in the kernel for their FIN, which the next step sends; whatever
            // that step meets, it is the last one.
            if is_enough && self.state != State::Ending {
                break;
            }
        }
        Flow::Busy
    }

    /// Delivers what is held, then takes one batch. `None`: go on.
    fn step<W: Wire<Pipe = P>>(
        &mut self,
        from: Side,
        ports: &mut Ports,
        turn: &mut Turn<'_, W>,
    ) -> Option<Flow> {
        let to = from.other();
        if !matches!(self.held, Held::Nothing)
            && let Err(flow) = self.deliver(ports.port(to), to, turn.wire)
        {
            return Some(flow);
        }
        match self.state {
            State::Open => {}
            State::Ending if turn.is_last => {
                self.state = State::Finished;
                return Some(Flow::Finished);
            }
            State::Ending => {
                self.state = State::Finished;
                return Some(match turn.wire.shutdown_write(to) {
                    Ok(()) => Flow::Finished,
                    Err(error) => Flow::TargetFailed(error),
                });
            }
            State::Aborting | State::Finished | State::Broken => return Some(Flow::Finished),
        }
        if !ports.port(from).contains(Port::READABLE) || !ports.port(to).contains(Port::WRITABLE) {
            return Some(Flow::Waiting);
        }
        let most = *turn.allowances.of(from);
        if most == 0 {
            return Some(Flow::Waiting);
        }
        let taken = if self.path.is_splice(turn.splice)
            && !ports.port(from).contains(Port::URGENT)
            && let Some(pipe) = turn.wire.lend_pipe()
        {
            self.take_by_splice(pipe, from, ports, turn)
        } else {
            self.take_by_copy(most, from, ports, turn)
        };
        taken.err()
    }

    fn take_by_copy<W: Wire<Pipe = P>>(
        &mut self,
        most: usize,
        from: Side,
        ports: &mut Ports,
        turn: &mut Turn<'_, W>,
    ) -> Result<(), Flow> {
        let source = ports.port(from);
        let room = most.min(turn.scratch.len());
        let buffer = turn.scratch.get_mut(..room).unwrap_or_default();
        let received = match turn.wire.receive(from, buffer) {
            Ok(0) => return self.ended(source),
            Ok(received) => received,
            Err(error) => return self.not_taken(source, error),
        };
        *turn.allowances.of(from) -= received;
        let drained = received < room && !source.intersects(Port::URGENT | Port::PARTED);
        if drained && source.contains(Port::FINISHED) {
            self.state = State::Ending;
        }
        source.set(Port::READABLE, !drained || source.contains(Port::OVER));
        self.path.copied(received, most, turn.splice);
        let bytes = turn.scratch.get(..received).unwrap_or_default();
        self.send_or_spill(bytes, ports.port(from.other()), from.other(), turn.wire)
    }

    fn send_or_spill<W: Wire<Pipe = P>>(
        &mut self,
        bytes: &[u8],
        target: &mut Port,
        to: Side,
        wire: &mut W,
    ) -> Result<(), Flow> {
        let (sent, full) = match send(self.state, bytes, to, wire) {
            // A short send means the send buffer is full; the next edge tells of room.
            Ok(sent) => (sent, sent < bytes.len()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (0, true),
            Err(error) if error.kind() == ErrorKind::Interrupted => (0, false),
            Err(error) => return Err(Flow::TargetFailed(error)),
        };
        self.copied += sent as u64;
        if let Some(rest @ [_, ..]) = bytes.get(sent..) {
            self.held = Held::Buffer { bytes: rest.into(), sent: 0 };
        }
        if full {
            target.remove(Port::WRITABLE);
            return Err(Flow::Waiting);
        }
        Ok(())
    }

    fn take_by_splice<W: Wire<Pipe = P>>(
        &mut self,
        mut pipe: P,
        from: Side,
        ports: &mut Ports,
        turn: &mut Turn<'_, W>,
    ) -> Result<(), Flow> {
        let mut most = *turn.allowances.of(from);
        if turn.wire.runs_short_of(&pipe) {
            let room = turn.wire.room(from.other());
            if room == 0 {
                turn.wire.return_pipe(pipe);
                ports.port(from.other()).remove(Port::WRITABLE);
                return Err(Flow::Waiting);
            }
            most = most.min(room);
        }
        let source = ports.port(from);
        match turn.wire.fill(from, &mut pipe, most) {
            Ok(0) => {
                turn.wire.return_pipe(pipe);
                // EOF, or the mark of an urgent byte that no event has told of yet: a read knows.
                self.take_by_copy(most, from, ports, turn)
            }
            Ok(filled) => {
                *turn.allowances.of(from) -= filled;
                self.path.filled(filled, turn.splice);
                self.held = Held::Pipe(pipe);
                self.deliver(ports.port(from.other()), from.other(), turn.wire)
            }
            Err(error) => {
                turn.wire.return_pipe(pipe);
                self.not_taken(source, error)
            }
        }
    }

    fn ended(&mut self, source: &mut Port) -> Result<(), Flow> {
        source.remove(Port::READABLE);
        if source.contains(Port::RESET) {
            return Err(Flow::SourceFailed(ErrorKind::ConnectionReset.into()));
        }
        self.state = State::Ending;
        Ok(())
    }

    fn not_taken(&mut self, source: &mut Port, error: io::Error) -> Result<(), Flow> {
        match error.kind() {
            ErrorKind::WouldBlock => {
                source.remove(Port::READABLE);
                Err(Flow::Waiting)
            }
            ErrorKind::Interrupted => Ok(()),
            // A reset that came after FIN: everything before it has been read.
            ErrorKind::BrokenPipe => self.ended(source),
            _ => Err(Flow::SourceFailed(error)),
        }
    }

    /// Delivers what is held; what has to wait does so where it takes no pipe from others.
    fn deliver<W: Wire<Pipe = P>>(
        &mut self,
        target: &mut Port,
        to: Side,
        wire: &mut W,
    ) -> Result<(), Flow> {
        match self.send_held(target, to, wire) {
            Err(Flow::Waiting) => self.unload(wire).and(Err(Flow::Waiting)),
            delivered => delivered,
        }
    }

    /// Where pipes run short (docs/adr/0053): gives its own back, and keeps the rest in a buffer.
    fn unload<W: Wire<Pipe = P>>(&mut self, wire: &mut W) -> Result<(), Flow> {
        if let Held::Pipe(pipe) = &self.held
            && wire.runs_short_of(pipe)
        {
            self.keep_in_buffer(wire).map_err(Flow::TargetFailed)?;
        }
        Ok(())
    }

    fn send_held<W: Wire<Pipe = P>>(
        &mut self,
        target: &mut Port,
        to: Side,
        wire: &mut W,
    ) -> Result<(), Flow> {
        // splice(2) sends in parts. A reset that stops it after the first goes unheard, and the
        // next call gives EPIPE, as if FIN had come first.
        let mut cut_short = false;
        while target.contains(Port::WRITABLE) {
            let (outcome, spliced) = match &mut self.held {
                Held::Nothing => return Ok(()),
                Held::Buffer { bytes, sent } => {
                    (send(self.state, bytes.get(*sent..).unwrap_or_default(), to, wire), false)
                }
                Held::Pipe(pipe) => (wire.drain(pipe, to), true),
            };
            match outcome {
                Ok(moved) => {
                    self.account(moved, spliced, wire);
                    cut_short = spliced;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    target.remove(Port::WRITABLE);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if cut_short && target.hides_a_reset(&error) => {
                    return Err(Flow::TargetFailed(ErrorKind::ConnectionReset.into()));
                }
                Err(error) => return Err(Flow::TargetFailed(error)),
            }
        }
        if matches!(self.held, Held::Nothing) { Ok(()) } else { Err(Flow::Waiting) }
    }

    fn account<W: Wire<Pipe = P>>(&mut self, moved: usize, spliced: bool, wire: &mut W) {
        if spliced {
            self.spliced += moved as u64;
        } else {
            self.copied += moved as u64;
        }
        if let Held::Buffer { sent, .. } = &mut self.held {
            *sent += moved;
        }
        if self.held() == 0 {
            self.drop_held(wire);
        }
    }
}

/// Sends; when nothing follows, the last bytes and FIN share a packet: one fewer to send, to
/// receive and to acknowledge.
fn send<W: Wire>(state: State, bytes: &[u8], to: Side, wire: &mut W) -> io::Result<usize> {
    if state == State::Ending { wire.send_last(to, bytes) } else { wire.send(to, bytes) }
}
