//! What a connection waits for, for how long, and what an event or a due timer means for it.
//!
//! Nothing here knows the kernel: the worker and its simulation act on the same decisions.

use std::io;
use std::time::Duration;

use crate::policy::defects::{Defect, has};
use crate::shared::CloseReason;
use crate::sys::socket::ConnectStatus;

use super::clock::Tick;
use super::stream::wire::{Holds, Side};
use super::stream::{End, Readiness, Reset, Stream};

/// Silence after which a session's backend socket gets its keepalive. Most sessions end sooner and
/// never pay for it; the client's socket inherits it from the listening one.
const KEEPALIVE_DELAY: Duration = Duration::from_secs(20);
/// How often to look whether a lingering session may be closed: no event tells.
const LINGER_LOOK: Duration = Duration::from_millis(20);

/// How often who waits for a place looks by itself: some of what makes one calls nobody.
const LINE_LOOK: Duration = Duration::from_millis(500);

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for what the client says first, before there is a backend.
    Reading,
    /// Waiting for a place, every backend being full.
    Waiting,
    /// Waiting for a backend's handshake.
    Connecting,
    /// Connected; the backend has not taken all of its PROXY header yet.
    Greeting,
    /// Moving bytes; keepalive is not set on the backend's socket yet.
    Young,
    /// Moving bytes.
    Settled,
    /// Over, but for the last bytes in the kernel.
    Lingering,
}

impl Stage {
    /// Whether nothing of the client's may move yet.
    #[must_use]
    pub const fn is_opening(self) -> bool {
        matches!(self, Self::Reading | Self::Waiting | Self::Connecting | Self::Greeting)
    }
}

/// How long a connection may take over what it waits for. Those of the opening stages and those of
/// the others are never asked for together.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What the client has to say first.
    pub reading: Duration,
    /// A place at a backend.
    pub queue: Duration,
    /// One backend's handshake.
    pub connect: Duration,
    /// Silence both ways.
    pub idle: Duration,
    /// Silence after one side's EOF, where that is shorter.
    pub half_closed: Duration,
    /// The end of a session that moves bytes, whatever it does; `None` is never.
    pub last: Option<Tick>,
}

impl Bounds {
    /// No time for anything: what a stage does not ask for may be left at this.
    pub const NONE: Self = Self {
        reading: Duration::ZERO,
        queue: Duration::ZERO,
        connect: Duration::ZERO,
        idle: Duration::ZERO,
        half_closed: Duration::ZERO,
        last: None,
    };

    /// The earlier of a moment and the end of a session that moves bytes.
    fn or_last(&self, moment: Tick) -> Tick {
        self.last.map_or(moment, |last| last.min(moment))
    }
}

/// A stage, and the moments from which its bounds count.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// How far the connection has come.
    pub stage: Stage,
    /// When the reading, the waiting for a place, or the latest connection attempt began.
    pub attempted: Tick,
    /// When a byte last moved, or the connection came to where it is; or will be free to move one,
    /// where it is its bandwidth that it waits for.
    pub active: Tick,
}

/// What a due timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet: something has moved since it was armed.
    Later,
    /// The end: the client did not say in time what it has to.
    Unsaid,
    /// A look whether there is a place now.
    Ask,
    /// Turning the client away: no place in time.
    GiveUp,
    /// This backend takes too long: another one.
    Retry,
    /// Setting keepalive on the backend's socket.
    Keepalive,
    /// A look whether the last bytes have arrived.
    Look,
    /// The end: too long a silence, or too long a life.
    End(End),
}

impl Phase {
    /// A connection that begins its first attempt now.
    #[must_use]
    pub const fn new(now: Tick) -> Self {
        Self { stage: Stage::Connecting, attempted: now, active: now }
    }

    /// There is no place for it: it waits from now on.
    pub const fn waits(&mut self, now: Tick) {
        self.stage = Stage::Waiting;
        self.attempted = now;
    }

    /// A backend's handshake is done: bytes may move.
    pub const fn connected(&mut self, now: Tick) {
        self.stage = Stage::Young;
        self.active = now;
    }

    /// The backend is connected and still has to take its header, within the bound of the attempt.
    pub const fn greets(&mut self) {
        self.stage = Stage::Greeting;
    }

    /// The client has to say something first, or something more.
    pub const fn reads(&mut self, now: Tick) {
        self.stage = Stage::Reading;
        self.attempted = now;
    }

    /// Another attempt begins.
    pub const fn attempts(&mut self, now: Tick) {
        self.stage = Stage::Connecting;
        self.attempted = now;
    }

    /// When silence ends the session.
    #[must_use]
    pub fn silence_deadline<P: Holds>(&self, stream: &Stream<P>, bounds: Bounds) -> Tick {
        let bound =
            if stream.is_half_closed() { bounds.half_closed.min(bounds.idle) } else { bounds.idle };
        self.active.after(bound)
    }

    /// When the timer has to fire next.
    #[must_use]
    pub fn next_check<P: Holds>(&self, stream: &Stream<P>, bounds: Bounds, now: Tick) -> Tick {
        let silence = || self.silence_deadline(stream, bounds);
        match self.stage {
            Stage::Reading => self.attempted.after(bounds.reading),
            Stage::Waiting => self.attempted.after(bounds.queue).min(now.after(LINE_LOOK)),
            Stage::Connecting if has(Defect::ForgetConnectTimeout) => silence(),
            Stage::Connecting | Stage::Greeting => self.attempted.after(bounds.connect),
            Stage::Young => bounds.or_last(silence().min(now.after(KEEPALIVE_DELAY))),
            Stage::Settled => bounds.or_last(silence()),
            Stage::Lingering => silence().min(now.after(LINGER_LOOK)),
        }
    }

    /// The timer has fired. Unless the connection ends or tries again, it has to be armed anew.
    pub fn due<P: Holds>(&mut self, stream: &Stream<P>, bounds: Bounds, now: Tick) -> Due {
        if self.stage.is_opening() {
            let (bound, early, late) = match self.stage {
                Stage::Reading => (bounds.reading, Due::Later, Due::Unsaid),
                Stage::Waiting => (bounds.queue, Due::Ask, Due::GiveUp),
                _ => (bounds.connect, Due::Later, Due::Retry),
            };
            return if self.attempted.after(bound) <= now { late } else { early };
        }
        if self.silence_deadline(stream, bounds) <= now {
            return Due::End(stream.silence_end());
        }
        let is_last = bounds.last.is_some_and(|last| last <= now);
        match self.stage {
            Stage::Young | Stage::Settled if is_last => {
                Due::End(End { reason: CloseReason::Lifetime, reset: Reset::Both })
            }
            Stage::Young => {
                self.stage = Stage::Settled;
                Due::Keepalive
            }
            Stage::Lingering => Due::Look,
            Stage::Reading
            | Stage::Waiting
            | Stage::Connecting
            | Stage::Greeting
            | Stage::Settled => Due::Later,
        }
    }
}

/// What an event says of a connection attempt that was under way.
#[derive(Debug)]
pub enum Handshake {
    /// Nothing.
    Waits,
    /// Nothing, and what it said of the backend's socket is not to be believed.
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
        if has(Defect::BelieveAnyEvent) {
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
    failed <= retries as usize + has(Defect::OneRetryMore) as usize
}
