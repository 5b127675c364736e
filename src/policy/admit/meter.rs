//! How a rate is measured: the one of three algorithms that the configuration names.
//!
//! A meter is arithmetic on a state of 43 bits; it keeps nothing. States are kept one per client in
//! the [`super::limiter`], or one for all clients in a [`super::shared_rate`].

use std::time::Duration;

use super::bucket::{Quota, Wait};
use super::measure::Measure;
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

    /// Whether states stored by `earlier` mean the same to this one. The budget may differ.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client gets that asks every millisecond, by tenths of a second; `X` is ten.
    fn row(meter: &Meter, start_us: u64) -> String {
        let mut state = None;
        let mut admitted = [0_usize; 30];
        for millisecond in 0..3_000 {
            if let Ok(next) = meter.ask(state, start_us + millisecond as u64 * 1_000) {
                state = Some(next);
                admitted[millisecond / 100] += 1;
            }
        }
        admitted.map(|count| char::from(b".123456789X"[count])).iter().collect()
    }

    #[test]
    fn what_is_left_is_what_is_admitted() {
        // If this fails, an operator reads a number that the client does not get.
        let second = Duration::from_secs(1);
        let meters = [
            Meter::token_bucket(10, second, 25),
            Meter::sliding_window(10, second),
            Meter::fixed_window(10, second),
        ];
        for meter in meters.map(Option::unwrap) {
            let (mut state, at_us) = (None, 512_500_000);
            assert_eq!(meter.left(None, at_us), meter.budget());
            for used in 1..=meter.budget() {
                state = meter.ask(state, at_us).ok();
                assert_eq!(meter.left(state, at_us), meter.budget() - used, "{meter:?}");
            }
        }
        let endless = Meter::token_bucket(1_000_000, second, 1_000_000).unwrap();
        assert_eq!(endless.left(None, 1), LEFT_MAX);
    }

    #[test]
    fn the_plot_in_the_manual_is_what_happens() {
        // If this fails, docs/choosing.md shows another behaviour than the one an operator gets.
        let second = Duration::from_secs(1);
        let rows = [
            ("token-bucket", Meter::token_bucket(10, second, 10)),
            ("sliding-window", Meter::sliding_window(10, second)),
            ("fixed-window", Meter::fixed_window(10, second)),
        ];
        let manual = include_str!("../../../docs/choosing.md");
        for (name, meter) in rows {
            // Begins in the middle of a sliding window.
            let line = format!("{name:<16}{}", row(&meter.unwrap(), 512_500_000));
            assert!(manual.contains(&line), "{line}");
        }
    }
}
