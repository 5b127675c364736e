//! Any schedule of what two sockets may do, against one session: nothing lost, repeated, reordered
//! or sent after FIN; EOF only after the last byte, a reset never as a clean EOF; no bytes that
//! wait for a FIN that does not come; and once nothing is in the way any more, the session ends.
//!
//! The sockets behave as Linux's: edge-triggered, an edge for room only after a send was cut short,
//! bytes that came before a reset are still read, and an error is told once.

#![no_main]

use std::io::{self, ErrorKind};

use arbitrary::Arbitrary;
use evenkeel::dataplane::stream::pacing::Allowances;
use evenkeel::dataplane::stream::relay::Turn;
use evenkeel::dataplane::stream::wire::{Holds, Side, Wire};
use evenkeel::dataplane::stream::{End, Readiness, Reset, Standing, Stream};
use evenkeel::shared::{CloseReason, SpliceMode};
use libfuzzer_sys::fuzz_target;

const SCRATCH_BYTES: usize = 64 * 1024;
/// More turns than any session needs to move what a schedule can bring.
const TURNS_MAX: usize = 10_000;

#[derive(Debug, Arbitrary)]
struct Schedule {
    splice: u8,
    preload: Option<(u8, bool)>,
    room: [u16; 2],
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// Bytes come in, up to 256 KiB.
    Arrive(Who, u16),
    Fin(Who),
    Reset(Who),
    /// The peer reads this much, up to 256 KiB.
    Room(Who, u16),
    /// A splice moves this much at most from now on.
    PipeBytes(u16),
    PipesOut(bool),
    /// Pipes run short from now on, or do not, and whether sockets take less than they say.
    PipesShort(bool, bool),
    /// What each turn may take of one side from now on, up to 256 KiB.
    Allowance(Who, u16),
    /// The next call is interrupted.
    Interrupt,
    /// An event that says nothing new.
    Spurious(Who, bool, bool),
    Turn,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Who {
    Client,
    Backend,
}

impl From<Who> for Side {
    fn from(end: Who) -> Self {
        match end {
            Who::Client => Self::Client,
            Who::Backend => Self::Backend,
        }
    }
}

/// Byte number `at` of what a side sends. Neighbours differ, and so do the two sides.
fn pattern(from: Side, at: usize) -> u8 {
    ((at ^ (at >> 8) ^ (at >> 16)) & 0xff) as u8 ^ if from == Side::Client { 0 } else { 0x5a }
}

/// One socket, seen from the kernel.
#[derive(Debug, Default)]
struct Socket {
    /// Bytes the peer has sent, and of those taken from us.
    arrived: usize,
    taken: usize,
    /// Bytes we have sent, and how many more would be taken.
    accepted: usize,
    room: usize,
    /// A send was cut short: room is an event again.
    wants_edge: bool,
    fin: bool,
    reset: bool,
    error: Option<ErrorKind>,
    shut: bool,
    /// What was sent last waits for FIN.
    corked: bool,
}

#[derive(Debug)]
struct Script {
    sockets: [Socket; 2],
    pipe_bytes: usize,
    pipes_out: bool,
    pipes_short: bool,
    room_is_less: bool,
    lent: usize,
    interrupt: bool,
}

/// Bytes on their way, with whose they are.
#[derive(Debug)]
struct Pipe {
    from: Side,
    start: usize,
    held: usize,
}

impl Holds for Pipe {
    fn held(&self) -> usize {
        self.held
    }
}

impl Script {
    fn socket(&mut self, side: Side) -> &mut Socket {
        &mut self.sockets[side as usize]
    }

    fn interrupted(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.interrupt) {
            Err(ErrorKind::Interrupted.into())
        } else {
            Ok(())
        }
    }

    /// How much may be read, or how the read ends.
    fn readable(&mut self, from: Side) -> io::Result<Option<usize>> {
        let socket = self.socket(from);
        match socket.arrived - socket.taken {
            0 if socket.fin => Ok(None),
            0 => match socket.error.take() {
                Some(error) => Err(error.into()),
                None if socket.reset => Ok(None),
                None => Err(ErrorKind::WouldBlock.into()),
            },
            bytes => Ok(Some(bytes)),
        }
    }

