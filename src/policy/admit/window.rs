//! Counting in windows: a fixed one that begins with a client's first connection, and a sliding one
//! that is estimated from two counts.
//!
//! *Fixed*: at most N from the first connection on, for a period; then all of it anew. The word is
//! `start (26 bits) | count (17)`, the start rounded down to a power of two of µs, at most a
//! thousandth of the period. *Sliding*: the word is `window | count before | count`. What was
//! counted in the window before is taken as spread evenly over it, and weighs as much as of it is
//! still less than a period ago; one more is admitted while the weighted sum is below N. A window
//! number takes what two counts leave of 43 bits: 23, 15 or 9. A client that comes back after
//! exactly that many windows finds its old counts.
//!
//! States equal to a new one (`used` is 0) may be forgotten. Words live in a
//! [`table`](crate::policy::table).

use std::time::Duration;

use super::bucket::{SKEW_US, TIME_BITS, Wait};
use super::fraction::Fraction;
use super::measure::{Measure, Usage};

/// Bits of a count in a fixed window's word.
const FIXED_COUNT_BITS: u32 = 17;
const FIXED_COUNT_MASK: u64 = (1 << FIXED_COUNT_BITS) - 1;
const FIXED_START_MASK: u64 = (1 << (TIME_BITS - FIXED_COUNT_BITS)) - 1;
/// Bits of a count in a sliding window's word: few widths, so that a changed rate seldom needs
/// another one.
const SLIDING_COUNT_BITS: [u32; 3] = [10, 14, 17];
/// Most admissions of one window.
pub const WINDOW_COUNT_MAX: u64 = (1 << FIXED_COUNT_BITS) - 1;
/// Periods that windows are made for, in µs: a second to more than a day.
const PERIOD_US_MIN: u64 = 1_000_000;
const PERIOD_US_MAX: u64 = 1 << 37;

/// The period in µs, if windows are made for it and for this count.
fn checked(count: u64, period: Duration) -> Option<u64> {
    let period_us = u64::try_from(period.as_micros()).ok()?;
    let fits = (1..=WINDOW_COUNT_MAX).contains(&count)
        && (PERIOD_US_MIN..=PERIOD_US_MAX).contains(&period_us);
    fits.then_some(period_us)
}

/// At most N admissions in a period that begins with the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow {
    count: u64,
    period_us: u64,
    /// A unit of the start is 2^this µs.
    unit_shift: u32,
}

/// What a fixed window holds at some moment.
#[derive(Debug, Clone, Copy)]
struct Begun {
    count: u64,
    /// Until it ends; more than a period for a worker whose clock is behind.
    left_us: u64,
}

impl FixedWindow {
    /// `None` unless 1 to [`WINDOW_COUNT_MAX`] per 1 s to 2^37 µs.
    #[must_use]
    pub fn new(count: u64, period: Duration) -> Option<Self> {
        let period_us = checked(count, period)?;
        Some(Self { count, period_us, unit_shift: (period_us / 1_000).ilog2() })
    }

    /// The most of one window.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether states stored by `earlier` mean the same.
    #[must_use]
    pub fn reads(&self, earlier: &Self) -> bool {
        self.period_us == earlier.period_us
    }
}

impl Measure for FixedWindow {
    #[inline]
    fn ask(&self, state: Option<u64>, now_us: u64) -> Result<u64, Wait> {
        match state.and_then(|state| Some((state, self.opened(state, now_us)?))) {
            Some((state, opened)) if opened.count < self.count => Ok(state + 1),
            Some((_, Begun { left_us, .. })) => {
                Err(Wait { retry_after_us: left_us, full_after_us: left_us })
            }
            None => {
                let start = (now_us >> self.unit_shift) & FIXED_START_MASK;
                Ok(start << FIXED_COUNT_BITS | 1)
            }
        }
    }

    fn give_back(&self, state: u64, now_us: u64) -> Option<u64> {
        self.opened(state, now_us).map(|_| state - 1)
    }

    /// The more of it is used, and for longer, the larger.
    fn used(&self, state: u64, now_us: u64) -> u64 {
        self.opened(state, now_us).map_or(0, |opened| opened.count * opened.left_us)
    }

