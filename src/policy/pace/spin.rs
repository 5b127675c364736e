//! Whether to wait busily before sleeping: only while recent waits were short.
//!
//! A wait that ends within the spin costs no wake-up of a sleeping thread, which is most of the
//! delay of one quiet client. A wait that does not is wasted from beginning to end. So a worker
//! spins while a moving average of its recent waits is about as short as its spin, and an idle one,
//! or one that works now and then, sleeps at once.

use std::time::Duration;

/// One wait counts for an eighth.
const SMOOTHING: u64 = 8;
/// Spinning is worthwhile while waits last at most this many spins: one that ends by a wake-up
/// lasts longer than it would have if it had been spun through.
const WORTH: u64 = 2;
/// A longer wait counts as this number of spins: an idle hour is forgotten as fast as an idle
/// second.
const LONGEST: u64 = 16;

/// What recent waits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spin {
    most_us: u64,
    average_us: u64,
}

impl Spin {
    /// Spins for at most `most`; zero is never. Begins as if idle.
    #[must_use]
    pub fn new(most: Duration) -> Self {
        let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX / LONGEST);
        let most_us = most_us.min(u64::MAX / (LONGEST * SMOOTHING));
        Self { most_us, average_us: most_us * LONGEST }
    }

    /// Whether it never spins.
    #[must_use]
    #[inline]
    pub fn is_off(&self) -> bool {
        self.most_us == 0
    }

    /// How long to spin in the wait that begins now; zero is not at all.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let is_worthwhile = self.average_us <= WORTH * self.most_us;
        Duration::from_micros(if is_worthwhile { self.most_us } else { 0 })
    }

    /// Learns from a wait that is over.
    pub fn learn(&mut self, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let counted_us = waited_us.min(LONGEST * self.most_us);
        self.average_us = (self.average_us * (SMOOTHING - 1) + counted_us) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPIN: Duration = Duration::from_micros(50);

    /// Waits until it is of the other mind.
    fn waits_until(spin: &mut Spin, waited: Duration, spins: bool) -> Option<usize> {
        (0..100).find(|_| {
            spin.learn(waited);
            spin.patience().is_zero() != spins
        })
    }

    #[test]
    fn short_waits_start_it_and_long_ones_end_it() {
        // If this fails, a busy client waits for wake-ups, or an idle process burns a core.
        let mut spin = Spin::new(SPIN);
        assert!(spin.patience().is_zero());
        assert!(waits_until(&mut spin, Duration::from_micros(60), true).is_some());
        assert_eq!(spin.patience(), SPIN);
        let wasted = waits_until(&mut spin, Duration::from_secs(1), false);
        assert!(wasted.is_some_and(|waits| waits < 3), "{wasted:?}");
        // A client that asks every millisecond and is served at once: half of the waits are long.
        for round in 0..1_000 {
            let waited = if round % 2 == 0 { 40 } else { 900 };
            spin.learn(Duration::from_micros(waited));
            assert!(spin.patience().is_zero());
        }
    }

    #[test]
    fn off_is_off() {
        // If this fails, the default costs CPU time.
        let mut spin = Spin::new(Duration::ZERO);
        spin.learn(Duration::ZERO);
        assert!(spin.is_off() && spin.patience().is_zero());
    }

    proptest! {
        #[test]
        fn it_never_waits_longer_than_asked(
            most_us: u64, waits in prop::collection::vec(any::<u64>(), 0..50),
        ) {
            // If this fails, some setting makes a worker spin for good, or panics it.
            let most = Duration::from_micros(most_us);
            let mut spin = Spin::new(most);
            for waited in waits {
                spin.learn(Duration::from_micros(waited));
                prop_assert!(spin.patience() <= most);
            }
            // Whatever was before, idleness ends it.
            for _ in 0..40 {
                spin.learn(Duration::MAX);
            }
            prop_assert!(spin.patience().is_zero());
        }
    }
}
