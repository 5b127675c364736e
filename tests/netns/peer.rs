//! One peer of a session: plays its part over a socket and reports what it saw.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use crate::streams::{Dice, Part, stream};
use crate::support::reset_when_dropped;

/// Nothing that works is silent for as long; a peer gives up then and says so.
const SILENCE: Duration = Duration::from_secs(25);
/// How much is written or read in one call.
const PIECE: usize = 64 * 1024;

/// How a peer's incoming stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// End of stream.
    Fin,
    /// ECONNRESET.
    Reset,
    /// The peer itself sent the reset its part asks for.
    Own,
    /// Nothing moved for [`SILENCE`].
    Silence,
    /// A byte was not the one at this position.
    Wrong(usize),
    /// Another error.
    Error(ErrorKind),
}

/// What a peer saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) received: usize,
    pub(crate) sent: usize,
    pub(crate) ending: Ending,
}

struct Player<'a> {
    stream: &'a TcpStream,
    part: &'a Part,
    dice: Dice,
    buffer: Vec<u8>,
    seen: Seen,
    reading: bool,
    writing: bool,
    /// A write was answered by ECONNRESET: the end of stream that follows is none.
    was_reset: bool,
}

/// Plays a part to its end.
pub(crate) fn play(stream: &TcpStream, part: &Part) -> Seen {
    stream.set_nonblocking(true).unwrap();
    if part.slow {
        // Small, so that the sender is held up.
        SockRef::from(stream).set_recv_buffer_size(32 * 1024).unwrap();
    }
    let seen = Seen { received: 0, sent: 0, ending: Ending::Silence };
    let mut player = Player {
        stream,
        part,
        dice: Dice::new(part.seed),
        buffer: vec![0; if part.slow { 16 * 1024 } else { PIECE }],
        seen,
        reading: true,
        writing: true,
        was_reset: false,
    };
    player.run();
    player.seen
}

impl Player<'_> {
    fn run(&mut self) {
        let mut last = Instant::now();
        while self.reading || self.writing {
            if self.part.cut == Some(self.seen.sent) {
                reset_when_dropped(self.stream);
                self.seen.ending = Ending::Own;
                return;
            }
            let moved = (self.writing && self.write()) | (self.reading && self.read());
            if moved {
                last = Instant::now();
                continue;
            }
            if last.elapsed() > SILENCE || !self.wait() {
                self.seen.ending = Ending::Silence;
                return;
            }
        }
    }

    /// How far it may send now.
    fn bound(&self) -> usize {
        let gate = if self.reading { self.part.gate } else { None };
        gate.unwrap_or(usize::MAX).min(self.part.cut.unwrap_or(usize::MAX)).min(self.part.length)
    }

    /// Whether something can be sent, an end too.
    fn may_write(&self) -> bool {
        self.writing
            && (self.seen.sent < self.bound()
                || (self.seen.sent == self.part.length && !self.is_gated()))
    }

    /// The last byte has gone and the end has to wait.
    fn is_gated(&self) -> bool {
        self.reading && self.part.gate.is_some()
    }

    fn write(&mut self) -> bool {
        if !self.may_write() {
            return false;
        }
        if self.seen.sent == self.part.length {
            self.writing = false;
            // A reset that has come meanwhile is seen by the reader.
            let _reset = self.stream.shutdown(Shutdown::Write);
            return true;
        }
        let most = self.bound().min(self.seen.sent + 1 + self.dice.below(PIECE));
        if self.dice.once_in(24) {
            pause(self.dice.below(3));
        }
        let bytes = &stream(self.part.key)[self.seen.sent..most];
        match (&mut &*self.stream).write(bytes) {
            Ok(count) => self.seen.sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.was_reset |= error.kind() == ErrorKind::ConnectionReset;
                self.writing = false;
            }
        }
        true
    }

    fn read(&mut self) -> bool {
        if self.part.slow || self.dice.once_in(24) {
            pause(self.dice.below(3));
        }
        let room = 1 + self.dice.below(self.buffer.len());
        match (&mut &*self.stream).read(&mut self.buffer[..room]) {
            Ok(0) => {
                self.reading = false;
                self.seen.ending = if self.was_reset { Ending::Reset } else { Ending::Fin };
            }
            Ok(count) => self.check(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => {
                (self.reading, self.writing) = (false, false);
                let is_reset = error.kind() == ErrorKind::ConnectionReset;
                self.seen.ending =
                    if is_reset { Ending::Reset } else { Ending::Error(error.kind()) };
            }
        }
        true
    }

    fn check(&mut self, count: usize) {
        let start = self.seen.received;
        let expected = &stream(self.part.expects_key)[..self.part.expects_length];
        let wanted = expected.get(start..start + count);
        if wanted == Some(&self.buffer[..count]) {
            self.seen.received += count;
            return;
        }
        let got = self.buffer[..count].iter();
        let same = got.zip(&expected[start.min(expected.len())..]).take_while(|(a, b)| a == b);
        self.seen.ending = Ending::Wrong(start + same.count());
        (self.reading, self.writing) = (false, false);
    }

    /// Waits for the socket; false when nothing happened for too long.
    fn wait(&self) -> bool {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.reading);
        flags.set(PollFlags::OUT, self.may_write());
        let mut fds = [PollFd::new(self.stream, flags)];
        let timeout = Timespec::try_from(SILENCE).unwrap();
        poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

#[allow(clippy::disallowed_methods, reason = "a peer that is slow is what is being tried")]
pub(crate) fn pause(milliseconds: usize) {
    std::thread::sleep(Duration::from_millis(milliseconds as u64));
}
