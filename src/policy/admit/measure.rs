//! What each algorithm that measures a rate can do with one client's state.

use super::bucket::Wait;
use super::fraction::Fraction;

/// What is asked of an algorithm.
pub(crate) trait Measure {
    /// The state after one more admission at `now_us`, or why there is none.
    fn ask(&self, state: Option<u64>, now_us: u64) -> Result<u64, Wait>;

    /// The state without one admission that was counted at `now_us`; `None` to leave it.
    fn give_back(&self, state: u64, now_us: u64) -> Option<u64>;

    /// What would be lost with the state; 0 when it equals a new one.
    fn used(&self, state: u64, now_us: u64) -> u64;

    /// What of its budget a client in this state has used at `now_us`.
    fn spent(&self, state: u64, now_us: u64) -> Usage;

    /// The state of a client that has used this much at `now_us`, rounded up and at most the whole
    /// budget; `None` when it has used nothing.
    fn with_spent(&self, spent: Usage, now_us: u64) -> Option<u64>;

    /// How long a state that is used up may lie on, in µs, until it could be taken for one that is
    /// not: stored times come round.
    fn turn_us(&self) -> u64;
}

/// A part of a budget, as any algorithm can tell it to any other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Admissions, as a fraction.
    pub(crate) admissions: Fraction,
    /// How much of its period has gone by where a period begins with the first admission, else 0;
    /// below 1.
    pub(crate) period: Fraction,
}

impl Usage {
    pub(crate) const NONE: Self = Self { admissions: Fraction::NONE, period: Fraction::NONE };
}
