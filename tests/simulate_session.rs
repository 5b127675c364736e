//! The session and relay state machines against scripted sockets: no kernel, no clock.
//!
//! A schedule is made from a seed: peers send, read, finish and reset at random; the sockets give
//! short writes, `EAGAIN`, `EINTR`, EOF and errors as Linux does; events are edge-triggered, may be
//! late, merged or spurious; pipes run short and have few slots. After every turn the promises are
//! checked; a failure prints the seed, and `EVENKEEL_SEED=N` runs that schedule alone.
//! `EVENKEEL_SCHEDULES=N` runs more of them.

#![allow(clippy::cast_possible_truncation, reason = "a few hundred kilobytes, and hashes")]

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use evenkeel::dataplane::relay::Turn;
use evenkeel::dataplane::session::{End, Readiness, Reset, Session, Standing};
use evenkeel::dataplane::wire::{Holds, Side, Wire};
use evenkeel::shared::{CloseReason, SpliceMode};

const SIDES: [Side; 2] = [Side::Client, Side::Backend];

/// The byte at a position of the stream that `from` sends: every position and side differs.
fn byte_at(from: Side, position: u64) -> u8 {
    let key = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (from as u64) << 63;
    (key >> 32) as u8 ^ (key >> 11) as u8
}

/// One socket as the kernel keeps it, and the peer at its other end.
#[derive(Debug, Default)]
struct Socket {
    /// Sent by the peer and not received yet: the peer's stream from `received` to `sent`.
    sent: u64,
    received: u64,
    /// The peer has sent FIN.
    peer_finished: bool,
    /// The peer has sent RST; holds until the error has been reported.
    reset: bool,
    error: Option<ErrorKind>,
    /// Bytes in the send buffer, and what the peer has read of our stream.
    buffered: u64,
    delivered: u64,
    capacity: u64,
    /// A write found no room, so an edge is owed once there is some.
    no_space: bool,
    shut: bool,
    /// The peer reads no more.
    stalled: bool,
    /// What epoll would say now.
    event: Option<Readiness>,
}

impl Socket {
    fn edge(&mut self, change: impl FnOnce(&mut Readiness)) {
        let event = self.event.get_or_insert_with(Readiness::default);
        // Linux reports the whole state at an edge.
        event.readable |= self.sent > self.received;
        event.writable |= self.capacity > self.buffered;
        event.read_closed |= self.peer_finished;
        change(event);
    }
}

#[derive(Debug)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// Whose bytes have ever been in it, to catch one that is reused while it holds some.
    returned_dirty: bool,
}

impl Holds for Pipe {
    fn held(&self) -> usize {
        self.bytes.len()
    }
}

