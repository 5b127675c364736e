//! The wait before the next try: exponential back-off with full jitter, and ways to keep many
//! timers apart.
//!
//! Full jitter as measured in
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>: the wait is uniform
//! between zero and a ceiling that doubles with each try, which spreads a crowd better than a fixed
//! schedule does. Random numbers are arguments, uniform over `u64`.

use std::time::Duration;

use crate::policy::balance::hash::scale;

/// The waits between tries of one operation that keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// First ceiling `base`, doubling up to `cap`; a cap below the base counts as the base.
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap: cap.max(base), tries: 0 }
    }

    /// The wait before the next try; the ceiling of the one after is twice as high.
    pub fn next(&mut self, random: u64) -> Duration {
        let ceiling = self.ceiling();
        self.tries = self.tries.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(scale(random, nanos.saturating_add(1)))
    }

    /// The longest that [`Backoff::next`] would wait now.
    #[must_use]
    pub fn ceiling(&self) -> Duration {
        let factor = 2_u32.checked_pow(self.tries).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// Records a success: the next wait is short again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// `interval`, longer or shorter by up to `percent` (100 at most) per cent of itself.
#[must_use]
pub fn jitter(interval: Duration, percent: u8, random: u64) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
    let reach = nanos / 100 * u64::from(percent.min(100));
    Duration::from_nanos(nanos - reach + scale(random, 2 * reach + 1))
}

/// The start of timer `index` of `count` timers with one interval, so that all are evenly apart.
#[must_use]
pub fn spread(interval: Duration, index: usize, count: usize) -> Duration {
    let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let index = u32::try_from(index).unwrap_or(u32::MAX) % count;
    (interval / count).saturating_mul(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        // If this fails, a dead backend is probed too often or forgotten.
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        let waits: Vec<u64> = (0..7).map(|_| backoff.next(u64::MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX), SECOND);
    }

    #[test]
    fn jitter_is_full() {
        // If this fails, many waits end in the same instant.
        let mut backoff = Backoff::new(8 * SECOND, 8 * SECOND);
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63).as_millis(), 4_000);
    }

    #[test]
    fn starts_are_evenly_apart() {
        // If this fails, all probes of a pool leave in the same instant.
        let starts: Vec<u128> = (0..4).map(|i| spread(SECOND, i, 4).as_millis()).collect();
        assert_eq!(starts, [0, 250, 500, 750]);
        assert_eq!(spread(SECOND, 0, 0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn waits_stay_under_their_ceiling(
            base in 1_u64..10_000, cap in 1_u64..100_000, randoms: Vec<u64>,
        ) {
            // If this fails, a wait outlasts the operator's bound.
            let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
            let mut backoff = Backoff::new(base, cap);
            for random in randoms {
                let ceiling = backoff.ceiling();
                prop_assert!(ceiling <= cap.max(base));
                prop_assert!(backoff.next(random) <= ceiling);
            }
        }

        #[test]
        fn jitter_stays_within_its_percentage(
            nanos in 0_u64..1 << 60,
            percent in 0_u8..=100,
            random: u64,
        ) {
            // If this fails, an interval drifts away from what was configured.
            let interval = Duration::from_nanos(nanos);
            let got = jitter(interval, percent, random);
            let reach = interval / 100 * u32::from(percent) + Duration::from_nanos(100);
            prop_assert!(got <= interval + reach && got + reach >= interval);
        }
    }
}
