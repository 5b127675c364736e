//! How a rate is measured: the one of three algorithms that the configuration names.
//!
//! A meter is arithmetic on a state of 43 bits; it keeps nothing. States are kept one per client in
//! the [`super::limiter`], or one for all clients in a [`super::shared_rate`].

use std::time::Duration;

use super::bucket::{Quota, Wait};
use super::fraction::Fraction;
use super::measure::{Measure, Usage};
use super::window::{FixedWindow, SlidingWindow};

/// [`Meter::left`] counts no further.
pub const LEFT_MAX: u64 = 100_000;

/// A rate and its algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// A burst at once, then evenly.
    TokenBucket(Quota),
    /// About N admissions in any period.
    SlidingWindow(SlidingWindow),
    /// N admissions in a period that begins with the first.
    FixedWindow(FixedWindow),
}

impl Meter {
    /// See [`Quota::new`].
    #[must_use]
    pub fn token_bucket(count: u64, period: Duration, burst: u32) -> Option<Self> {
        Quota::new(count, period, burst).map(Self::TokenBucket)
    }

    /// See [`SlidingWindow::new`].
    #[must_use]
    pub fn sliding_window(count: u64, period: Duration) -> Option<Self> {
        SlidingWindow::new(count, period).map(Self::SlidingWindow)
    }

    /// See [`FixedWindow::new`].
    #[must_use]
    pub fn fixed_window(count: u64, period: Duration) -> Option<Self> {
        FixedWindow::new(count, period).map(Self::FixedWindow)
    }

    /// Admissions that a new client may have at once.
    #[must_use]
    pub fn budget(&self) -> u64 {
        match self {
            Self::TokenBucket(quota) => quota.burst().into(),
            Self::SlidingWindow(window) => window.count(),
            Self::FixedWindow(window) => window.count(),
        }
    }

    /// How many more a client in this state may have at once, counted up to [`LEFT_MAX`].
    #[must_use]
    pub fn left(&self, mut state: Option<u64>, now_us: u64) -> u64 {
        let mut left = 0;
        while left < self.budget().min(LEFT_MAX)
            && let Ok(next) = self.ask(state, now_us)
        {
            state = Some(next);
            left += 1;
        }
        left
    }

    /// Whether states stored by `earlier` mean the same to this one, so that both may use them at
    /// once. The budget may differ.
    #[must_use]
    pub fn reads(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::TokenBucket(quota), Self::TokenBucket(earlier)) => quota.reads(earlier),
            (Self::SlidingWindow(window), Self::SlidingWindow(earlier)) => window.reads(earlier),
            (Self::FixedWindow(window), Self::FixedWindow(earlier)) => window.reads(earlier),
            _ => false,
        }
    }
}

/// States that outlive their meter.
impl Meter {
    /// What a client in this state, stored by `earlier`, has used, as a state of this meter; `None`
    /// when it has used nothing.
    ///
    /// What was used stays used, as far as the new budget goes, so a client that has used more
    /// never has more left. Rounded up: to a tick where both are token buckets, else to an
    /// admission. A fixed window of another period has as large a part of it still before it.
    #[must_use]
    pub fn carry(&self, earlier: &Self, state: u64, now_us: u64) -> Option<u64> {
        if self.reads(earlier) {
            return (earlier.used(state, now_us) > 0).then_some(state);
        }
        match (self, earlier) {
            (Self::SlidingWindow(window), Self::SlidingWindow(earlier))
                if window.is_wider_than(earlier) =>
            {
                window.widened(earlier, state, now_us)
            }
            _ => self.with_spent(earlier.spent(state, now_us), now_us),
        }
    }

    /// How long a state may lie on once its whole budget is back, in µs. Later it could be taken
    /// for one that is in use, because stored times come round: whatever keeps states has to forget
    /// it within this time.
    #[must_use]
    pub fn turn_us(&self) -> u64 {
        Measure::turn_us(self)
    }
}

impl Measure for Quota {
    #[inline]
    fn ask(&self, state: Option<u64>, now_us: u64) -> Result<u64, Wait> {
        let now = self.ticks(now_us);
        self.ask(state.unwrap_or(now), now)
    }

    fn give_back(&self, state: u64, now_us: u64) -> Option<u64> {
        self.give_back(state, self.ticks(now_us))
    }

    #[inline]
    fn used(&self, state: u64, now_us: u64) -> u64 {
        self.ahead(state, self.ticks(now_us))
    }

    fn spent(&self, state: u64, now_us: u64) -> Usage {
        Usage { admissions: self.spent(state, self.ticks(now_us)), period: Fraction::NONE }
    }

    fn with_spent(&self, spent: Usage, now_us: u64) -> Option<u64> {
        self.with_spent(spent.admissions, self.ticks(now_us))
    }

    fn turn_us(&self) -> u64 {
        self.turn_us()
    }
}

/// For where a branch for the algorithm costs nothing.
impl Measure for Meter {
    #[inline]
    fn ask(&self, state: Option<u64>, now_us: u64) -> Result<u64, Wait> {
        match self {
            Self::TokenBucket(quota) => Measure::ask(quota, state, now_us),
            Self::SlidingWindow(window) => window.ask(state, now_us),
            Self::FixedWindow(window) => window.ask(state, now_us),
        }
    }

    fn give_back(&self, state: u64, now_us: u64) -> Option<u64> {
        match self {
            Self::TokenBucket(quota) => Measure::give_back(quota, state, now_us),
            Self::SlidingWindow(window) => window.give_back(state, now_us),
            Self::FixedWindow(window) => window.give_back(state, now_us),
        }
    }

    fn used(&self, state: u64, now_us: u64) -> u64 {
        match self {
            Self::TokenBucket(quota) => quota.used(state, now_us),
            Self::SlidingWindow(window) => window.used(state, now_us),
            Self::FixedWindow(window) => window.used(state, now_us),
        }
    }

    fn spent(&self, state: u64, now_us: u64) -> Usage {
        match self {
            Self::TokenBucket(quota) => Measure::spent(quota, state, now_us),
            Self::SlidingWindow(window) => window.spent(state, now_us),
            Self::FixedWindow(window) => window.spent(state, now_us),
        }
    }

    fn with_spent(&self, spent: Usage, now_us: u64) -> Option<u64> {
        match self {
            Self::TokenBucket(quota) => Measure::with_spent(quota, spent, now_us),
            Self::SlidingWindow(window) => window.with_spent(spent, now_us),
            Self::FixedWindow(window) => window.with_spent(spent, now_us),
        }
    }

    fn turn_us(&self) -> u64 {
        match self {
            Self::TokenBucket(quota) => quota.turn_us(),
            Self::SlidingWindow(window) => window.turn_us(),
            Self::FixedWindow(window) => window.turn_us(),
        }
    }
}

#[cfg(test)]
mod tests;
