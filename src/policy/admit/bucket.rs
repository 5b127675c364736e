//! One token bucket as one number: GCRA, the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! Instead of tokens and the time of their last refill it keeps the *theoretical arrival time*
//! (TAT): when a client at exactly the rate would come next. A TAT in the past equals a new bucket,
//! so forgetting a quiet client loses nothing. Times are ticks modulo 2^43, to fit a word of a
//! [`table`](crate::policy::table); [`Quota`] is the only place where rates become ticks.

use std::time::Duration;

use super::fraction::Fraction;

/// Width of a stored time.
pub const TIME_BITS: u32 = 43;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// The furthest a full bucket may lie ahead: half the range, so that ahead and behind differ.
const HORIZON_MAX: u128 = 1 << (TIME_BITS - 1);
/// Finest tick: 2^-8 µs. Finer ones would make stored times wrap within hours.
const FINEST_SHIFT: i32 = 8;
/// Coarsest tick: 2^20 µs, about a second. Only bursts worth more than a month need coarse ticks.
const COARSEST_SHIFT: i32 = -20;
/// Clocks of workers, each read once per loop turn, differ by less than this.
pub(super) const SKEW_US: u64 = 4_000_000;

/// A rate and a burst, converted to the ticks in which buckets count.
///
/// A tick is 1 µs. Where the time per admission would be rounded by more than 1/1024 it is a
/// smaller power of two, and where the whole burst would not fit in the range a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Ticks per admission, rounded up: the rate is never exceeded.
    interval: u64,
    /// How far ahead the TAT may lie for one more to be admitted: (burst - 1) intervals.
    tolerance: u64,
    /// Further ahead than this is a leftover of an earlier turn of the modulus: expired.
    plausible: u64,
    /// Ticks per µs as a power of two.
    shift: i32,
    burst: u32,
}

/// How long a refused client has to wait, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Until one more connection is admitted; at least 1.
    pub retry_after_us: u64,
    /// Until the whole budget is back.
    pub full_after_us: u64,
}

impl Quota {
    /// `count` admissions per `period`, and `burst` at once after a quiet time.
    ///
    /// `None` if one of them is zero, the period below 1 µs, or the burst worth over 10^5 years.
    #[must_use]
    pub fn new(count: u64, period: Duration, burst: u32) -> Option<Self> {
        let period_us = period.as_micros();
        if count == 0 || burst == 0 || period_us == 0 || period_us > 1 << 64 {
            return None;
        }
        let exact = (0..FINEST_SHIFT).find(|&shift| {
            let scaled = period_us << shift;
            interval_at(period_us, count, shift) * u128::from(count) - scaled <= scaled >> 10
        });
        let finest = exact.unwrap_or(FINEST_SHIFT);
        let shift = (COARSEST_SHIFT..=finest).rev().find(|&shift| {
            interval_at(period_us, count, shift) * u128::from(burst) <= HORIZON_MAX
        })?;
        let interval = u64::try_from(interval_at(period_us, count, shift)).ok()?;
        let tolerance = interval * u64::from(burst - 1);
        let mut quota = Self { interval, tolerance, plausible: 0, shift, burst };
        quota.plausible = tolerance + interval + quota.ticks(SKEW_US).max(1);
        Some(quota)
    }

    /// Admissions a quiet client may make at once.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// A time in µs, from any fixed start, as ticks.
    #[must_use]
    #[inline]
    pub fn ticks(&self, time_us: u64) -> u64 {
        let ticks = if self.shift >= 0 {
            time_us << self.shift.unsigned_abs()
        } else {
            time_us >> self.shift.unsigned_abs()
        };
        ticks & TIME_MASK
    }

    /// Ticks by which `tat` lies ahead of `now`; 0 when it is past and the bucket as good as new.
    #[must_use]
    #[inline]
    pub fn ahead(&self, tat: u64, now: u64) -> u64 {
        let ahead = tat.wrapping_sub(now) & TIME_MASK;
        if ahead > self.plausible { 0 } else { ahead }
    }

    /// The TAT after one more admission at `now` by a bucket that has this `tat`; a new bucket has
    /// `now`.
    ///
    /// # Errors
    /// The bucket is empty; nothing is to be stored.
    #[inline]
    pub fn ask(&self, tat: u64, now: u64) -> Result<u64, Wait> {
        let ahead = self.ahead(tat, now);
        if ahead <= self.tolerance {
            return Ok((now + ahead + self.interval) & TIME_MASK);
        }
        Err(Wait {
            retry_after_us: self.micros(ahead - self.tolerance),
            full_after_us: self.micros(ahead),
        })
    }

    /// Whether the TATs that `earlier` stored mean the same, and none lies further ahead than this
    /// one's can: the rate is the same and the burst no smaller.
    #[must_use]
    pub fn reads(&self, earlier: &Self) -> bool {
        (self.interval, self.shift) == (earlier.interval, earlier.shift)
            && self.burst >= earlier.burst
    }