struct World {
    random: fastrand::Rng,
    client: Socket,
    backend: Socket,
    idle_pipes: Vec<Pipe>,
    pipes_left: usize,
    lent: usize,
    /// How far each side's stream has been handed to the other.
    problems: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut socket = || Socket {
            capacity: [1, 7, 4096, 70_000, 300_000][random.usize(..5)],
            ..Socket::default()
        };
        let (client, backend) = (socket(), socket());
        let pipes_left = random.usize(..4);
        let idle_pipes = Vec::new();
        Self { random, client, backend, idle_pipes, pipes_left, lent: 0, problems: Vec::new() }
    }

    fn socket(&mut self, side: Side) -> &mut Socket {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    fn interrupted(&mut self) -> bool {
        self.random.u8(..) < 4
    }

    /// Takes up to `most` bytes that `from` has sent, or says why there are none.
    fn take(&mut self, from: Side, most: usize) -> io::Result<Vec<u8>> {
        if self.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        let socket = self.socket(from);
        let waiting = socket.sent - socket.received;
        if waiting == 0 {
            if let Some(error) = socket.error.take() {
                return Err(error.into());
            }
            if socket.peer_finished || socket.reset {
                return Ok(Vec::new());
            }
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = waiting.min(most as u64);
        let start = socket.received;
        socket.received += count;
        Ok((start..start + count).map(|position| byte_at(from, position)).collect())
    }

    /// Puts bytes into the send buffer towards `to`; checks that they are the right ones.
    fn put(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        if self.interrupted() {
            return Err(ErrorKind::Interrupted.into());
        }
        let from = to.other();
        let socket = self.socket(to);
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        if socket.reset {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = socket.capacity - socket.buffered;
        if socket.shut {
            self.problems.push(format!("bytes sent to {to:?} after FIN"));
            return Err(ErrorKind::BrokenPipe.into());
        }
        if room == 0 {
            socket.no_space = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = room.min(bytes.len() as u64);
        socket.no_space |= count < bytes.len() as u64;
        let start = socket.delivered + socket.buffered;
        socket.buffered += count;
        let right = bytes.iter().take(count as usize).enumerate();
        if right.into_iter().any(|(index, byte)| *byte != byte_at(from, start + index as u64)) {
            self.problems.push(format!("wrong byte for {to:?} after position {start}"));
        }
        Ok(count as usize)
    }
}

impl Wire for World {
    type Pipe = Pipe;

    fn receive(&mut self, from: Side, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.take(from, buffer.len())?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        self.put(to, bytes)
    }

    fn fill(&mut self, from: Side, pipe: &mut Pipe) -> io::Result<usize> {
        if !pipe.bytes.is_empty() {
            self.problems.push("a pipe was filled that was not empty".into());
        }
        // A pipe has sixteen slots or more, each of which may hold very little.
        let slots = [16, 23_168, 262_144][self.random.usize(..3)];
        let bytes = self.take(from, slots)?;
        pipe.bytes.extend(&bytes);
        Ok(bytes.len())
    }

    fn drain(&mut self, pipe: &mut Pipe, to: Side) -> io::Result<usize> {
        let count = self.put(to, pipe.bytes.make_contiguous())?;
        pipe.bytes.drain(..count);
        Ok(count)
    }

    fn shutdown_write(&mut self, to: Side) -> io::Result<()> {
        let socket = self.socket(to);
        if socket.reset {
            return Err(ErrorKind::NotConnected.into());
        }
        if socket.shut {
            self.problems.push(format!("FIN sent twice to {to:?}"));
        }
        self.socket(to).shut = true;
        Ok(())
    }

    fn unacknowledged(&mut self, to: Side) -> usize {
        self.socket(to).buffered as usize
    }

    fn lend_pipe(&mut self) -> Option<Pipe> {
        let pipe = self.idle_pipes.pop().or_else(|| {
            self.pipes_left = self.pipes_left.checked_sub(1)?;
            Some(Pipe { bytes: VecDeque::new(), returned_dirty: false })
        })?;
        if pipe.returned_dirty {
            self.problems.push("a pipe was reused that held another session's bytes".into());
        }
        self.lent += 1;
        Some(pipe)
    }

    fn return_pipe(&mut self, mut pipe: Pipe) {
        self.lent -= 1;
        pipe.returned_dirty = !pipe.bytes.is_empty();
        if !pipe.returned_dirty {
            self.idle_pipes.push(pipe);
        }
    }
}

/// What the peers and the network do between two turns.
fn disturb(world: &mut World, more: bool) {
    let side = SIDES[world.random.usize(..2)];
    let amount = [1, 10, 100, 3_000, 9_000, 70_000][world.random.usize(..6)];
    let amount = world.random.u64(1..=amount);
    let action = world.random.u8(..100);
    let socket = world.socket(side);
    match action {
        0..40 if more && !socket.peer_finished && !socket.reset => {
            socket.sent += amount;
            socket.edge(|event| event.readable = true);
        }
        40..80 if !socket.stalled => {
            let read = socket.buffered.min(amount);
            socket.buffered -= read;
            socket.delivered += read;
            // The kernel wakes a writer when a third of the buffer is free; any free byte is
            // harder on us.
            if socket.no_space && socket.capacity > socket.buffered {
                socket.no_space = false;
                socket.edge(|event| event.writable = true);
            }
        }
        80..84 if !socket.peer_finished && !socket.reset => {
            socket.peer_finished = true;
            socket.edge(|event| event.readable = true);
        }
        84..86 if !socket.reset => {
            socket.reset = true;
            let kind = if socket.peer_finished {
                ErrorKind::BrokenPipe
            } else {
                ErrorKind::ConnectionReset
            };
            socket.error = Some(kind);
            socket.edge(|event| event.error = true);
        }
        86..88 => socket.stalled = !socket.stalled,
        // A spurious event tells only what is so.
        88..90 => socket.edge(|_| {}),
        _ => {}
    }
}

struct Run {
    world: World,
    session: Session<Pipe>,
    scratch: Vec<u8>,
    splice: SpliceMode,
    busy: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let modes = [SpliceMode::Auto, SpliceMode::Never, SpliceMode::Always];
        let splice = modes[world.random.usize(..3)];
        let scratch = vec![0; [64, 4096, 65_536][world.random.usize(..3)]];
        let mut session = Session::new(splice);
        if world.random.bool() {
            let early = world.random.u64(0..200);
            world.client.sent = early + world.random.u64(0..50);
            world.client.received = early;
            let bytes: Vec<u8> = (0..early).map(|at| byte_at(Side::Client, at)).collect();
            session.preload(&bytes, world.client.sent == early);
        }
        session.connected();
        Self { world, session, scratch, splice, busy: true }
    }

    fn deliver_events(&mut self) {
        for side in SIDES {
            if self.world.random.u8(..4) != 0
                && let Some(event) = self.world.socket(side).event.take()
            {
                self.session.note(side, event);
                self.busy = true;
            }
        }
    }

    fn turn(&mut self) -> Option<End> {
        let mut turn = Turn {
            wire: &mut self.world,
            scratch: &mut self.scratch,
            splice: self.splice,
            is_last: false,
        };
        match self.session.advance(&mut turn) {
            Standing::Waiting => self.busy = false,
            // A timer looks again: as if it were busy.
            Standing::Busy | Standing::Lingering => self.busy = true,
            Standing::Over(end) => return Some(end),
        }
        None
    }

    /// Bytes in are bytes out and bytes held, both ways.
    fn check_balance(&mut self, over: bool) {
        let delivered = self.session.delivered();
        for (from, (copied, spliced)) in SIDES.into_iter().zip(delivered) {
            let out = copied + spliced;
            let held = self.session.held(from) as u64;
            let taken = self.world.socket(from).received;
            let target = self.world.socket(from.other());
            let counted = target.delivered + target.buffered;
            let lost_to_reset = self.world.client.reset || self.world.backend.reset;
            if out != counted || (out + held != taken && !lost_to_reset && !over) {
                self.world.problems.push(format!(
                    "from {from:?}: {taken} taken, {out} counted, {counted} sent, {held} held"
                ));
            }
        }
    }

    /// With no event on its way, nothing that could move may be left.
    fn check_progress(&mut self) {
        if self.busy || SIDES.iter().any(|side| self.world.socket(*side).event.is_some()) {
            return;
        }
        for from in SIDES {
            let source = self.world.socket(from);
            let waiting = source.sent - source.received;
            let finished = source.peer_finished && source.error.is_none();
            let failed = source.error.is_some();
            let target = self.world.socket(from.other());
            let room = target.capacity > target.buffered && !target.reset;
            let shut = target.shut;
            let held = self.session.held(from) as u64;
            let could = room && !shut && (waiting > 0 || held > 0 || finished);
            if could || (failed && waiting == 0 && room && held == 0) {
                self.world.problems.push(format!(
                    "stalled: {waiting} wait from {from:?}, {held} held, finished {finished}, \
                     failed {failed}, {:?}",
                    self.session
                ));
            }
        }
    }

    fn check_end(&mut self, end: End) {
        let world = &mut self.world;
        if end.reason == CloseReason::Done {
            for from in SIDES {
                let socket = world.socket(from);
                let complete = socket.peer_finished && socket.sent == socket.received;
                if !complete {
                    world.problems.push(format!("done, but {from:?} had more to say"));
                }
            }
        }
        for from in SIDES {
            let source = world.socket(from);
            let was_reset = source.reset && !source.peer_finished;
            let saw_clean_end = world.socket(from.other()).shut || end.reset == Reset::None;
            let target_alive = !world.socket(from.other()).reset;
            if was_reset && saw_clean_end && target_alive && end.reason == CloseReason::Done {
                world.problems.push(format!("the reset of {from:?} looked like a clean end"));
            }
        }
        self.session.release(&mut self.world);
        if self.world.lent != 0 {
            self.world.problems.push(format!("{} pipes never came back", self.world.lent));
        }
    }
}

/// Runs one schedule; returns what was wrong with it.
fn run(seed: u64) -> Vec<String> {
    let mut run = Run::new(seed);
    let busy_steps = run.world.random.usize(10..120);
    for step in 0..100_000 {
        let healing = step >= busy_steps;
        if healing {
            heal(&mut run.world);
        } else {
            disturb(&mut run.world, true);
        }
        run.deliver_events();
        if run.busy
            && let Some(end) = run.turn()
        {
            run.check_balance(true);
            run.check_end(end);
            return run.world.problems;
        }
        run.check_balance(false);
        run.check_progress();
        if !run.world.problems.is_empty() {
            return run.world.problems;
        }
    }
    vec![format!("never ended: {:?}", run.session)]
}

/// Liveness: once peers read and finish and events come, the session must end.
fn heal(world: &mut World) {
    for side in SIDES {
        let socket = world.socket(side);
        socket.stalled = false;
        socket.capacity = 300_000;
        let read = socket.buffered;
        socket.buffered = 0;
        socket.delivered += read;
        if socket.no_space {
            socket.no_space = false;
            socket.edge(|event| event.writable = true);
        }
        if !socket.peer_finished && !socket.reset {
            socket.peer_finished = true;
            socket.edge(|event| event.readable = true);
        }
    }
}

// If this fails, some order of events loses, repeats or strands bytes of a real session.
#[test]
fn every_schedule_keeps_the_promises() {
    if let Ok(seed) = std::env::var("EVENKEEL_SEED") {
        let problems = run(seed.parse().unwrap());
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
        return;
    }
    let schedules: u64 =
        std::env::var("EVENKEEL_SCHEDULES").map_or(20_000, |number| number.parse().unwrap());
    let first = fastrand::u64(..u64::MAX / 2);
    for seed in first..first + schedules {
        let problems = run(seed);
        assert!(problems.is_empty(), "EVENKEEL_SEED={seed}: {problems:#?}");
    }
}
