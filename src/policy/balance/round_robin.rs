//! Smooth weighted round-robin, nginx's algorithm
//! (<https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1>).
//!
//! Each pick gives every eligible member its weight as credit, takes the one with the most and
//! charges it the sum. Over one cycle each gets exactly its weight, spread as evenly as it goes:
//! 5:1:1 is `aabacaa`, not `aaaaabc`. A skipped member keeps its credit, so the sum of all credits
//! stays 0 and its return causes no burst. State of one worker; O(members), no allocation per pick.

/// Credits that are changed at most to bring a worker's first turn forward: about 0.1 ms.
const STEPS_MAX: u64 = 1 << 16;

/// The turns of one pool's members.
#[derive(Debug, Clone)]
pub struct RoundRobin {
    turns: Box<[WeightedTurn]>,
}

#[derive(Debug, Clone, Copy)]
struct WeightedTurn {
    weight: u32,
    credit: i64,
}

/// A member that takes part in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contender {
    /// Its index in the weights that the turns were built with.
    pub member: u16,
    /// Its weight of the moment.
    pub weight: u32,
    /// Whether this turn may be its own; one that may not earns credit for later.
    pub may_win: bool,
}

impl RoundRobin {
    /// Members are the indexes of `weights`; those of weight 0, or beyond 65,536, are never picked.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let turns = weights.iter().map(|&weight| WeightedTurn { weight, credit: 0 }).collect();
        Self { turns }
    }

    /// These turns after `picks` picks, modulo the length of its cycle: workers that start at
    /// consecutive numbers share a cycle out among their first sessions. Where a cycle times the
    /// number of members is above 65,536, as many of the first turns of the cycle are told
    /// apart as fit.
    #[must_use]
    pub fn starting_at(weights: &[u32], picks: u64) -> Self {
        let mut started = Self::new(weights);
        let cycle: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let apart = STEPS_MAX / (weights.len() as u64).max(1);
        for _ in 0..picks % cycle.min(apart).max(1) {
            started.pick(|_| true);
        }
        started
    }

    /// The member whose turn it is among the eligible ones; `None` when there is none.
    pub fn pick(&mut self, eligible: impl FnMut(u16) -> bool) -> Option<u16> {
        self.pick_by(|_, weight| weight, eligible)
    }

    /// A pick with weights that change from pick to pick; `weight_of` gets a member and the
    /// weight it was built with. A credit is worth the same whatever the weights are by then.
    pub fn pick_by(
        &mut self,
        weight_of: impl Fn(u16, u32) -> u32,
        mut eligible: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let mut total: i64 = 0;
        let mut best: Option<(u16, i64)> = None;
        for (member, turn) in (0..=u16::MAX).zip(&mut self.turns) {
            if turn.weight == 0 || !eligible(member) {
                continue;
            }
            let weight = weight_of(member, turn.weight);
            turn.credit += i64::from(weight);
            total += i64::from(weight);
            if best.is_none_or(|(_, most)| turn.credit > most) {
                best = Some((member, turn.credit));
            }
        }
        self.charge(best?.0, total)
    }

    /// The member whose turn it is among the contenders that may win; `None` when there is none.
    ///
    /// Every contender earns credit, so that one that may not win now catches up later, but none
    /// that has earned a whole session already: a member that cannot win for a long time is owed
    /// one session, no burst. `total` is the sum of the contenders' weights.
    pub fn pick_among(
        &mut self,
        total: u64,
        contenders: impl Iterator<Item = Contender>,
    ) -> Option<u16> {
        let most = i64::try_from(total).unwrap_or(i64::MAX);
        let mut given: i64 = 0;
        let mut best: Option<(u16, i64)> = None;
        for Contender { member, weight, may_win } in contenders {
            let Some(turn) = self.turns.get_mut(usize::from(member)) else { continue };
            if turn.credit < most {
                turn.credit += i64::from(weight);
                given += i64::from(weight);
            }
            if may_win && best.is_none_or(|(_, credit)| turn.credit > credit) {
                best = Some((member, turn.credit));
            }
        }
        self.charge(best?.0, given)
    }

    fn charge(&mut self, member: u16, total: i64) -> Option<u16> {
        self.turns.get_mut(usize::from(member))?.credit -= total;
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn picks(robin: &mut RoundRobin, count: usize) -> Vec<u16> {
        (0..count).map(|_| robin.pick(|_| true).unwrap()).collect()
    }

    #[test]
    fn five_one_one_is_smooth() {
        // If this fails, a heavy backend gets its whole share in one burst.
        let mut robin = RoundRobin::new(&[5, 1, 1]);
        assert_eq!(picks(&mut robin, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn without_eligible_members_there_is_no_pick() {
        // If this fails, a pool without backends, or of weight 0, is given a session.
        assert_eq!(RoundRobin::new(&[]).pick(|_| true), None);
        assert_eq!(RoundRobin::new(&[0, 0]).pick(|_| true), None);
        assert_eq!(RoundRobin::new(&[1, 1]).pick(|_| false), None);
    }

    #[test]
    fn workers_that_start_apart_pick_apart() {
        // If this fails, every worker's first session goes to the same backend.
        let first: Vec<u16> = (0..3)
            .map(|worker| RoundRobin::starting_at(&[1, 1, 1], worker).pick(|_| true).unwrap())
            .collect();
        assert_eq!(first, [0, 1, 2]);
        let first: Vec<u16> = (0..7)
            .map(|worker| RoundRobin::starting_at(&[5, 1, 1], worker).pick(|_| true).unwrap())
            .collect();
        assert_eq!(first, [0, 0, 1, 0, 2, 0, 0], "the first sessions of seven workers");
        let far = RoundRobin::starting_at(&[1; 65_536], u64::MAX).pick(|_| true);
        assert!(far.is_some(), "the largest pool");
    }

    #[test]
    fn a_member_that_may_not_win_is_owed_one_session() {
        // If this fails, a backend that was busy for an hour is then given a burst, or nothing.
        let mut robin = RoundRobin::new(&[1, 1, 2]);
        let weights = [1, 1, 2];
        let mut turn = |busy: Option<u16>| {
            let contenders = (0..3).zip(weights).map(|(member, weight)| Contender {
                member,
                weight,
                may_win: busy != Some(member),
            });
            robin.pick_among(4, contenders).unwrap()
        };
        for _ in 0..1_000 {
            assert_ne!(turn(Some(2)), 2);
        }
        let back: Vec<u16> = (0..8).map(|_| turn(None)).collect();
        let share = back.iter().filter(|member| **member == 2).count();
        assert!((4..=6).contains(&share), "{back:?}");
        assert_eq!(robin.pick_among(0, std::iter::empty()), None);
    }

    #[test]
    fn a_member_that_grows_gets_its_part_and_no_burst() {
        // If this fails, a backend that warms up is given all or nothing, or what it missed later.
        let mut robin = RoundRobin::new(&[1, 1, 1]);
        let picks_at = |robin: &mut RoundRobin, share: u32, count: u32| {
            let weight = |member: u16, weight: u32| weight * if member == 1 { share } else { 256 };
            (0..count).filter(|_| robin.pick_by(weight, |_| true) == Some(1)).count()
        };
        assert_eq!(picks_at(&mut robin, 64, 90), 10);
        assert_eq!(picks_at(&mut robin, 128, 100), 20);
        assert_eq!(picks_at(&mut robin, 256, 99), 33);
    }

    #[test]
    fn a_member_that_returns_gets_no_burst() {
        // If this fails, a backend that comes back is hit by all it missed.
        for away in 1..200 {
            let mut robin = RoundRobin::new(&[3, 2, 5, 1]);
            picks(&mut robin, away % 11);
            for _ in 0..away {
                assert_ne!(robin.pick(|member| member != 2), Some(2));
            }
            let back = picks(&mut robin, 11);
            let share = back.iter().filter(|member| **member == 2).count();
            assert!((4..=6).contains(&share), "{share} of 11 after {away} picks without it");
        }
    }

    proptest! {
        #[test]
        fn a_cycle_is_exact_and_every_prefix_close(
            weights in prop::collection::vec(0_u32..20, 1..12), first: u64,
        ) {
            // If this fails, backends do not get their configured share.
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let members = i64::try_from(weights.len()).unwrap();
            let mut robin = RoundRobin::starting_at(&weights, first);
            let mut seen = vec![0_i64; weights.len()];
            for done in 1..=i64::from(total) * 2 {
                let member = robin.pick(|_| true).unwrap();
                seen[usize::from(member)] += 1;
                for (count, weight) in seen.iter().zip(&weights) {
                    // |count - done * weight / total|, times total: less than one pick per member.
                    let off = (count * i64::from(total) - done * i64::from(*weight)).abs();
                    prop_assert!(off < i64::from(total) * members);
                }
                if done % i64::from(total) == 0 {
                    let cycles = done / i64::from(total);
                    for (count, weight) in seen.iter().zip(&weights) {
                        prop_assert_eq!(*count, i64::from(*weight) * cycles);
                    }
                }
            }
        }

        #[test]
        fn credits_stay_bounded_however_members_flap(
            weights in prop::collection::vec(1_u32..20, 1..8),
            masks in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            // If this fails, a flapping backend builds up a debt and then a burst.
            let mut robin = RoundRobin::new(&weights);
            for mask in masks {
                let picked = robin.pick(|member| mask >> member & 1 == 1);
                prop_assert!(picked.is_none_or(|member| mask >> member & 1 == 1));
            }
            let members = i64::try_from(weights.len()).unwrap();
            let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
            prop_assert_eq!(robin.turns.iter().map(|turn| turn.credit).sum::<i64>(), 0);
            for turn in &robin.turns {
                prop_assert!(turn.credit.abs() <= total * members);
            }
        }
    }
}
