//! How far a session has come, what belongs to that stage alone, for how long it may last, and what
//! a due timer means for it.
//!
//! Nothing here knows the kernel.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::dataplane::clock::Tick;
use crate::dataplane::stream::wire::Holds;
use crate::dataplane::stream::{End, Stream};

use super::first_bytes::{Awaited, Greeting, Reading};

/// Silence after which a session's backend socket gets its keepalive. Most sessions end sooner and
/// never pay for it; the client's socket inherits it from the listening one.
const KEEPALIVE_DELAY: Duration = Duration::from_secs(20);
/// How often to look whether a lingering session may be closed: no event tells.
const LINGER_LOOK: Duration = Duration::from_millis(20);
/// How often to look whether a session that is to end is at rest.
pub const REST_LOOK: Duration = Duration::from_millis(20);
/// How often a client that waits for a place looks by itself: some of what makes one calls no
/// worker.
const LINE_LOOK: Duration = Duration::from_millis(500);

/// How far a session has come, with what belongs to that. Rare and large parts are boxed.
#[derive(Debug)]
pub enum Stage {
    /// Reading what the client says first, before there is a backend.
    Reading(Box<Reading>),
    /// Waiting for a place, every backend being full.
    Waiting {
        /// When it joined the line for the first time.
        first: Tick,
        /// When it joined it this time.
        since: Tick,
    },
    /// Waiting until a backend that failed may be tried again, there being no other.
    Resting {
        /// When that is.
        until: Tick,
    },
    /// Waiting for a backend's handshake.
    Connecting {
        /// When the attempt began.
        since: Tick,
        /// What this backend has to get first.
        greeting: Option<Box<Greeting>>,
    },
    /// Connected; the backend has not taken all of its greeting yet, or not answered it.
    Greeting {
        /// When the attempt began.
        since: Tick,
        /// The greeting, with the part that is still to be sent or answered.
        greeting: Box<Greeting>,
    },
    /// Moving bytes.
    Moving(Moving),
    /// Over, except for the last bytes in the kernel.
    Lingering(Moving),
    /// Ended by evenkeel, except for what the kernel still holds for a peer.
    Cut(Box<CutOff>),
}

/// The state of a session whose bytes move.
#[derive(Debug, Clone, Copy)]
pub struct Moving {
    /// When a byte last moved, or the backend was connected; or will be free to move one, where it
    /// is its bandwidth that the session waits for.
    pub active: Tick,
    /// Whether bytes for the backend were among the last that moved: its answer may be under way.
    pub is_asked: bool,
    /// Whether keepalive is set on the backend's socket.
    pub has_keepalive: bool,
    /// Bytes that both peers had acknowledged when a silence was last looked into, up to a constant
    /// and modulo 2^32; `None` before the first look.
    pub acknowledged: Option<NonZeroU32>,
}

/// A session that evenkeel has ended, while the kernel delivers what it holds.
#[derive(Debug, Clone, Copy)]
pub struct CutOff {
    /// How it ends.
    pub end: End,
    /// When that was decided.
    pub since: Tick,
    /// When it ends in any case.
    pub until: Tick,
}

/// How long a session may take over what it waits for. Those of the opening stages and those of the
/// others are never asked for together.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// What the client has to say first.
    pub reading: Duration,
    /// A place at a backend.
    pub queue: Duration,
    /// One backend's handshake, with its header.
    pub connect: Duration,
    /// Silence both ways.
    pub idle: Duration,
    /// Silence after one side's EOF, where that is shorter.
    pub half_closed: Duration,
    /// The end of a session that moves bytes, whatever it does; `None` is never.
    pub lifetime: Option<OldAge>,
}

/// When a session is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldAge {
    /// From then on it ends as soon as it is at rest.
    pub over: Tick,
    /// Then it ends in any case.
    pub latest: Tick,
}

/// The action that a due timer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet: something has moved since it was armed.
    Later,
    /// The end: the client did not say in time what it has to.
    Unsaid,
    /// A look whether there is a place now.
    Ask,
    /// Turning the client away: no place in time.
    NoPlace,
    /// A further attempt: a backend that failed may be tried again.
    TryAgain,
    /// This backend takes too long: another one.
    Retry,
    /// Setting keepalive on the backend's socket.
    Keepalive,
    /// A look whether the last bytes have arrived.
    Look,
    /// A look whether what the kernel holds of a session that was cut has arrived.
    Flush,
    /// The end, unless a peer is only slow: no byte has moved for too long.
    Silent,
    /// The end if it is at rest: too long a life.
    Aged(OldAge),
    /// The end: too long a life, and no rest in time.
    Overdue,
}

impl Bounds {
    /// No time for anything: a stage may leave what it does not ask for at this.
    pub const NONE: Self = Self {
        reading: Duration::ZERO,
        queue: Duration::ZERO,
        connect: Duration::ZERO,
        idle: Duration::ZERO,
        half_closed: Duration::ZERO,
        lifetime: None,
    };

    /// The earlier of a moment and the end of a session that moves bytes, or the next look whether
    /// that may come.
    fn or_end(&self, moment: Tick, now: Tick) -> Tick {
        match self.lifetime {
            None => moment,
            Some(life) if life.over > now => life.over.min(moment),
            Some(life) => now.after(REST_LOOK).min(life.latest).min(moment),
        }
    }