    /// How much may be sent of `wanted`.
    fn sendable(&mut self, to: Side, wanted: usize) -> io::Result<usize> {
        let socket = self.socket(to);
        assert!(!socket.shut, "bytes after FIN");
        if socket.reset {
            return Err(socket.error.take().unwrap_or(ErrorKind::BrokenPipe).into());
        }
        let sent = wanted.min(socket.room);
        socket.wants_edge |= sent < wanted;
        socket.room -= sent;
        socket.accepted += sent;
        socket.corked &= sent == 0;
        if sent == 0 && wanted > 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(sent) }
    }
}

impl Wire for Script {
    type Pipe = Pipe;

    fn receive(&mut self, from: Side, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted()?;
        let Some(bytes) = self.readable(from)? else { return Ok(0) };
        let count = bytes.min(buffer.len());
        let start = self.socket(from).taken;
        for (offset, byte) in buffer[..count].iter_mut().enumerate() {
            *byte = pattern(from, start + offset);
        }
        self.socket(from).taken += count;
        Ok(count)
    }

    fn send(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted()?;
        let start = self.socket(to).accepted;
        let sent = self.sendable(to, bytes.len())?;
        for (offset, byte) in bytes[..sent].iter().enumerate() {
            assert_eq!(*byte, pattern(to.other(), start + offset), "byte {}", start + offset);
        }
        Ok(sent)
    }

    fn send_last(&mut self, to: Side, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.send(to, bytes)?;
        self.socket(to).corked = sent == bytes.len();
        Ok(sent)
    }

    fn fill(&mut self, from: Side, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        assert_eq!(pipe.held, 0, "filled a pipe that was not empty");
        self.interrupted()?;
        let Some(bytes) = self.readable(from)? else { return Ok(0) };
        let count = bytes.min(self.pipe_bytes).min(most);
        *pipe = Pipe { from, start: self.socket(from).taken, held: count };
        self.socket(from).taken += count;
        Ok(count)
    }

    fn drain(&mut self, pipe: &mut Pipe, to: Side) -> io::Result<usize> {
        assert!(pipe.held > 0, "drained an empty pipe");
        self.interrupted()?;
        let accepted = self.socket(to).accepted;
        let sent = self.sendable(to, pipe.held)?;
        assert_eq!((pipe.from, pipe.start), (to.other(), accepted), "lost, repeated or misled");
        pipe.start += sent;
        pipe.held -= sent;
        Ok(sent)
    }

    fn unacknowledged(&mut self, _: Side) -> usize {
        0
    }

    fn take_error(&mut self, _: Side) -> Option<io::Error> {
        None
    }

    fn shutdown_write(&mut self, to: Side) -> io::Result<()> {
        let source = &self.sockets[to.other() as usize];
        assert!(source.fin, "a FIN that neither side sent");
        let arrived = source.arrived;
        let socket = self.socket(to);
        assert!(!socket.shut, "a second FIN");
        if socket.reset {
            return Err(ErrorKind::NotConnected.into());
        }
        assert_eq!(socket.accepted, arrived, "FIN before the last byte");
        socket.shut = true;
        socket.corked = false;
        Ok(())
    }

    fn lend_pipe(&mut self) -> Option<Pipe> {
        self.lent += usize::from(!self.pipes_out);
        (!self.pipes_out).then_some(Pipe { from: Side::Client, start: 0, held: 0 })
    }

    fn return_pipe(&mut self, _: Pipe) {
        self.lent = self.lent.checked_sub(1).expect("a pipe that was never lent");
    }

    fn runs_short_of(&self, _: &Pipe) -> bool {
        self.pipes_short
    }

    fn room(&mut self, to: Side) -> usize {
        // Sockets may take less than they said.
        let room = self.socket(to).room * if self.room_is_less { 2 } else { 1 };
        self.socket(to).wants_edge |= room == 0;
        if self.socket(to).reset { 1 } else { room }
    }

