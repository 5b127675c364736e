//! How much of a stream may be taken now, so that it never goes faster than its bandwidth.
//!
//! A leaky bucket in one number, as in GCRA (ITU-T I.371, annex A): `clear` is the moment at which
//! everything taken so far is paid for. Bytes are taken in batches, since single ones would cost a
//! system call each, and a session that has used up what it had waits for a whole batch. It begins
//! with one batch, not with more, so there is no burst at the start.

use std::num::NonZeroU64;

/// Bytes a second.
pub type Rate = NonZeroU64;
/// What a session may take from its client and from its backend; `None` is no bound.
pub type Rates = [Option<Rate>; 2];

const NANOS: u64 = 1_000_000_000;
/// A batch is what passes in this part of a second: 20 ms.
const BATCHES_PER_SECOND: u64 = 50;
/// And no less than this: a rate that is slower waits longer instead of sending crumbs.
const BATCH_BYTES_MIN: u64 = 512;
/// Batches that may be caught up when the time to look came late, as timers do.
const LATE_BATCHES: u64 = 2;

/// What one direction of one session has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pacer {
    /// All taken is paid for then; in nanoseconds, as all moments here.
    clear: u64,
    /// Nothing is taken before, since all there was has been used up.
    resumes: u64,
}

impl Pacer {
    /// Nothing taken yet.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { clear: now, resumes: 0 }
    }

    /// When all taken is paid for, and before when nothing is taken; in nanoseconds.
    #[must_use]
    pub const fn parts(&self) -> [u64; 2] {
        [self.clear, self.resumes]
    }

    /// The one with these [`Self::parts`].
    #[must_use]
    pub const fn of_parts(parts: [u64; 2]) -> Self {
        let [clear, resumes] = parts;
        Self { clear, resumes }
    }

    /// Bytes that may be taken now.
    #[must_use]
    pub fn allowance(&self, rate: Rate, now: u64) -> u64 {
        if now < self.resumes {
            return 0;
        }
        let horizon = now.saturating_add(span(batch(rate), rate));
        bytes(horizon.saturating_sub(self.floor(rate, now)), rate)
    }

    /// Counts bytes that were taken.
    pub fn charge(&mut self, rate: Rate, now: u64, taken: u64) {
        self.clear = self.floor(rate, now).saturating_add(span(taken, rate));
    }

    /// More would have been taken: when there is a batch again, which it waits for.
    pub fn wait(&mut self) -> u64 {
        self.resumes = self.clear;
        self.resumes
    }

    /// The moment from which time counts that has not been used.
    fn floor(&self, rate: Rate, now: u64) -> u64 {
        self.clear.max(now.saturating_sub(LATE_BATCHES * span(batch(rate), rate)))
    }
}

/// Bytes that are taken at once.
fn batch(rate: Rate) -> u64 {
    (rate.get() / BATCHES_PER_SECOND).max(BATCH_BYTES_MIN)
}

/// How long `bytes` take; rounded up, so that what was allowed and taken leaves nothing over.
fn span(bytes: u64, rate: Rate) -> u64 {
    let nanos = (u128::from(bytes) * u128::from(NANOS)).div_ceil(u128::from(rate.get()));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// The bytes that pass in a time.
fn bytes(nanos: u64, rate: Rate) -> u64 {
    let bytes = u128::from(nanos) * u128::from(rate.get()) / u128::from(NANOS);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 7_000_000_000;
    /// Nanoseconds passed, eighths of what may be taken, and whether to wait once that is all.
    type Step = (u64, u64, bool);

    /// From 1 KiB/s to 16 GiB/s, slow and fast ones equally often.
    fn rates() -> impl Strategy<Value = Rate> {
        (10_u32..34)
            .prop_flat_map(|power| 1_u64 << power..2 << power)
            .prop_map(|rate| Rate::new(rate).unwrap())
    }

    fn steps() -> impl Strategy<Value = Step> {
        (0..200_000_000_u64, 0..=8_u64, any::<bool>())
    }

    // If this fails, a session gets everything in a burst when it begins.
    #[test]
    fn it_begins_with_one_batch() {
        let rate = Rate::new(1 << 20).unwrap();
        let mut pacer = Pacer::new(START);
        // Parts of a byte are rounded.
        let most = pacer.allowance(rate, START);
        assert!(most.abs_diff((1 << 20) / 50) <= 1, "{most}");
        pacer.charge(rate, START, most);
        assert_eq!(pacer.allowance(rate, START), 0);
        let due = pacer.wait();
        assert!((due - START).abs_diff(20_000_000) < 2_000, "{}", due - START);
        assert_eq!(pacer.allowance(rate, due - 1), 0, "crumbs");
        assert!(pacer.allowance(rate, due).abs_diff((1 << 20) / 50) <= 1);
    }

    proptest! {
        // If this fails, a session goes faster than its bandwidth over some time.
        #[test]
        fn no_time_sees_more_than_its_bandwidth(
            rate in rates(),
            steps in prop::collection::vec(steps(), 1..60),
        ) {
            let (mut pacer, mut now) = (Pacer::new(START), START);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (pause, part, waits) in steps {
                now += pause;
                let most = pacer.allowance(rate, now);
                let amount = most / 8 * part + most % 8 * part / 8;
                pacer.charge(rate, now, amount);
                taken.push((now, amount));
                if amount == most && waits {
                    pacer.wait();
                }
            }
            let slack = (LATE_BATCHES + 1) * (batch(rate) + bytes(1, rate) + 1);
            for from in 0..taken.len() {
                let mut sum = 0;
                for (at, amount) in &taken[from..] {
                    sum += amount;
                    let most = bytes(at - taken[from].0, rate) + slack;
                    prop_assert!(sum <= most, "{sum} of {most}");
                }
            }
        }

        // If this fails, a session with more to say does not get the bandwidth it may have, though
        // its worker looks at it a little late.
        #[test]
        fn a_session_with_more_to_say_gets_all_of_it(rate in rates(), late in 0_u64..36_000_000) {
            let (mut pacer, mut now) = (Pacer::new(START), START);
            let mut sum = 0;
            while now < START + 20 * NANOS {
                let most = pacer.allowance(rate, now);
                prop_assert!(most > 0, "woken in vain");
                pacer.charge(rate, now, most);
                sum += most;
                now = pacer.wait().max(now) + late;
            }
            let wanted = bytes(20 * NANOS, rate);
            let least = wanted - wanted / 50 - 3 * BATCH_BYTES_MIN;
            prop_assert!(sum >= least, "{sum} of {wanted}");
        }
    }
}
