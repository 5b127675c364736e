//! Scripted sockets and pipes: what Linux does for a session, without Linux.
//!
//! A stream's bytes come from one table of random bytes, at an offset of its own: a byte that is
//! lost, repeated, reordered or of another session does not match, and comparing costs no more than
//! a comparison of slices.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::LazyLock;

use evenkeel::dataplane::stream::Readiness;
use evenkeel::dataplane::stream::wire::{Holds, Side, Wire};

use super::put_in;

pub(crate) const SIDES: [Side; 2] = [Side::Client, Side::Backend];

/// A prime, so that no power of two is a multiple of it.
const PERIOD: u64 = 65_521;
/// The most that one call moves.
const RUN_MAX: usize = 300_000;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    let period: Vec<u8> = (0..PERIOD).map(|_| random.u8(..)).collect();
    period.iter().copied().cycle().take(PERIOD as usize + RUN_MAX).collect()
});

/// What one peer sends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(random: &mut fastrand::Rng) -> Self {
        Self(random.u64(..PERIOD))
    }

    pub(crate) fn bytes(self, start: u64, count: u64) -> &'static [u8] {
        let at = ((self.0 + start) % PERIOD) as usize;
        &TABLE[at..at + count as usize]
    }
}

/// One socket as the kernel keeps it, and the peer at its other end.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    pub(crate) stream: Stream,
    /// The handshake still runs: there is nothing to tell.
    pub(crate) dialing: bool,
    /// Sent by the peer, and how much of it has been received.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Where the peer's urgent byte is, until it has been read.
    pub(crate) mark: Option<u64>,
    /// The peer has sent FIN.
    pub(crate) peer_finished: bool,
    /// The connection is gone: RST, or the kernel has given it up.
    pub(crate) reset: bool,
    /// Not reported yet.
    pub(crate) error: Option<ErrorKind>,
    /// Whether an error is told before the EOF that came first (Linux does it either way round).
    pub(crate) error_before_eof: bool,
    /// Bytes in the send buffer, and what the peer has read of our stream.
    pub(crate) buffered: u64,
    pub(crate) delivered: u64,
    pub(crate) capacity: u64,
    /// A write found no room, so an edge is owed once there is some.
    pub(crate) no_space: bool,
    /// Registered for room to write only.
    pub(crate) muted: bool,
    /// Bytes wait in the send buffer for a FIN.
    pub(crate) corked: bool,
    /// We have sent FIN.
    pub(crate) shut: bool,
    /// The peer reads no more.
    pub(crate) stalled: bool,
    /// What has happened since the last event, if anything.
    pub(crate) edge: Option<Readiness>,
}

impl Socket {
    pub(crate) fn new(random: &mut fastrand::Rng) -> Self {
        Self {
            stream: Stream::new(random),
            capacity: [1, 7, 4096, 70_000, 300_000][random.usize(..5)],
            error_before_eof: random.u8(..4) == 0,
            ..Self::default()
        }
    }

    /// One whose handshake with the peer has begun.
    pub(crate) fn dial(random: &mut fastrand::Rng) -> Self {
        Self { dialing: true, ..Self::new(random) }
    }

    /// The handshake is done.
    pub(crate) fn answer(&mut self) {
        self.dialing = false;
        self.raise();
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.sent - self.received
    }

