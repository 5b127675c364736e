//! Random choice by weight: of one backend, or of two of which the freer serves.
//!
//! Two random choices come close to least-connections without all workers looking at the same
//! counter, so that several workers, or several balancers, do not rush at the backend that was
//! emptiest a moment ago (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
//! 2001). One random choice needs no memory at all.

use super::hash::scale;

/// A member of a pair that was drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    /// Its open sessions.
    pub(super) sessions: u32,
    /// What its sessions are counted against: its weight, or what that is worth.
    pub(super) weight: u64,
}

impl Drawn {
    /// Whether it has less than one session of the other's above what the other has for its weight.
    /// No product is above 2^97.
    pub(super) fn has_room(self, other: Self) -> bool {
        u128::from(self.sessions) * u128::from(other.weight)
            < (u128::from(other.sessions) + 1) * u128::from(self.weight)
    }

    /// Whether it keeps a session for which it was drawn first, and `second` next.
    ///
    /// It does when it has no more sessions for its weight than the second, and does not when it
    /// has one session of the second's more. In between, which only different weights allow, the
    /// chance falls along a line, so that the excess is right on average. `chance` is uniform over
    /// `u64`. No product is above 2^97.
    pub(super) fn keeps(self, second: Self, chance: u64) -> bool {
        let mine = u128::from(self.sessions) * u128::from(second.weight);
        let its = u128::from(second.sessions) * u128::from(self.weight);
        let Some(excess) = mine.checked_sub(its) else { return true };
        match u128::from(self.weight).checked_sub(excess) {
            None | Some(0) => false,
            // Below 2^64 by its type, so nothing is lost.
            Some(left) => scale(chance, self.weight) < u64::try_from(left).unwrap_or(u64::MAX),
        }
    }
}

/// An eligible member, with chances in proportion to the weights; weight 0 is never picked.
///
/// Members are the indexes of `weights` up to 65,535; `random` is uniform over `u64`.
pub fn pick(weights: &[u32], mut eligible: impl FnMut(u16) -> bool, random: u64) -> Option<u16> {
    let candidates = || (0..=u16::MAX).zip(weights).filter(|(_, weight)| **weight > 0);
    let total: u64 = candidates()
        .filter(|(member, _)| eligible(*member))
        .map(|(_, weight)| u64::from(*weight))
        .sum();
    // Eligibility may change between the two passes; the last eligible member then serves.
    let mut left = scale(random, total);
    let mut last = None;
    for (member, &weight) in candidates() {
        if !eligible(member) {
            continue;
        }
        last = Some(member);
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => break,
        }
    }
    last
}

/// Two different eligible members, drawn one after the other as [`pick`] does; the second is
/// `None` when there is only one.
///
/// `random` holds two numbers, each uniform over `u64`.
pub(super) fn draw_two(
    weights: &[u32],
    mut eligible: impl FnMut(u16) -> bool,
    random: [u64; 2],
) -> Option<(u16, Option<u16>)> {
    let [random_first, random_second] = random;
    let first = pick(weights, &mut eligible, random_first)?;
    let second = pick(weights, |member| member != first && eligible(member), random_second);
    Some((first, second))
}

