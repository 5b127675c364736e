//! One rate for all clients of a listener together: one state in one word, shared by all workers.
//!
//! **Synchronization.** The word is all there is: every admission is one compare-exchange from a
//! state that allows it, so the rate is exact under races. No other memory is published with it,
//! so `Relaxed` is enough. A refusal only reads. The word has a cache line of its own.

use crossbeam::utils::CachePadded;

use super::bucket::Wait;
use super::limiter::Decision;
use super::measure::Measure;
use super::meter::Meter;
use crate::policy::sync::{AtomicU64, Ordering};

/// No state yet; states have 43 bits.
const NEW: u64 = u64::MAX;

/// The state.
#[derive(Debug)]
pub struct SharedRate(CachePadded<AtomicU64>);

impl Default for SharedRate {
    fn default() -> Self {
        Self(CachePadded::new(AtomicU64::new(NEW)))
    }
}

impl SharedRate {
    /// Asks for one more connection at `now_us`.
    ///
    /// A rate serves one meter, or meters of which each [`Meter::reads`] the one before.
    #[inline]
    pub fn admit(&self, now_us: u64, meter: &Meter) -> Decision {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let next = match meter.ask((word != NEW).then_some(word), now_us) {
                Ok(next) => next,
                Err(refusal) => return refusal.into(),
            };
            match self.0.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Decision::Allowed,
                Err(current) => word = current,
            }
        }
    }

    /// What [`SharedRate::admit`] would answer, without counting anything.
    #[must_use]
    #[inline]
    pub fn peek(&self, now_us: u64, meter: &Meter) -> Decision {
        let word = self.0.load(Ordering::Relaxed);
        meter.ask((word != NEW).then_some(word), now_us).into()
    }
}

impl From<Result<u64, Wait>> for Decision {
    fn from(answer: Result<u64, Wait>) -> Self {
        answer.map_or_else(Self::from, |_| Self::Allowed)
    }
}

impl From<Wait> for Decision {
    fn from(Wait { retry_after_us, full_after_us }: Wait) -> Self {
        Self::Refused { retry_after_us, full_after_us }
    }
}

#[cfg(test)]
#[cfg(not(evenkeel_loom))]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn meters(count: u32) -> [Meter; 3] {
        [
            Meter::token_bucket(count.into(), SECOND, count).unwrap(),
            Meter::sliding_window(count.into(), SECOND).unwrap(),
            Meter::fixed_window(count.into(), SECOND).unwrap(),
        ]
    }

    #[test]
    fn it_has_a_cache_line_of_its_own() {
        // If this fails, workers that only read what lies beside it are slowed down by it.
        assert!(align_of::<SharedRate>() >= 64 && size_of::<SharedRate>() >= 64);
    }

    #[test]
    fn a_look_counts_nothing_and_says_the_same() {
        // If this fails, a listener over its rate stays over it because of those it refuses.
        for meter in meters(2) {
            let rate = SharedRate::default();
            for at_us in [0, 1, 400_000, 999_999, 1_000_000, 1_500_000, 1_700_000, 9_000_000] {
                for _ in 0..3 {
                    let expected = rate.peek(at_us, &meter);
                    assert_eq!(rate.peek(at_us, &meter), expected);
                    assert_eq!(rate.admit(at_us, &meter), expected);
                }
            }
        }
    }

    #[test]
    fn racing_workers_admit_exactly_the_budget() {
        // If this fails, a listener takes more than its rate because it has several workers.
        for meter in meters(20_000) {
            let (rate, barrier) = (SharedRate::default(), Barrier::new(3));
            let admits = |_: &u32| rate.admit(5_000_000, &meter) == Decision::Allowed;
            let work = || {
                barrier.wait();
                (0..15_000).filter(admits).count()
            };
            let total: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).sum()
            });
            assert_eq!(total, 20_000);
        }
    }
}
