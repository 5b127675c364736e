//! Whether a worker keeps a new session or hands it to a worker that has clearly fewer.
//!
//! The kernel spreads connections over the workers' sockets by a hash: even in the long run, but a
//! few long sessions (a pool of database connections, say) may all meet on one worker and stay
//! there. A hand-over costs a wake-up of the other worker, a few µs, so it is for sessions that
//! last; what sessions of a listener live for is learned from those that have ended.

use std::time::Duration;

/// Sessions that live this long are worth a hand-over of a few µs.
const LASTING_US: u64 = 1_000_000;
/// What is assumed before any session has ended; some twenty short ones correct it.
const ASSUMED_US: u64 = 10 * LASTING_US;
/// One session counts for an eighth.
const SMOOTHING: u64 = 8;
/// One more session than the other worker is nothing to correct.
const SLACK: u64 = 1;
/// Nor is a sixteenth more of them.
const SHARE: u64 = 16;

/// How long sessions of a listener live: a moving average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    average_us: u64,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self { average_us: ASSUMED_US }
    }
}

impl Lifetime {
    /// Learns from a session that has ended. One of hours counts as a bit longer than lasting, so
    /// that a few of them do not outweigh many short ones for long.
    pub fn learn(&mut self, lived: Duration) {
        let lived_us = u64::try_from(lived.as_micros()).unwrap_or(u64::MAX).min(ASSUMED_US);
        self.average_us = (self.average_us * (SMOOTHING - 1) + lived_us) / SMOOTHING;
    }

    /// Whether a new session will probably last.
    #[must_use]
    pub fn lasts(self) -> bool {
        self.average_us >= LASTING_US
    }
}

/// Whether a worker that has `own` sessions should give a new one to one that has `other`.
#[must_use]
pub fn is_clearly_fewer(other: u64, own: u64) -> bool {
    own > other.saturating_add(SLACK).saturating_add(other / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_sessions_are_recognized_and_long_ones_again() {
        // If this fails, short connections pay for wake-ups, or long ones are never spread.
        let mut life = Lifetime::default();
        assert!(life.lasts());
        let short = (0..100).find(|_| {
            life.learn(Duration::from_millis(2));
            !life.lasts()
        });
        assert!(short.is_some_and(|count| count < 24), "{short:?}");
        let long = (0..100).find(|_| {
            life.learn(Duration::from_secs(3_600));
            life.lasts()
        });
        assert!(long.is_some_and(|count| count < 4), "{long:?}");
        // Now and then a long one among many short ones changes nothing.
        let mut life = Lifetime { average_us: 1_000 };
        for round in 0..1_000 {
            life.learn(if round % 100 == 0 { Duration::MAX } else { Duration::ZERO });
        }
        assert!(!life.lasts());
    }

    #[test]
    fn no_worker_hands_to_one_that_would_hand_it_back() {
        // If this fails, sessions wander between workers.
        for (own, other) in (0..200).flat_map(|own| (0..200).map(move |other| (own, other))) {
            if is_clearly_fewer(other, own) {
                assert!(own > other && !is_clearly_fewer(own, other + 1), "{own} {other}");
            }
        }
        assert!(!is_clearly_fewer(u64::MAX, u64::MAX) && is_clearly_fewer(0, 2));
    }

    proptest! {
        #[test]
        fn long_sessions_spread_evenly(
            workers in 2_usize..9,
            chosen in prop::collection::vec(0_usize..8, 16..1_000),
        ) {
            // If this fails, one worker has far more long sessions than another, however the kernel
            // hashes them. Each looks at two of the others, in turn.
            let mut counts = vec![0_u64; workers];
            for (arrival, hashed) in chosen.iter().enumerate() {
                let own = hashed % workers;
                let other = |step| (own + 1 + (arrival * 2 + step) % (workers - 1)) % workers;
                let others = [1, 2].map(other);
                let least = others.into_iter().min_by_key(|other| counts[*other]).unwrap_or(own);
                let taker = if is_clearly_fewer(counts[least], counts[own]) { least } else { own };
                counts[taker] += 1;
            }
            let most = counts.iter().max().copied().unwrap_or(0);
            let mean = chosen.len().div_ceil(workers) as u64;
            prop_assert!(most <= mean + 2 + mean / 8, "{counts:?}");
        }
    }
}