/// Draws two different eligible members as [`pick`] does and takes the first, unless the second has
/// fewer sessions for its weight.
///
/// The weights are in the draw, so at equal loads (none at all, too) the first serves and each
/// member gets its share; the comparison only corrects what is out of proportion. `random` holds
/// three numbers, each uniform over `u64`.
pub fn pick_two(
    weights: &[u32],
    load: impl Fn(u16) -> u32,
    eligible: impl FnMut(u16) -> bool,
    random: [u64; 3],
) -> Option<u16> {
    let [random_first, random_second, chance] = random;
    let (first, second) = draw_two(weights, eligible, [random_first, random_second])?;
    let drawn = |member: u16| {
        let weight = weights.get(usize::from(member)).copied().unwrap_or_default();
        Drawn { sessions: load(member), weight: u64::from(weight) }
    };
    match second {
        Some(second) if !drawn(first).keeps(drawn(second), chance) => Some(second),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balance::shares::{Closed, assert_close, assert_shares};
    use proptest::prelude::*;

    fn shares(mut choose: impl FnMut(&mut fastrand::Rng) -> u16) -> [u32; 4] {
        let mut random = fastrand::Rng::with_seed(7);
        let mut seen = [0; 4];
        for _ in 0..60_000 {
            seen[usize::from(choose(&mut random))] += 1;
        }
        seen
    }

    #[test]
    fn chances_follow_the_weights() {
        // If this fails, a heavy backend gets too few clients, or a drained one some.
        let seen = shares(|random| pick(&[1, 2, 3, 9], |m| m != 3, random.u64(..)).unwrap());
        for (member, share) in [10_000, 20_000, 30_000, 0].into_iter().enumerate() {
            assert!(seen[member].abs_diff(share) < 600, "{seen:?}");
        }
    }

    #[test]
    fn the_freer_of_two_serves() {
        // If this fails, the busiest backend still gets new clients while others are freer.
        let loads = [9, 4, 4, 0];
        let load = |m: u16| loads[usize::from(m)];
        let seen = shares(|random| pick_two(&[1; 4], load, |_| true, three(random)).unwrap());
        assert_eq!(seen[0], 0, "every other backend is freer");
        // Half of all pairs of four contain the idle one.
        assert!(seen[3].abs_diff(30_000) < 600, "{seen:?}");
    }

    #[test]
    fn weight_makes_up_for_load() {
        // If this fails, a backend of weight 4 is passed over for one of weight 1 with one session.
        let load = |m: u16| [3, 1][usize::from(m)];
        for draw in 0..64_u64 {
            let random = [draw << 58, 0, u64::MAX];
            assert_eq!(pick_two(&[4, 1], load, |_| true, random), Some(0));
        }
    }

    #[test]
    fn weights_hold_at_equal_loads() {
        // If this fails, the weights count twice: in the draw and in the comparison.
        let weights = [10, 10, 11, 1];
        for load in [0, 1, 100] {
            let mut random = fastrand::Rng::with_seed(9);
            let mut numbers = || three(&mut random);
            let sessions = |m: u16| load * weights[usize::from(m)];
            let of_two = Closed::new(0, 4)
                .shares(|_| pick_two(&weights, sessions, |_| true, numbers()).unwrap());
            assert_shares(&of_two, &weights, &format!("{load} sessions for each weight"));
            let one = Closed::new(0, 4).shares(|_| pick(&weights, |_| true, numbers()[0]).unwrap());
            assert_shares(&one, &weights, "one drawn");
        }
    }

    #[test]
    fn weights_hold_at_every_load() {
        // If this fails, a few open sessions are enough to give the heaviest, or the lightest, most
        // of the clients. Without a memory it cannot be exact: one in six is what is left.
        let mut random = fastrand::Rng::with_seed(11);
        for open in [0, 1, 2, 5, 10, 100] {
            for (weights, per_cent) in
                [(&[10, 10, 11][..], 2), (&[1; 5], 2), (&[1, 2, 3], 12), (&[256, 256, 64], 25)]
            {
                let seen = Closed::new(open, weights.len()).shares(|loads| {
                    let load = |m: u16| loads[usize::from(m)];
                    pick_two(weights, load, |_| true, three(&mut random)).unwrap()
                });
                assert_close(&seen, weights, per_cent);
            }
        }
    }

    fn three(random: &mut fastrand::Rng) -> [u64; 3] {
        [random.u64(..), random.u64(..), random.u64(..)]
    }

    #[test]
    fn extremes_do_not_overflow() {
        // If this fails, the largest weights wrap around and a backend is never chosen.
        let weights = [u32::MAX; 3];
        assert_eq!(pick(&weights, |_| true, 0), Some(0));
        assert_eq!(pick(&weights, |_| true, u64::MAX), Some(2));
        assert_eq!(pick(&[], |_| true, 1), None);
        assert_eq!(pick_two(&[0, 7], |_| u32::MAX, |_| true, [1; 3]), Some(1), "only one is there");
    }

    proptest! {
        #[test]
        fn only_the_eligible_serve(
            members in prop::collection::vec((0_u32..4, 0_u32..9, any::<bool>()), 0..12),
            random: [u64; 3],
        ) {
            // If this fails, a backend that is down is chosen, or none while one could serve.
            let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
            let of = |m: u16| members[usize::from(m)];
            let can = |m: u16| of(m).0 > 0 && of(m).2;
            let count = (0..u16::try_from(members.len()).unwrap()).filter(|m| can(*m)).count();
            let one = pick(&weights, |m| of(m).2, random[0]);
            let of_two = pick_two(&weights, |m| of(m).1, |m| of(m).2, random);
            for chosen in [one, of_two] {
                prop_assert_eq!(chosen.is_some(), count > 0);
                prop_assert!(chosen.is_none_or(can));
            }
        }
    }
}
