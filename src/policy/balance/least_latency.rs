//! Least latency: of two backends drawn by chance, the one where a session would wait less.
//!
//! A backend's share of the sessions is its weight divided by the time it takes to connect to it,
//! and of two that have room the faster serves. The time is a moving average that follows a peak at
//! once and comes down slowly ("peak EWMA", as in Finagle's and Linkerd's balancers): a backend
//! that stumbles is avoided from the first slow connect on, and tried again as the memory of it
//! fades. The average and the moment it is of are one word, so that all workers share it without a
//! lock.

use std::time::Duration;

use super::hash::scale;
use super::random::{self, Drawn};

/// One tick of the average's clock: 2^16 µs, about 66 ms. 32 bits of ticks last 8 years.
const TICK_SHIFT: u32 = 16;
/// Ticks by which the clock of one worker may be behind another's: over an hour. A time that seems
/// to lie further ahead is an old one: else it would not fade from the middle of the round on.
const BEHIND_MAX: u32 = 1 << 16;
/// Ticks in which what is left of an older time halves: about 7 s, a time constant of 10 s.
const HALF_LIFE: u32 = 107;
/// Times are kept in sixteenths of a microsecond: what fades in one tick must not round to nothing.
const FRACTION_BITS: u32 = 4;

/// A moving average of times and the tick it is of; 0 is none yet.
///
/// Layout: time in 1/16 µs (32 bits, at most 268 s) | tick (32 bits).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency(u64);

impl Latency {
    /// As it is stored.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// To be stored.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    fn new(time: u32, tick: u32) -> Self {
        Self(u64::from(time) << 32 | u64::from(tick))
    }

    fn time(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    fn tick(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    /// Takes in one time, in microseconds, that was measured at `now_us`. A longer one counts at
    /// once; a shorter one as much as time has passed. Of several in one tick the longest counts.
    #[must_use]
    pub fn observe(self, elapsed_us: u64, now_us: u64) -> Self {
        let fine = elapsed_us.max(1).saturating_mul(1 << FRACTION_BITS);
        let seen = u32::try_from(fine).unwrap_or(u32::MAX);
        let now = tick_of(now_us);
        let rest = self.time().checked_sub(seen).map_or(0, |above| fade(above, self.age(now)));
        Self::new(seen + rest, now)
    }

    /// The average at `now_us`, in sixteenths of a microsecond, fading while nothing is measured;
    /// `None` before the first time.
    #[must_use]
    pub fn cost(self, now_us: u64) -> Option<u32> {
        let known = self.time();
        (known > 0).then(|| fade(known, self.age(tick_of(now_us))).max(1))
    }

    /// The average at `now_us`; zero before the first time.
    #[must_use]
    pub fn time_at(self, now_us: u64) -> Duration {
        let cost = u64::from(self.cost(now_us).unwrap_or(0));
        Duration::from_nanos((cost * 1_000) >> FRACTION_BITS)
    }

    /// Ticks since it was changed; 0 when `now` is of a clock that is behind the one that changed
    /// it.
    fn age(self, now: u32) -> u32 {
        let age = now.wrapping_sub(self.tick());
        if age > u32::MAX - BEHIND_MAX { 0 } else { age }
    }
}

fn tick_of(now_us: u64) -> u32 {
    u32::try_from(now_us >> TICK_SHIFT & u64::from(u32::MAX)).unwrap_or(0)
}

/// What is left of `value` after `ticks`: halved with every half-life, and in between along the
/// parabola that begins as steeply as the exponential.
fn fade(value: u32, ticks: u32) -> u32 {
    /// Thousandths of a half-life's loss: 1 - 2^-x is about 0.693 x - 0.193 x².
    const STEEP: u64 = 693;
    const BEND: u64 = 193;
    let half_life = u64::from(HALF_LIFE);
    let halved = value.checked_shr(ticks / HALF_LIFE).unwrap_or(0);
    let within = u64::from(ticks % HALF_LIFE);
    let loss = within * (STEEP * half_life - BEND * within);
    // Rounded up, so that it comes to an end; below 2^32 * 2^7 * 2^17.
    let lost = (u64::from(halved) * loss).div_ceil(1_000 * half_life * half_life);
    halved - u32::try_from(lost).unwrap_or(halved)
}

/// What one backend carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burden {
    /// Its sessions.
    pub sessions: u32,
    /// [`Latency::cost`].
    pub cost: Option<u32>,
}

/// From this ratio of costs on, the slower one gets nothing while the faster has room.
const FAR: u64 = 2;