    fn unload(&mut self, pipe: &mut Pipe) -> io::Result<Box<[u8]>> {
        let bytes = (pipe.start..pipe.start + pipe.held).map(|at| pattern(pipe.from, at)).collect();
        pipe.held = 0;
        Ok(bytes)
    }
}

struct Run {
    stream: Stream<Pipe>,
    script: Script,
    scratch: Vec<u8>,
    splice: SpliceMode,
    allowances: Allowances,
    preloaded: usize,
    over: Option<End>,
    busy: bool,
}

impl Run {
    fn new(schedule: &Schedule) -> Self {
        let modes = [SpliceMode::Auto, SpliceMode::Never, SpliceMode::Always];
        let splice = modes[usize::from(schedule.splice) % modes.len()];
        let mut stream = Stream::new(splice);
        let mut sockets =
            schedule.room.map(|room| Socket { room: usize::from(room), ..Socket::default() });
        let mut preloaded = 0;
        if let Some((count, ended)) = schedule.preload {
            preloaded = usize::from(count);
            let client = &mut sockets[Side::Client as usize];
            (client.arrived, client.taken) = (preloaded, preloaded);
            client.fin = ended;
            let bytes: Vec<u8> = (0..preloaded).map(|at| pattern(Side::Client, at)).collect();
            stream.preload(&bytes);
            if ended {
                stream.client_ended();
            }
        }
        stream.connected();
        let script = Script {
            sockets,
            pipe_bytes: 64 * 1024,
            pipes_out: false,
            pipes_short: false,
            room_is_less: false,
            lent: 0,
            interrupt: false,
        };
        let scratch = vec![0; SCRATCH_BYTES];
        let allowances = Allowances::UNLIMITED;
        Self { stream, script, scratch, splice, allowances, preloaded, over: None, busy: true }
    }

    fn arrive(&mut self, side: Side, bytes: usize) {
        let socket = self.script.socket(side);
        if bytes > 0 && !socket.fin && !socket.reset {
            socket.arrived += bytes;
            self.note(side, Readiness { readable: true, ..Readiness::default() });
        }
    }

    fn fin(&mut self, side: Side) {
        let socket = self.script.socket(side);
        if !socket.fin && !socket.reset {
            socket.fin = true;
            let readiness = Readiness { readable: true, read_closed: true, ..Readiness::default() };
            self.note(side, readiness);
        }
    }

    fn reset(&mut self, side: Side) {
        let socket = self.script.socket(side);
        if !socket.reset {
            socket.reset = true;
            let after_fin = socket.fin;
            let kind = if after_fin { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset };
            socket.error = Some(kind);
            let readiness =
                Readiness { readable: true, writable: true, error: true, ..Readiness::default() };
            self.note(side, readiness);
        }
    }

    fn room(&mut self, side: Side, bytes: usize) {
        let socket = self.script.socket(side);
        socket.room += bytes;
        if bytes > 0 && !socket.reset && std::mem::take(&mut socket.wants_edge) {
            self.note(side, Readiness { writable: true, ..Readiness::default() });
        }
    }

    fn note(&mut self, side: Side, readiness: Readiness) {
        let _whatever_the_news = self.stream.note(side, readiness);
        self.busy = true;
    }

    fn turn(&mut self) {
        if self.over.is_some() {
            return;
        }
        let (splice, allowances) = (self.splice, self.allowances);
        let (wire, scratch) = (&mut self.script, &mut self.scratch[..]);
        let mut turn = Turn { wire, scratch, splice, run_bytes: 1024, is_last: false, allowances };
        let standing = self.stream.advance(&mut turn);
        self.busy = matches!(standing, Standing::Busy);
        if let Standing::Over(end) = standing {
            self.over = Some(end);
            self.check_end(end);
        }
        self.check_bytes();
        if self.over.is_none() {
            let waits = |socket: &Socket| socket.corked && !socket.reset;
            assert!(!self.script.sockets.iter().any(waits), "bytes wait for a FIN");
        }
    }