    fn spent(&self, state: u64, now_us: u64) -> Usage {
        let Some(Begun { count, left_us }) = self.opened(state, now_us) else { return Usage::NONE };
        let period =
            Fraction { parts: self.period_us.saturating_sub(left_us), whole: self.period_us };
        Usage { admissions: Fraction { parts: count, whole: 1 }, period }
    }

    fn with_spent(&self, spent: Usage, now_us: u64) -> Option<u64> {
        let count = spent.admissions.of_rounded_up(1).min(FIXED_COUNT_MASK);
        // The window must not be over for having been rounded.
        let within_unit = now_us & ((1 << self.unit_shift) - 1);
        let age = spent.period.of(self.period_us).saturating_sub(within_unit) >> self.unit_shift;
        let start = (now_us >> self.unit_shift).wrapping_sub(age) & FIXED_START_MASK;
        (count > 0).then_some(start << FIXED_COUNT_BITS | count)
    }

    fn turn_us(&self) -> u64 {
        // Just before it comes round, a start could be that of a worker whose clock is ahead.
        (FIXED_START_MASK << self.unit_shift) - self.period_us - SKEW_US - (1 << self.unit_shift)
    }
}

impl FixedWindow {
    /// `None` when the window is over or holds no admission.
    #[inline]
    fn opened(&self, state: u64, now_us: u64) -> Option<Begun> {
        let count = state & FIXED_COUNT_MASK;
        let start = state >> FIXED_COUNT_BITS;
        let now = now_us >> self.unit_shift;
        let within_unit = now_us & ((1 << self.unit_shift) - 1);
        let age_us =
            ((now.wrapping_sub(start) & FIXED_START_MASK) << self.unit_shift) + within_unit;
        if age_us < self.period_us {
            return (count > 0).then(|| Begun { count, left_us: self.period_us - age_us });
        }
        // Begun by a worker whose clock is ahead.
        let ahead_us = (start.wrapping_sub(now) & FIXED_START_MASK) << self.unit_shift;
        let is_ahead = count > 0 && ahead_us <= SKEW_US + (1 << self.unit_shift);
        is_ahead.then(|| Begun { count, left_us: self.period_us + ahead_us - within_unit })
    }
}

/// At most about N admissions in any period, estimated from the counts of two windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    count: u64,
    period_us: u64,
    /// Width of a count.
    bits: u32,
    /// How many windows ahead a worker's clock may be.
    skew: u64,
}

/// The two counts as seen at some moment.
#[derive(Debug, Clone, Copy)]
struct Counts {
    window: u64,
    before: u64,
    count: u64,
    /// Since the window began.
    elapsed_us: u64,
    /// Until it begins, for a worker whose clock is behind.
    lead_us: u64,
}

impl SlidingWindow {
    /// `None` unless 1 to [`WINDOW_COUNT_MAX`] per 1 s to 2^37 µs.
    #[must_use]
    pub fn new(count: u64, period: Duration) -> Option<Self> {
        let period_us = checked(count, period)?;
        let bits = SLIDING_COUNT_BITS.into_iter().find(|bits| count >> bits == 0)?;
        Some(Self { count, period_us, bits, skew: SKEW_US / period_us + 1 })
    }

    /// The most of one window.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether states stored by `earlier` mean the same.
    #[must_use]
    pub fn reads(&self, earlier: &Self) -> bool {
        (self.period_us, self.bits) == (earlier.period_us, earlier.bits)
    }

    /// Whether the windows are the same ones, and every count that `earlier` stores fits.
    pub(super) fn is_wider_than(&self, earlier: &Self) -> bool {
        self.period_us == earlier.period_us && self.bits > earlier.bits
    }

    /// The state that `earlier` stored, in wider counts; `None` when it equals a new one.
    pub(super) fn widened(&self, earlier: &Self, state: u64, now_us: u64) -> Option<u64> {
        let counts = earlier.counts(Some(state), now_us);
        (earlier.weight(&counts) > 0).then(|| self.word(&counts))
    }