    /// When silence ends a session that was active at `active`.
    #[must_use]
    pub fn silence_deadline<P: Holds>(&self, stream: &Stream<P>, active: Tick) -> Tick {
        let is_half_closed = stream.is_half_closed();
        active.after(if is_half_closed { self.half_closed.min(self.idle) } else { self.idle })
    }
}

impl Stage {
    /// An attempt that begins now, or that does once a backend is chosen.
    #[must_use]
    pub const fn connecting(now: Tick) -> Self {
        Self::Connecting { since: now, greeting: None }
    }

    /// The backend is connected and has its PROXY header, if it wants one: bytes may move.
    #[must_use]
    pub const fn moving(now: Tick) -> Self {
        Self::Moving(Moving {
            active: now,
            is_asked: false,
            has_keepalive: false,
            acknowledged: None,
        })
    }

    /// Whether nothing of the client's may move yet.
    #[must_use]
    pub const fn is_opening(&self) -> bool {
        !matches!(self, Self::Moving(_) | Self::Lingering(_) | Self::Cut(_))
    }

    /// Whether its stream may move bytes.
    #[must_use]
    pub const fn has_stream(&self) -> bool {
        matches!(self, Self::Moving(_) | Self::Lingering(_))
    }

    /// Whether its client is known and has been let in; else a PROXY header has yet to say.
    #[must_use]
    pub const fn knows_its_client(&self) -> bool {
        match self {
            Self::Reading(reading) => !matches!(reading.awaited, Awaited::Header),
            _ => true,
        }
    }

    /// What a session keeps while its bytes move; `None` before.
    pub const fn moving_mut(&mut self) -> Option<&mut Moving> {
        match self {
            Self::Moving(moving) | Self::Lingering(moving) => Some(moving),
            _ => None,
        }
    }

    /// When the attempt, the reading or the waiting began; `None` between two attempts and once
    /// bytes move.
    #[must_use]
    pub fn since(&self) -> Option<Tick> {
        match self {
            Self::Reading(reading) => Some(reading.since),
            Self::Waiting { since, .. }
            | Self::Connecting { since, .. }
            | Self::Greeting { since, .. } => Some(*since),
            Self::Resting { .. } | Self::Moving(_) | Self::Lingering(_) | Self::Cut(_) => None,
        }
    }

    /// When the timer has to fire next.
    #[must_use]
    pub fn next_check<P: Holds>(&self, stream: &Stream<P>, bounds: Bounds, now: Tick) -> Tick {
        match self {
            Self::Reading(reading) => reading.since.after(bounds.reading),
            Self::Waiting { first, .. } => first.after(bounds.queue).min(now.after(LINE_LOOK)),
            Self::Resting { until } => *until,
            Self::Connecting { since, .. } | Self::Greeting { since, .. } => {
                since.after(bounds.connect)
            }
            Self::Moving(moving) => {
                let silence = bounds.silence_deadline(stream, moving.active);
                if moving.has_keepalive {
                    bounds.or_end(silence, now)
                } else {
                    bounds.or_end(silence.min(now.after(KEEPALIVE_DELAY)), now)
                }
            }
            Self::Lingering(moving) => {
                bounds.silence_deadline(stream, moving.active).min(now.after(LINGER_LOOK))
            }
            // Seldom, if it takes long.
            Self::Cut(cut) => cut.until.min(now.after(LINGER_LOOK.max(now.since(cut.since) / 4))),
        }
    }

    /// The timer has fired. Unless the session ends or tries again, it has to be armed anew.
    pub fn due<P: Holds>(&mut self, stream: &Stream<P>, bounds: Bounds, now: Tick) -> Due {
        let over = |since: Tick, bound: Duration| since.after(bound) <= now;
        match self {
            Self::Reading(reading) if over(reading.since, bounds.reading) => Due::Unsaid,
            Self::Waiting { first, .. } if over(*first, bounds.queue) => Due::NoPlace,
            Self::Waiting { .. } => Due::Ask,
            Self::Resting { until } if *until <= now => Due::TryAgain,
            Self::Resting { .. } => Due::Later,
            Self::Connecting { since, .. } | Self::Greeting { since, .. }
                if over(*since, bounds.connect) =>
            {
                Due::Retry
            }
            Self::Reading(_) | Self::Connecting { .. } | Self::Greeting { .. } => Due::Later,
            // Before a look into a silence puts it off.
            Self::Moving(_) if bounds.lifetime.is_some_and(|life| life.latest <= now) => {
                Due::Overdue
            }
            Self::Moving(moving) | Self::Lingering(moving)
                if bounds.silence_deadline(stream, moving.active) <= now =>
            {
                Due::Silent
            }
            Self::Moving(moving) => match bounds.lifetime.filter(|life| life.over <= now) {
                Some(life) => Due::Aged(life),
                None if moving.has_keepalive => Due::Later,
                None => {
                    moving.has_keepalive = true;
                    Due::Keepalive
                }
            },
            Self::Lingering(_) => Due::Look,
            Self::Cut(_) => Due::Flush,
        }
    }
}
