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
use crate::policy::table::PAYLOAD_BITS;

/// No state yet; states have 43 bits.
const NEW: u64 = u64::MAX;
const STATE_MASK: u64 = (1 << PAYLOAD_BITS) - 1;

/// The state.
#[derive(Debug)]
pub struct SharedRate(CachePadded<AtomicU64>);

impl Default for SharedRate {
    fn default() -> Self {
        Self(CachePadded::new(AtomicU64::new(NEW)))
    }
}

impl SharedRate {
    /// What was used up to `now_us` as `earlier` measured it, for a `meter` that measures
    /// otherwise: see [`Meter::carry`].
    #[must_use]
    pub fn carried(&self, meter: &Meter, earlier: &Meter, now_us: u64) -> Self {
        let word = self.0.load(Ordering::Relaxed);
        let carried = (word != NEW).then(|| meter.carry(earlier, word, now_us)).flatten();
        Self(CachePadded::new(AtomicU64::new(carried.unwrap_or(NEW))))
    }

    /// The state for [`Self::load`]; `None` when nothing was used.
    #[must_use]
    pub fn word(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|word| *word != NEW)
    }

    /// Goes on from the state of another one with the same meter and clock.
    pub fn load(&self, word: u64) {
        self.0.store(word & STATE_MASK, Ordering::Relaxed);
    }

    /// Forgets what was used once all of it is back. To be called within every
    /// [`Meter::turn_us`], or a listener that was idle for that long would find its old state.
    pub fn sweep(&self, now_us: u64, meter: &Meter) {
        let word = self.0.load(Ordering::Relaxed);
        if word != NEW && meter.used(word, now_us) == 0 {
            // Failing means that a connection has just been counted.
            let _used = self.0.compare_exchange(word, NEW, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

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

    /// Takes back what [`SharedRate::admit`] allowed at `now_us`.
    pub fn give_back(&self, now_us: u64, meter: &Meter) {
        let mut word = self.0.load(Ordering::Relaxed);
        while word != NEW
            && let Some(next) = meter.give_back(word, now_us)
        {
            match self.0.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
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
    fn a_listener_that_was_idle_for_long_admits() {
        // If this fails, a listener that was full once refuses every client hours later, when
        // stored times have come round.
        let widest = Meter::sliding_window(100_000, SECOND).unwrap();
        for meter in meters(40).into_iter().chain([widest]) {
            // Both windows hold something, so that either could come back.
            let (rate, minute) = (SharedRate::default(), 60_000_000);
            for at_us in [5_000_000, 6_500_000] {
                while rate.admit(at_us, &meter) == Decision::Allowed {}
            }
            for at_us in (1..5).map(|sweep| sweep * minute) {
                rate.sweep(at_us, &meter);
            }
            // Every second for longer than 512 windows, and around all later powers of two.
            let soon = (1..1_500).map(|second| 4 * minute + second * 1_000_000);
            let late = (28..62)
                .flat_map(|power| (0..12).map(move |second| (1_u64 << power) + second * 1_000_000));
            for at_us in soon.chain(late) {
                assert_eq!(rate.peek(at_us, &meter), Decision::Allowed, "{meter:?} at {at_us}");
            }
        }
    }

    #[test]
    fn a_sweep_forgets_nothing_that_counts() {
        // If this fails, a listener takes more than its rate, once a minute.
        for meter in meters(3) {
            let rate = SharedRate::default();
            while rate.admit(5_000_000, &meter) == Decision::Allowed {}
            let refused = rate.peek(5_000_000, &meter);
            rate.sweep(5_000_000, &meter);
            assert_eq!(rate.peek(5_000_000, &meter), refused);
        }
    }

    #[test]
    fn another_rate_takes_over_what_was_used() {
        // If this fails, a reload gives a listener in a flood a fresh budget.
        let more = [meters(30), meters(3)].concat();
        for (old, new) in
            meters(20).into_iter().flat_map(|old| more.iter().map(move |new| (old, new)))
        {
            let rate = SharedRate::default();
            for _ in 0..12 {
                assert_eq!(rate.admit(5_000_000, &old), Decision::Allowed);
            }
            let next = rate.carried(new, &old, 5_000_000);
            let admits = |_: &u64| next.admit(5_000_000, new) == Decision::Allowed;
            let left = (0..100).filter(admits).count() as u64;
            assert_eq!(left, new.budget().saturating_sub(12), "{old:?} {new:?}");
            let unused = SharedRate::default().carried(new, &old, 5_000_000);
            assert_eq!(unused.peek(5_000_000, new), Decision::Allowed);
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
