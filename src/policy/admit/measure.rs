//! What each algorithm that measures a rate can do with one client's state.

use super::bucket::Wait;

/// What is asked of an algorithm.
pub(crate) trait Measure {
    /// The state after one more admission at `now_us`, or why there is none.
    fn ask(&self, state: Option<u64>, now_us: u64) -> Result<u64, Wait>;

    /// The state without one admission that was counted at `now_us`; `None` to leave it.
    fn give_back(&self, state: u64, now_us: u64) -> Option<u64>;

    /// What would be lost with the state; 0 when it equals a new one.
    fn used(&self, state: u64, now_us: u64) -> u64;
}
