//! Time as a worker sees it: microseconds since the process started, read once per loop turn. A
//! process that takes sessions over from another counts on from where that one began.

use std::time::{Duration, Instant};

/// A moment, in microseconds since the process started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(u64);

impl Tick {
    /// The moment `micros` after the start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Time passed since an earlier moment; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `delay` later.
    pub fn after(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(micros(delay)))
    }
}

/// In whole microseconds, at most `u64::MAX`; without a detour over 128 bits.
pub(crate) fn micros(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()))
}

/// Where the time comes from.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that counts from `start`, which all workers share.
    pub fn new(start: Instant) -> Self {
        Self { start }
    }

    /// Reads the clock.
    pub fn now(self) -> Tick {
        Tick(micros(self.start.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, deadlines are off, or one that is never wraps to now.
    #[test]
    fn microseconds_are_whole_and_bounded() {
        assert_eq!(micros(Duration::new(3, 1_999)), 3_000_001);
        assert_eq!(micros(Duration::MAX), u64::MAX);
        assert_eq!(Tick::from_micros(5).after(Duration::MAX), Tick::from_micros(u64::MAX));
    }
}