    /// What a bucket with this `tat` has used, in admissions.
    pub(super) fn spent(&self, tat: u64, now: u64) -> Fraction {
        Fraction { parts: self.ahead(tat, now), whole: self.interval }
    }

    /// The TAT of a bucket that has used this much, at most all of it.
    pub(super) fn with_spent(&self, admissions: Fraction, now: u64) -> Option<u64> {
        let whole = self.tolerance + self.interval;
        let ahead = admissions.of_rounded_up(self.interval).min(whole);
        (ahead > 0).then_some((now + ahead) & TIME_MASK)
    }

    /// How long, in µs, until a TAT that is past could be read as one that lies ahead.
    pub(super) fn turn_us(&self) -> u64 {
        let ticks = TIME_MASK - self.plausible;
        if self.shift >= 0 {
            // It may be past for a part of a microsecond before that can be seen.
            (ticks >> self.shift.unsigned_abs()).saturating_sub(1)
        } else {
            ticks << self.shift.unsigned_abs()
        }
    }

    /// The TAT without one admission; `None` when the bucket is as good as new.
    #[must_use]
    pub fn give_back(&self, tat: u64, now: u64) -> Option<u64> {
        let left = self.ahead(tat, now).checked_sub(self.interval)?;
        Some((now + left) & TIME_MASK)
    }

    /// Ticks as µs, rounded up.
    fn micros(&self, ticks: u64) -> u64 {
        if self.shift >= 0 {
            ticks.div_ceil(1 << self.shift.unsigned_abs())
        } else {
            ticks << self.shift.unsigned_abs()
        }
    }
}