    /// The most that a count holds.
    fn count_max(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

impl Measure for SlidingWindow {
    #[inline]
    fn ask(&self, state: Option<u64>, now_us: u64) -> Result<u64, Wait> {
        let counts = self.counts(state, now_us);
        if self.weight(&counts) < self.count * self.period_us {
            return Ok(self.word(&Counts { count: counts.count + 1, ..counts }));
        }
        Err(self.refusal(&counts))
    }

    fn give_back(&self, state: u64, now_us: u64) -> Option<u64> {
        let counts = self.counts(Some(state), now_us);
        // Behind a worker that is in the next window already it may be in either count; taking it
        // from the older one never gives back too much.
        let is_behind = counts.lead_us > 0 && counts.before > 0;
        let (before, count) = match is_behind {
            true => (counts.before - 1, counts.count),
            false => (counts.before, counts.count.checked_sub(1)?),
        };
        Some(self.word(&Counts { before, count, ..counts }))
    }

    fn used(&self, state: u64, now_us: u64) -> u64 {
        self.weight(&self.counts(Some(state), now_us))
    }

    fn spent(&self, state: u64, now_us: u64) -> Usage {
        let parts = self.used(state, now_us);
        Usage { admissions: Fraction { parts, whole: self.period_us }, period: Fraction::NONE }
    }

    /// All of it in the window that is open: it slides out during the next.
    fn with_spent(&self, spent: Usage, now_us: u64) -> Option<u64> {
        let count = spent.admissions.of_rounded_up(1).min(self.count_max());
        let new = self.counts(None, now_us);
        (count > 0).then(|| self.word(&Counts { count, ..new }))
    }

    fn turn_us(&self) -> u64 {
        // Used up in two windows; just before it comes round, a window could be that of a worker
        // whose clock is ahead.
        (self.windows(u64::MAX) - 2 - self.skew) * self.period_us
    }
}

impl SlidingWindow {
    /// The estimate times the period. The microsecond of `now` is over: so a client that keeps
    /// exactly to the rate is never refused.
    #[inline]
    fn weight(&self, counts: &Counts) -> u64 {
        counts.before * (self.period_us - counts.elapsed_us - 1) + counts.count * self.period_us
    }

    fn refusal(&self, counts: &Counts) -> Wait {
        let Counts { before, count, elapsed_us, lead_us, .. } = *counts;
        let left_us = self.period_us - elapsed_us;
        // When `before` admissions of the window before leave room for `more` in this one.
        let room = |before: u64, more: u64| {
            self.period_us.saturating_sub((more * self.period_us).div_ceil(before.max(1)))
        };
        let retry_us = match self.count.checked_sub(count) {
            None | Some(0) => left_us + room(count, self.count),
            Some(more) => room(before, more).saturating_sub(elapsed_us).max(1),
        };
        let full_us = match count {
            0 => room(before, 1).saturating_sub(elapsed_us).max(1),
            _ => left_us + room(count, 1),
        };
        Wait { retry_after_us: lead_us + retry_us, full_after_us: lead_us + full_us }
    }

    #[inline]
    fn counts(&self, state: Option<u64>, now_us: u64) -> Counts {
        let (window, elapsed_us) = (now_us / self.period_us, now_us % self.period_us);
        let new = Counts { window, before: 0, count: 0, elapsed_us, lead_us: 0 };
        let Some(state) = state else { return new };
        let stored = state >> (2 * self.bits);
        let field = (1 << self.bits) - 1;
        let (before, count) = (state >> self.bits & field, state & field);
        match self.windows(window.wrapping_sub(stored)) {
            0 => Counts { before, count, ..new },
            1 => Counts { before: count, ..new },
            _ => match self.windows(stored.wrapping_sub(window)) {
                ahead if ahead <= self.skew => {
                    let lead_us = ahead * self.period_us - elapsed_us;
                    Counts { window: window + ahead, before, count, elapsed_us: 0, lead_us }
                }
                _ => new,
            },
        }
    }

    /// A distance between windows, modulo what a word can hold.
    #[inline]
    fn windows(&self, distance: u64) -> u64 {
        distance & ((1 << (TIME_BITS - 2 * self.bits)) - 1)
    }

    #[inline]
    fn word(&self, counts: &Counts) -> u64 {
        let Counts { window, before, count, .. } = *counts;
        (self.windows(window) << self.bits | before) << self.bits | count
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests;