    fn check_bytes(&self) {
        for from in [Side::Client, Side::Backend] {
            let (source, target) =
                (&self.script.sockets[from as usize], &self.script.sockets[from.other() as usize]);
            let (copied, spliced) = self.stream.delivered()[from as usize];
            assert_eq!(copied + spliced, target.accepted as u64, "delivered from {from:?}");
            let accounted = target.accepted + self.stream.held(from);
            assert!(accounted <= source.taken);
            if !source.reset && !target.reset {
                assert_eq!(accounted, source.taken, "bytes from {from:?} are lost");
            }
        }
    }

    fn check_end(&self, end: End) {
        let [client, backend] = &self.script.sockets;
        if !client.reset && !backend.reset {
            assert_eq!((end.reason, end.reset), (CloseReason::Done, Reset::None));
        }
        for from in [Side::Client, Side::Backend] {
            let (source, target) =
                (&self.script.sockets[from as usize], &self.script.sockets[from.other() as usize]);
            // Not every byte came, so the other side must not take it for the whole.
            if source.reset && !source.fin && !target.reset {
                assert!(!target.shut, "a reset passed on as FIN");
                let told =
                    matches!(end.reset, Reset::Both) || end.reset == Reset::One(from.other());
                assert!(told, "{from:?} was reset, and the other side sees {end:?}");
                assert_eq!(target.accepted, source.arrived, "bytes before the reset are lost");
            }
            if matches!(end.reset, Reset::None) && !target.reset && !target.shut {
                // The close sends the FIN.
                assert!(source.fin, "a FIN that {from:?} never sent");
                assert_eq!(target.accepted, source.arrived, "FIN before the last byte");
            }
        }
    }

    /// Nothing is in the way any more: it must end by itself; a reset needs nothing else to come.
    fn finish(&mut self) {
        self.script.pipes_out = false;
        self.script.pipe_bytes = 64 * 1024;
        self.allowances = Allowances::UNLIMITED;
        for side in [Side::Client, Side::Backend] {
            self.room(side, usize::MAX / 4);
        }
        self.turn_until_quiet();
        if !self.script.sockets.iter().any(|socket| socket.reset && !socket.fin) {
            self.fin(Side::Client);
            self.fin(Side::Backend);
            self.turn_until_quiet();
        }
        assert!(self.over.is_some(), "never ends: {:?}\n{:?}", self.stream, self.script);
        self.stream.release(&mut self.script);
        assert_eq!(self.script.lent, 0, "a pipe was kept");
        assert!(self.script.sockets[Side::Client as usize].taken >= self.preloaded);
    }

    fn turn_until_quiet(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn();
            if !self.busy || self.over.is_some() {
                return;
            }
        }
        panic!("busy for ever: {:?}\n{:?}", self.stream, self.script);
    }
}

fuzz_target!(|schedule: Schedule| {
    let mut run = Run::new(&schedule);
    for step in &schedule.steps {
        match *step {
            Step::Arrive(side, bytes) => run.arrive(side.into(), usize::from(bytes) * 4),
            Step::Fin(side) => run.fin(side.into()),
            Step::Reset(side) => run.reset(side.into()),
            Step::Room(side, bytes) => run.room(side.into(), usize::from(bytes) * 4),
            Step::PipeBytes(bytes) => run.script.pipe_bytes = usize::from(bytes.max(1)),
            Step::PipesOut(out) => run.script.pipes_out = out,
            Step::PipesShort(short, less) => {
                (run.script.pipes_short, run.script.room_is_less) = (short, less);
            }
            Step::Allowance(side, bytes) => {
                *run.allowances.of(side.into()) = usize::from(bytes) * 4;
            }
            Step::Interrupt => run.script.interrupt = true,
            Step::Spurious(side, readable, writable) => {
                run.note(side.into(), Readiness { readable, writable, ..Readiness::default() });
            }
            Step::Turn => run.turn(),
        }
    }
    run.finish();
});
