//! Random choice by weight: of one backend, or of two of which the freer serves.
//!
//! Two random choices come close to least-connections without all workers looking at the same
//! counter, so that several workers, or several balancers, do not rush at the backend that was
//! emptiest a moment ago (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
//! 2001). One random choice needs no memory at all.

use super::hash::scale;
use super::least_connections::Candidate;

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

/// Draws two different eligible members as [`pick`] does and takes the one with the lower
/// (load + 1) / weight, the first drawn if they are equal.
///
/// `random` holds two numbers, each uniform over `u64`.
pub fn pick_two(
    weights: &[u32],
    load: impl Fn(u16) -> u32,
    mut eligible: impl FnMut(u16) -> bool,
    random: [u64; 2],
) -> Option<u16> {
    let [random_first, random_second] = random;
    let first = pick(weights, &mut eligible, random_first)?;
    let second = pick(weights, |member| member != first && eligible(member), random_second);
    let candidate = |member: u16| {
        let weight = weights.get(usize::from(member)).copied().unwrap_or_default();
        Candidate::new(member, load(member), weight)
    };
    match second {
        Some(second) if candidate(second).compare(candidate(first)).is_lt() => Some(second),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let seen = shares(|random| {
            pick_two(&[1; 4], load, |_| true, [random.u64(..), random.u64(..)]).unwrap()
        });
        assert_eq!(seen[0], 0, "every other backend is freer");
        // Half of all pairs of four contain the idle one.
        assert!(seen[3].abs_diff(30_000) < 600, "{seen:?}");
    }

    #[test]
    fn weight_makes_up_for_load() {
        // If this fails, a backend of weight 4 is passed over for one of weight 1 with one session.
        let load = |m: u16| [3, 1][usize::from(m)];
        for random in 0..64_u64 {
            let random = [random << 58, 0];
            assert_eq!(pick_two(&[4, 1], load, |_| true, random), Some(0));
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        // If this fails, the largest weights wrap around and a backend is never chosen.
        let weights = [u32::MAX; 3];
        assert_eq!(pick(&weights, |_| true, 0), Some(0));
        assert_eq!(pick(&weights, |_| true, u64::MAX), Some(2));
        assert_eq!(pick(&[], |_| true, 1), None);
        assert_eq!(pick_two(&[0, 7], |_| u32::MAX, |_| true, [1, 1]), Some(1), "only one is there");
    }

    proptest! {
        #[test]
        fn only_the_eligible_serve(
            members in prop::collection::vec((0_u32..4, 0_u32..9, any::<bool>()), 0..12),
            random: [u64; 2],
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