    pub(crate) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.buffered)
    }

    /// Bytes that have been taken towards the peer.
    pub(crate) fn taken(&self) -> u64 {
        self.delivered + self.buffered
    }

    /// What epoll says of the socket now, in mio's words.
    pub(crate) fn state(&self) -> Readiness {
        if self.dialing && self.error.is_none() {
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
    pub(crate) fn take_event(&mut self, fresh: bool) -> Option<Readiness> {
        let edge = self.edge.take()?;
        let mut event = if fresh { self.state() } else { edge };
        if self.muted {
            // A hang-up and an error are told whatever was asked for.
            let hung_up = self.reset || self.peer_finished && self.shut;
            event.readable = false;
            event.urgent = false;
            event.read_closed &= hung_up;
        }
        (event != Readiness::default()).then_some(event)
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
            self.error = Some(if self.peer_finished { ErrorKind::BrokenPipe } else { kind });
            self.raise();
        }
    }

    /// The peer reads. The kernel wakes a writer when a third of the buffer is free; any free byte
    /// is harder on us.
    pub(crate) fn peer_reads(&mut self, most: u64) {
        let read = self.buffered.min(most);
        self.buffered -= read;
        self.delivered += read;
        if self.no_space && self.room() > 0 {
            self.no_space = false;
            self.raise();
        }
    }

    /// How many of `most` bytes a read takes, or how it ends.
    fn take(&mut self, most: u64, splices: bool, lies: bool) -> io::Result<u64> {
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
        Ok(count)
    }

    /// A reset comes while splice(2) sends in parts: the error went with the part that it stopped,
    /// and nobody is told of it again.
    fn reset_unheard(&mut self) {
        if !self.reset {
            self.reset = true;
            self.raise();
        }
    }

    /// How many of `wanted` bytes a write takes.
    fn put(&mut self, wanted: u64, pressed: bool) -> io::Result<u64> {
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
        Ok(count)
    }
}

/// A pipe: whose bytes are in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    batches: VecDeque<(Stream, u64, u64)>,
    capacity: u64,
}

impl Holds for Pipe {
    fn held(&self) -> usize {
        self.batches.iter().map(|(_, _, count)| *count as usize).sum()
    }
}

/// What all sessions of a worker share.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) random: fastrand::Rng,
    idle: Vec<Pipe>,
    pub(crate) pipes_left: usize,
    pub(crate) lent: usize,
    /// Bytes moved and calls interrupted: what a turn may call progress.
    pub(crate) moved: u64,
    pub(crate) problems: Vec<String>,
    /// Tell of every call and event: for a single schedule.
    pub(crate) traces: bool,
}

impl Kernel {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let pipes_left = random.usize(..4);
        let (idle, problems) = (Vec::new(), Vec::new());
        Self { random, idle, pipes_left, lent: 0, moved: 0, problems, traces: false }
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{}", what());
        }
    }

    fn one_in(&mut self, many: u8) -> bool {
        self.random.u8(..many) == 0
    }

    fn interrupted(&mut self) -> io::Result<()> {
        if self.one_in(64) {
            self.moved += 1;
            return Err(ErrorKind::Interrupted.into());
        }
        Ok(())
    }
}

/// The two sockets of one session.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    pub(crate) client: Socket,
    pub(crate) backend: Socket,
}

impl Pair {
    pub(crate) fn socket(&mut self, side: Side) -> &mut Socket {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }
}

/// What a session acts through.
pub(crate) struct Wires<'a> {
    pub(crate) pair: &'a mut Pair,
    pub(crate) kernel: &'a mut Kernel,
}

impl Wires<'_> {
    fn take(&mut self, from: Side, most: u64, splices: bool) -> io::Result<(u64, u64)> {
        self.kernel.interrupted()?;
        let lies = self.kernel.random.bool();
        let socket = self.pair.socket(from);
        let start = socket.received;
        let outcome = socket.take(most, splices, lies);
        self.kernel.trace(|| format!("  take from {from:?}, splices: {splices}: {outcome:?}"));
        let count = outcome?;
        self.kernel.moved += count;
        Ok((start, count))
    }

    fn put(&mut self, to: Side, wanted: u64) -> io::Result<(u64, u64)> {
        self.kernel.interrupted()?;
        let pressed = self.kernel.one_in(64);
        let socket = self.pair.socket(to);
        if socket.shut {
            self.kernel.problems.push(format!("bytes sent to {to:?} after FIN"));
        }
        let start = socket.taken();
        let outcome = socket.put(wanted, pressed);
        socket.corked &= outcome.is_err();
        self.kernel.trace(|| format!("  put {wanted} to {to:?}: {outcome:?}"));
        let count = outcome?;
        self.kernel.moved += count;
        Ok((start, count))
    }

    fn wrong(&mut self, to: Side, start: u64) {
        self.kernel.problems.push(format!("wrong bytes for {to:?} after position {start}"));
    }
}