/// Draws two different eligible members by weight and takes the first, unless it has more sessions
/// than its share of theirs, by weight / cost, or is slower than a second that has room.
///
/// The weights are in the draw, so members that cost the same get their shares at any load. One
/// that costs a tenth more than the other loses a fifth of its turns to it, one that costs twice as
/// much all of them: handshakes of equal servers differ by some per cent from one to the next, and
/// that must not outweigh the weights. A backend that was never measured counts as fast as the
/// other one. Members are the indexes of `weights` up to 65,535; `random` holds three numbers, each
/// uniform over `u64`.
pub fn pick(
    weights: &[u32],
    burden: impl Fn(u16) -> Burden,
    eligible: impl FnMut(u16) -> bool,
    random: [u64; 3],
) -> Option<u16> {
    let [random_first, random_second, chance] = random;
    let (first, second) = random::draw_two(weights, eligible, [random_first, random_second])?;
    let Some(second) = second else { return Some(first) };
    let (one, other) = (burden(first), burden(second));
    let cost = u64::from(one.cost.or(other.cost).unwrap_or(1));
    let other_cost = other.cost.map_or(cost, u64::from);
    let weight = |member: u16| weights.get(usize::from(member)).copied().unwrap_or_default();
    // Weight / cost of each, times both costs; below 2^64, as each factor is below 2^32.
    let one = Drawn { sessions: one.sessions, weight: u64::from(weight(first)) * other_cost };
    let other = Drawn { sessions: other.sessions, weight: u64::from(weight(second)) * cost };
    let may_keep =
        if FAR * cost <= other_cost { one.has_room(other) } else { one.keeps(other, chance) };
    let is_fast = cost <= other_cost || cost + scale(chance, cost) < FAR * other_cost;
    Some(if may_keep && (is_fast || !other.has_room(one)) { first } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balance::shares::{Closed, assert_close, assert_shares};
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    fn cost_us(latency: Latency, now_us: u64) -> u32 {
        latency.cost(now_us).unwrap() >> FRACTION_BITS
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        // If this fails, a backend that stumbles gets clients as before, or never again.
        let mut latency = Latency::default();
        assert_eq!(latency.cost(0), None);
        for at in 0..100 {
            latency = latency.observe(1_000, at * SECOND);
        }
        assert_eq!(cost_us(latency, 99 * SECOND), 1_000);
        latency = latency.observe(50_000, 100 * SECOND);
        assert_eq!(cost_us(latency, 100 * SECOND), 50_000);
        for at in 0..7 * 1_000 {
            latency = latency.observe(1_000, 100 * SECOND + at * 1_000);
        }
        let half = cost_us(latency, 107 * SECOND);
        assert!((23_000..28_000).contains(&half), "{half} after a half-life");
        for at in 0..60 * 1_000 {
            latency = latency.observe(1_000, 107 * SECOND + at * 1_000);
        }
        let settled = cost_us(latency, 167 * SECOND);
        assert!((1_000..1_200).contains(&settled), "{settled} after a minute");
    }

    #[test]
    fn a_backend_that_is_not_asked_is_forgiven() {
        // If this fails, a backend that was slow once is never tried again.
        let latency = Latency::default().observe(3 * SECOND, 10 * SECOND);
        let later = |seconds: u64| cost_us(latency, (10 + seconds) * SECOND);
        assert_eq!(later(0), 3_000_000);
        assert!(later(7) < 1_700_000 && later(7) > 1_300_000, "{}", later(7));
        assert!(later(100) < 300, "{}", later(100));
        assert_eq!(latency.cost(10_000 * SECOND), Some(1));
    }

    #[test]
    fn weight_latency_and_sessions_count() {
        // If this fails, slow backends, or busy ones, get the clients.
        let burden = |cost, sessions| Burden { sessions, cost };
        let choose = |weights: [u32; 2], burdens: [Burden; 2]| {
            let seen: Vec<u16> = [[0, 0, u64::MAX / 2], [u64::MAX, u64::MAX, u64::MAX / 2]]
                .map(|random| {
                    pick(&weights, |m| burdens[usize::from(m)], |_| true, random).unwrap()
                })
                .to_vec();
            (seen[0] == seen[1]).then_some(seen[0])
        };
        assert_eq!(choose([1, 1], [burden(Some(200), 0), burden(Some(99), 0)]), Some(1));
        assert_eq!(choose([1, 1], [burden(Some(100), 0), burden(Some(99), 0)]), None, "as drawn");
        assert_eq!(choose([1, 1], [burden(Some(100), 0), burden(Some(40), 3)]), Some(0));
        assert_eq!(choose([1, 1], [burden(Some(100), 1), burden(Some(40), 2)]), Some(1));
        assert_eq!(choose([1, 3], [burden(Some(100), 1), burden(Some(100), 1)]), Some(1));
        assert_eq!(choose([1, 1], [burden(None, 3), burden(Some(9_999), 2)]), Some(1));
        assert_eq!(choose([1, 1], [burden(None, 1), burden(None, 0)]), Some(1));
        let most = burden(Some(u32::MAX), u32::MAX);
        assert_eq!(choose([1, u32::MAX], [most, most]), Some(1));
        assert_eq!(choose([1, u32::MAX], [burden(Some(1), u32::MAX), most]), Some(0));
    }

    fn three(random: &mut fastrand::Rng) -> [u64; 3] {
        [random.u64(..), random.u64(..), random.u64(..)]
    }

    #[test]
    fn weights_hold_at_equal_loads() {
        // If this fails, the weights count twice: in the draw and in the comparison.
        let weights = [10, 10, 11, 1];
        let mut random = fastrand::Rng::with_seed(9);
        for load in [0, 1, 100] {
            let burden =
                |m: u16| Burden { sessions: load * weights[usize::from(m)], cost: Some(960) };
            let seen = Closed::new(0, 4)
                .shares(|_| pick(&weights, burden, |_| true, three(&mut random)).unwrap());
            assert_shares(&seen, &weights, &format!("{load} sessions for each weight"));
        }
    }

    #[test]
    fn shares_follow_weight_and_speed_under_load() {
        // If this fails, a backend half as fast is given as much as the others, or nothing.
        let mut random = fastrand::Rng::with_seed(11);
        let costs = [960, 960, 1_920];
        let shares = |open, costs: [u32; 3], random: &mut fastrand::Rng| {
            Closed::new(open, 3).shares(|loads| {
                let at = |m: u16| usize::from(m);
                let burden = |m| Burden { sessions: loads[at(m)], cost: Some(costs[at(m)]) };
                pick(&[10, 10, 20], burden, |_| true, three(random)).unwrap()
            })
        };
        assert_close(&shares(400, costs, &mut random), &[10, 10, 10], 4);
        assert_close(&shares(1, [960; 3], &mut random), &[10, 10, 20], 12);
        assert_close(&shares(1, [960, 990, 970], &mut random), &[10, 10, 20], 20);
        assert_eq!(shares(0, [960, 960, 960_000], &mut random)[2], 0, "far slower than the others");
    }

    proptest! {
        #[test]
        fn a_time_fades_when_the_clock_comes_round_as_at_any_other_moment(
            elapsed_us in 1..3 * SECOND,
            before_round in 0_u32..2_000,
            ages in prop::collection::vec(0..u32::MAX - BEHIND_MAX, 1..20),
        ) {
            // If this fails, a slow backend that was not asked for years counts as slow for years,
            // or one becomes fast, or slow, at the moment at which the clock comes round.
            let round = 1_u64 << (32 + TICK_SHIFT);
            let tick = |number: u32| u64::from(number) << TICK_SHIFT;
            let at_start = Latency::default().observe(elapsed_us, round);
            let at_end = Latency::default().observe(elapsed_us, round - tick(before_round));
            let mut ages = ages;
            ages.sort_unstable();
            let mut last = u32::MAX;
            for age in ages {
                let cost = at_start.cost(round + tick(age));
                prop_assert_eq!(at_end.cost(round - tick(before_round) + tick(age)), cost);
                prop_assert!(cost <= Some(last), "{:?} after {}", cost, last);
                last = cost.unwrap();
            }
            let behind = Latency::default().observe(elapsed_us, round).cost(round - tick(1));
            prop_assert_eq!(behind, at_start.cost(round), "the clock of another worker");
        }

        #[test]
        fn only_eligible_ones_and_always_one_of_them(
            members in prop::collection::vec(
                (0_u32..3, any::<(u32, Option<u32>)>(), any::<bool>()), 0..20,
            ),
            random: [u64; 3],
        ) {
            // If this fails, a backend that is out gets clients, or a good one is not found.
            let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
            let of = |m: u16| members[usize::from(m)];
            let can = |m: &u16| of(*m).0 > 0 && of(*m).2;
            let burden = |m: u16| Burden { sessions: of(m).1.0, cost: of(m).1.1 };
            let any = (0..u16::try_from(members.len()).unwrap()).any(|m| can(&m));
            let chosen = pick(&weights, burden, |m| of(m).2, random);
            prop_assert_eq!(chosen.is_some(), any);
            prop_assert!(chosen.is_none_or(|m| can(&m)));
        }

        #[test]
        fn it_stays_between_what_was_seen_and_the_peak(
            steps in prop::collection::vec((0_u64..400_000_000, 0_u64..20_000_000), 1..60),
        ) {
            // If this fails, an average is lower than anything seen, or outlives its peak.
            let (mut latency, mut now, mut most) = (Latency::default(), 0, 0);
            for (elapsed, pause) in steps {
                now += pause;
                latency = latency.observe(elapsed, now);
                let seen = u32::try_from(elapsed.max(1) << FRACTION_BITS).unwrap_or(u32::MAX);
                most = seen.max(most);
                let cost = latency.cost(now).unwrap();
                prop_assert!((seen..=most).contains(&cost));
                let later = latency.cost(now + 30 * SECOND).unwrap();
                prop_assert!(later <= cost && later > 0);
            }
        }
    }
}
