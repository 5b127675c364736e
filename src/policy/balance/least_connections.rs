//! Least connections: the backend with the fewest open sessions for its weight.
//!
//! Compares (load + 1) / weight by cross-multiplication, so that an idle heavy backend comes before
//! an idle light one and nothing is rounded. Ties are broken uniformly at random: workers that see
//! the same counters do not all rush at the same backend. Loads are read once each and may change
//! meanwhile; the choice is then as good as the counters were.

use super::hash::scale;

/// The eligible member with the lowest (load + 1) / weight; weight 0 is never picked.
///
/// Members are the indexes of `weights` up to 65,535; `random` is uniform over `u64`.
pub fn pick(
    weights: &[u32],
    load: impl Fn(u16) -> u32,
    mut eligible: impl FnMut(u16) -> bool,
    random: u64,
) -> Option<u16> {
    let mut best: Option<Candidate> = None;
    let mut ties: u64 = 1;
    for (member, &weight) in (0..=u16::MAX).zip(weights) {
        if weight == 0 || !eligible(member) {
            continue;
        }
        let candidate = Candidate::new(member, load(member), weight);
        match best.map(|held| candidate.compare(held)) {
            None | Some(std::cmp::Ordering::Less) => {
                best = Some(candidate);
                ties = 1;
            }
            Some(std::cmp::Ordering::Equal) => {
                // Reservoir of one: the k-th of equals replaces the held one with chance 1/k.
                ties += 1;
                if scale(stir(random, ties), ties) == 0 {
                    best = Some(candidate);
                }
            }
            Some(std::cmp::Ordering::Greater) => {}
        }
    }
    best.map(|held| held.member)
}

/// A member with what it would carry.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    member: u16,
    /// Sessions, and the one to come.
    load: u64,
    weight: u32,
}

impl Candidate {
    pub(super) fn new(member: u16, sessions: u32, weight: u32) -> Self {
        Self { member, load: u64::from(sessions) + 1, weight }
    }

    /// Orders by load / weight; a product is at most 2^32 * (2^32 - 1).
    pub(super) fn compare(self, other: Self) -> std::cmp::Ordering {
        (self.load * u64::from(other.weight)).cmp(&(other.load * u64::from(self.weight)))
    }
}

/// A further random number for each tie (the mixing of SplitMix64).
fn stir(random: u64, step: u64) -> u64 {
    let mut z = random.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn weight_counts() {
        // If this fails, a backend of weight 3 is not given three times the sessions.
        let weights = [1, 3];
        let mut open = [0_u32; 2];
        for random in 0..400 {
            let member = pick(&weights, |m| open[usize::from(m)], |_| true, random).unwrap();
            open[usize::from(member)] += 1;
        }
        assert_eq!(open, [100, 300]);
    }

    #[test]
    fn ties_are_broken_uniformly() {
        // If this fails, one of several idle backends gets most of the sessions.
        let mut seen = [0_u32; 7];
        let mut random = 1_u64;
        for _ in 0..70_000 {
            random = stir(random, 1);
            let member = pick(&[1; 7], |_| 5, |m| m != 3, random).unwrap();
            seen[usize::from(member)] += 1;
        }
        assert_eq!(seen[3], 0);
        for (member, count) in seen.iter().enumerate().filter(|(member, _)| *member != 3) {
            assert!((11_300..12_040).contains(count), "member {member}: {count}");
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        // If this fails, huge counters or weights wrap around and the busiest wins.
        let loads = [u32::MAX, u32::MAX - 1];
        let load = |m: u16| loads[usize::from(m)];
        assert_eq!(pick(&[u32::MAX, u32::MAX], load, |_| true, 0), Some(1));
        assert_eq!(pick(&[u32::MAX, 1], load, |_| true, 0), Some(0));
        assert_eq!(pick(&[], load, |_| true, 0), None);
    }

    proptest! {
        #[test]
        fn no_eligible_backend_is_less_loaded(
            members in prop::collection::vec((0_u32..5, 0_u32..50, any::<bool>()), 0..20),
            random: u64,
        ) {
            // If this fails, a busier backend is chosen over a freer one.
            let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
            let of = |m: u16| members[usize::from(m)];
            let can = |m: &u16| of(*m).0 > 0 && of(*m).2;
            let all = 0..u16::try_from(members.len()).unwrap();
            match pick(&weights, |m| of(m).1, |m| of(m).2, random) {
                None => prop_assert!(!all.clone().any(|m| can(&m))),
                Some(chosen) => {
                    prop_assert!(can(&chosen));
                    let (weight, load, _) = of(chosen);
                    for other in all.filter(can) {
                        prop_assert!((load + 1) * of(other).0 <= (of(other).1 + 1) * weight);
                    }
                }
            }
        }
    }
}