impl Wire for Wires<'_> {
    type Pipe = Pipe;

    fn receive(&mut self, from: Side, buffer: &mut [u8]) -> io::Result<usize> {
        let (start, count) = self.take(from, buffer.len() as u64, false)?;
        let bytes = self.pair.socket(from).stream.bytes(start, count);
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        let (start, count) = self.put(to, bytes.len() as u64)?;
        let right = self.pair.socket(to.other()).stream.bytes(start, count);
        if bytes[..count as usize] != *right {
            self.wrong(to, start);
        }
        Ok(count as usize)
    }

    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.send(to, bytes)?;
        self.pair.socket(to).corked = sent == bytes.len();
        Ok(sent)
    }

    fn fill(&mut self, from: Side, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let room = pipe.capacity.saturating_sub(pipe.held() as u64);
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (start, count) = self.take(from, room.min(most as u64), true)?;
        if count > 0 {
            let stream = self.pair.socket(from).stream;
            pipe.batches.push_back((stream, start, count));
        }
        Ok(count as usize)
    }

    fn drain(&mut self, pipe: &mut Pipe, to: Side) -> io::Result<usize> {
        let Some((stream, start, held)) = pipe.batches.pop_front() else { return Ok(0) };
        // Sent in parts, of which the second may meet a reset.
        let broken = held > 1 && self.kernel.one_in(64);
        let outcome = self.put(to, if broken { held / 2 } else { held });
        if broken && outcome.is_ok() {
            self.pair.socket(to).reset_unheard();
        }
        let count = outcome.as_ref().map_or(0, |(_, count)| *count);
        if count < held {
            pipe.batches.push_front((stream, start + count, held - count));
        }
        let (at, count) = outcome?;
        if (stream, start) != (self.pair.socket(to.other()).stream, at) {
            self.wrong(to, at);
        }
        Ok(count as usize)
    }

    fn shutdown_write(&mut self, to: Side) -> io::Result<()> {
        self.kernel.trace(|| format!("  FIN to {to:?}"));
        let source = self.pair.socket(to.other());
        let (finished, sent) = (source.peer_finished, source.sent);
        let socket = self.pair.socket(to);
        if socket.reset {
            return Err(ErrorKind::NotConnected.into());
        }
        if socket.shut {
            self.kernel.problems.push(format!("FIN sent twice to {to:?}"));
        } else if !finished || socket.taken() != sent {
            self.kernel.problems.push(format!("FIN to {to:?} before the last byte"));
        }
        self.pair.socket(to).shut = true;
        self.pair.socket(to).corked = false;
        // With the peer's FIN this is a hang-up, which is an event.
        self.pair.socket(to).raise();
        Ok(())
    }

    fn unacknowledged(&mut self, to: Side) -> usize {
        let socket = self.pair.socket(to);
        if socket.reset { 0 } else { socket.buffered as usize }
    }

    fn lend_pipe(&mut self) -> Option<Pipe> {
        let kernel = &mut *self.kernel;
        let mut pipe = kernel.idle.pop().or_else(|| {
            kernel.pipes_left = kernel.pipes_left.checked_sub(1)?;
            Some(Pipe { batches: VecDeque::new(), capacity: 0 })
        })?;
        // A pipe has sixteen slots or more, each of which may hold very little.
        pipe.capacity = [16, 23_168, 262_144][kernel.random.usize(..3)];
        kernel.lent += 1;
        Some(pipe)
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        match self.kernel.lent.checked_sub(1) {
            Some(lent) => self.kernel.lent = lent,
            None => self.kernel.problems.push("a pipe came back that was never lent".into()),
        }
        if pipe.batches.is_empty() || put_in::dirty_pipe() {
            self.kernel.idle.push(pipe);
        } else {
            // Closed; another can be made.
            self.kernel.pipes_left += 1;
        }
    }
}