/// Time per admission in ticks of 2^-shift µs, rounded up.
fn interval_at(period_us: u128, count: u64, shift: i32) -> u128 {
    if shift >= 0 {
        (period_us << shift.unsigned_abs()).div_ceil(u128::from(count))
    } else {
        period_us.div_ceil(u128::from(count) << shift.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    /// The times out of `asks_us` (ascending) at which one bucket admits.
    fn admitted(quota: &Quota, asks_us: &[u64]) -> Vec<u64> {
        let mut tat = None;
        let mut times = Vec::new();
        for &at in asks_us {
            let now = quota.ticks(at);
            if let Ok(new_tat) = quota.ask(tat.unwrap_or(now), now) {
                tat = Some(new_tat);
                times.push(at);
            }
        }
        times
    }

    #[test]
    fn the_conversion_is_exact_where_it_can_be() {
        // If this fails, the configured rate is not the rate that is enforced.
        let parts = |count, period, burst| {
            let quota = Quota::new(count, period, burst).unwrap();
            (quota.interval, quota.shift)
        };
        assert_eq!(parts(100, SECOND, 100), (10_000, 0));
        assert_eq!(parts(1_000_000, SECOND, 100), (1, 0));
        assert_eq!(parts(3, SECOND, 3), (333_334, 0));
        assert_eq!(parts(3_000, SECOND, 10), (667, 1));
        assert_eq!(parts(300_000, SECOND, 10), (427, 7));
        assert_eq!(parts(1, DAY, 1), (86_400_000_000, 0));
        assert_eq!(parts(1, DAY, 1_000), (86_400_000_000_u64.div_ceil(32), -5));
    }

    #[test]
    fn nothing_per_time_is_no_quota() {
        // If this fails, a zero from somewhere divides, or admits every client.
        assert_eq!(Quota::new(0, SECOND, 1), None);
        assert_eq!(Quota::new(1, Duration::ZERO, 1), None);
        assert_eq!(Quota::new(1, SECOND, 0), None);
    }

    #[test]
    fn a_quiet_client_gets_its_burst_and_then_the_rate() {
        // If this fails, the example in the manual is wrong.
        let quota = Quota::new(10, SECOND, 3).unwrap();
        let asks: Vec<u64> = (0..1_000).map(|ms| 5_000_000 + ms * 1_000).collect();
        let times: Vec<u64> =
            admitted(&quota, &asks).iter().map(|at| (at - 5_000_000) / 1_000).collect();
        assert_eq!(times.len(), 1 + 1 + 1 + 9);
        assert_eq!(&times[..5], [0, 1, 2, 100, 200]);
    }

    #[test]
    fn refusals_say_when() {
        // If this fails, Retry-After sends the client back too early, or keeps it away.
        let quota = Quota::new(10, SECOND, 2).unwrap();
        let now = quota.ticks(1_000);
        let full = (now + 200_000) & TIME_MASK;
        let wait = Wait { retry_after_us: 100_000, full_after_us: 200_000 };
        assert_eq!(quota.ask(full, now), Err(wait));
    }

    #[test]
    fn a_worker_with_an_older_clock_does_not_refill_the_bucket() {
        // If this fails, a full bucket looks expired to a worker whose clock is a little behind.
        let quota = Quota::new(10, SECOND, 2).unwrap();
        let full = quota.ticks(1_000_000 + 200_000);
        for behind_us in [0, 1, 1_000, 3_999_999] {
            let now = quota.ticks(1_000_000).wrapping_sub(behind_us) & TIME_MASK;
            assert!(quota.ask(full, now).is_err(), "{behind_us}");
        }
    }

    #[test]
    fn an_admission_given_back_leaves_the_bucket_as_it_was() {
        // If this fails, a client pays for what the listener's rate refused, or gains by it.
        let quota = Quota::new(10, SECOND, 3).unwrap();
        for (now, tat) in [(5_000, 5_000), (5_000, 105_000), (TIME_MASK, TIME_MASK)] {
            let Ok(new_tat) = quota.ask(tat, now) else { panic!() };
            assert_eq!(quota.give_back(new_tat, now), Some(tat));
        }
        assert_eq!(quota.give_back(4_000, 5_000), None);
    }

    #[test]
    fn time_may_wrap() {
        // If this fails, clients are refused for months after the stored time has wrapped.
        let quota = Quota::new(10, SECOND, 1).unwrap();
        let before = TIME_MASK - 10;
        let Ok(new_tat) = quota.ask(before, before) else { panic!() };
        assert_eq!(new_tat, 100_000 - 11);
        assert!(quota.ask(new_tat, before + 1).is_err());
        assert!(quota.ask(new_tat, new_tat).is_ok());
        let month_later = quota.ticks(30 * 86_400_000_000);
        assert!(quota.ask(new_tat, month_later).is_ok());
        let half_a_turn_later = new_tat + (1 << (TIME_BITS - 1));
        assert!(quota.ask(new_tat, half_a_turn_later).is_ok());
    }

    fn any_quota() -> impl Strategy<Value = (u64, u64, u32)> {
        (1_u64..2_000_000, prop::sample::select(vec![1_u64, 60, 3_600, 86_400]), 1_u32..2_000)
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_rate_and_burst(
            (count, period_s, burst) in any_quota(),
            gaps in prop::collection::vec(0_u64..3_000, 1..400),
            pace in 0_u64..1_000,
        ) {
            // If this fails, a client gets more than its limit over some window.
            let quota = Quota::new(count, Duration::from_secs(period_s), burst).unwrap();
            let step = period_s * 1_000_000 * pace / 1_000 / count;
            let mut at = 77_000_000;
            let mut later = |gap: &u64| {
                at += gap * (step + 1) / 1_000;
                at
            };
            let asks: Vec<u64> = gaps.iter().map(&mut later).collect();
            let times = admitted(&quota, &asks);
            // Exact: (n - burst) * period <= window * count; a coarse tick may add itself.
            let tick_us = 1_u128 << quota.shift.min(0).unsigned_abs();
            for (start, &from) in times.iter().enumerate() {
                for (end, &to) in times.iter().enumerate().skip(start) {
                    let over = (end - start + 1).saturating_sub(burst as usize) as u128;
                    let window = u128::from(to - from) + tick_us - 1;
                    let allowed = window * u128::from(count);
                    prop_assert!(over * u128::from(period_s) * 1_000_000 <= allowed);
                }
            }
        }

        #[test]
        fn below_the_rate_is_never_refused(
            (count, period_s, burst) in any_quota(), asks in 1_usize..300,
        ) {
            // If this fails, a client within its limit is turned away.
            let quota = Quota::new(count, Duration::from_secs(period_s), burst).unwrap();
            // A per mille slower than the rate: what rounding the interval may cost at most.
            let gap_us = (period_s * 1_001_000).div_ceil(count) + 1;
            let times: Vec<u64> = (0..asks as u64).map(|n| 9_000_000 + n * gap_us).collect();
            prop_assert_eq!(admitted(&quota, &times).len(), asks);
        }

        #[test]
        fn a_quiet_client_always_has_its_whole_burst(
            (count, period_s, burst) in any_quota(), start_us in 0_u64..1 << 50,
        ) {
            // If this fails, the configured burst cannot be used.
            let quota = Quota::new(count, Duration::from_secs(period_s), burst).unwrap();
            let asks = vec![start_us; burst as usize + 1];
            prop_assert_eq!(admitted(&quota, &asks).len(), burst as usize);
        }

        #[test]
        fn every_rate_has_a_conversion(count: u64, seconds in 1_u64..=86_400, burst: u32) {
            // If this fails, a valid configuration cannot be enforced.
            prop_assume!(count > 0 && burst > 0);
            let quota = Quota::new(count, Duration::from_secs(seconds), burst);
            prop_assert!(quota.is_some());
            prop_assert!(quota.unwrap().plausible < 1 << TIME_BITS);
        }
    }
}
