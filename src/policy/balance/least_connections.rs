//! Least connections: the backend that is furthest below its share of the open sessions.
//!
//! The fair share of a member is (sessions of all + the one to come) × its weight / weight of all,
//! and hardly ever a whole number. Rounding it always the same way gives sessions that come one
//! after the other to the heaviest ((load + 1) / weight, Jefferson's method of apportionment) or to
//! the lightest (load / weight, Adams's). So only whole sessions are compared: a member that is one
//! or more behind its share is served first, the one with the lowest load / weight of them; when
//! none is, smooth weighted turns decide among those below their share, and settle the fractions
//! exactly (staying within the quota: Balinski and Young, "Fair Representation", 1982). With equal
//! weights that is the fewest sessions, equals in turn.
//!
//! A member with a session or more above its share (it has just lost its equals, or its sessions
//! last longer) takes nothing, and what it has is no reason to call the others behind: they share
//! the rest among themselves. Loads are read once per choice; one that is old by then makes a
//! choice that was right when it was read. ADR 0038 has what this does to shares at few sessions.

use super::round_robin::{Contender, RoundRobin};

/// How often members above their share are left out of the sums before the choice is made with
/// what is left. Each time the others' share falls, and a member may turn out to be above it.
const ROUNDS_MAX: usize = 8;

/// What one eligible member carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberLoad {
    /// Its index in the weights that the turns were built with.
    pub member: u16,
    /// Its weight of the moment, above 0.
    pub weight: u32,
    /// Its open sessions.
    pub sessions: u32,
}

/// How a member stands to its fair share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// One session or more below.
    Behind,
    /// Less than one session below.
    Below,
    /// Not below, and less than one session above.
    There,
    /// One session or more above.
    Above,
}

/// What the members that count have together.
#[derive(Clone, Copy)]
struct Sums {
    /// Their sessions, and the one to come.
    sessions: u64,
    weight: u64,
}

impl Sums {
    fn of(members: &[MemberLoad]) -> Self {
        let empty = Self { sessions: 1, weight: 0 };
        members.iter().fold(empty, |sums, member| Self {
            sessions: sums.sessions + u64::from(member.sessions),
            weight: sums.weight + u64::from(member.weight),
        })
    }

    /// No product is above 2^81.
    fn stand(self, member: &MemberLoad) -> Stand {
        let weight = i128::from(self.weight);
        let share = i128::from(self.sessions) * i128::from(member.weight);
        let below = share - i128::from(member.sessions) * weight;
        if below >= weight {
            Stand::Behind
        } else if below > 0 {
            Stand::Below
        } else if below > -weight {
            Stand::There
        } else {
            Stand::Above
        }
    }
}

/// The member that gets the next session; `None` when there is none. `members` are the eligible
/// ones, by their index; those above their share are taken out.
pub fn pick(turns: &mut RoundRobin, members: &mut Vec<MemberLoad>) -> Option<u16> {
    let mut sums = Sums::of(members);
    for _ in 0..ROUNDS_MAX {
        let before = members.len();
        members.retain(|member| sums.stand(member) != Stand::Above);
        if members.len() == before {
            break;
        }
        sums = Sums::of(members);
    }
    let behind = members.iter().filter(|member| sums.stand(member) == Stand::Behind);
    let lowest = behind.reduce(|low, other| if is_lower(other, low) { other } else { low });
    let contenders = members.iter().map(|load| Contender {
        member: load.member,
        weight: load.weight,
        may_win: match (lowest, sums.stand(load)) {
            (Some(lowest), Stand::Behind) => !is_lower(lowest, load),
            (None, Stand::Below) => true,
            _ => false,
        },
    });
    turns.pick_among(sums.weight, contenders)
}

/// Whether `one` has fewer sessions for its weight than `other`.
fn is_lower(one: &MemberLoad, other: &MemberLoad) -> bool {
    u64::from(one.sessions) * u64::from(other.weight)
        < u64::from(other.sessions) * u64::from(one.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balance::shares::{Closed, assert_shares};
    use proptest::prelude::*;

    /// A pool that every session asks.
    struct Pool {
        weights: Vec<u32>,
        turns: RoundRobin,
    }

    impl Pool {
        fn new(weights: &[u32]) -> Self {
            Self { weights: weights.to_vec(), turns: RoundRobin::new(weights) }
        }

        fn pick(&mut self, open: &[u32]) -> Option<u16> {
            let members = (0..=u16::MAX).zip(self.weights.iter().zip(open));
            let mut members = members
                .filter(|(_, (weight, _))| **weight > 0)
                .map(|(member, (&weight, &sessions))| MemberLoad { member, weight, sessions })
                .collect();
            pick(&mut self.turns, &mut members)
        }
    }

    #[test]
    fn weights_hold_at_every_load() {
        // If this fails, sessions that come one after the other, or few at a time, all go to the
        // heaviest backends, or to the lightest.
        for weights in [&[10, 10, 11][..], &[1, 9], &[5, 1, 1], &[1, 2, 3], &[1, 1, 1, 1, 7]] {
            for open in [0, 1, 2, 5, 10, 100] {
                let mut pool = Pool::new(weights);
                let seen =
                    Closed::new(open, weights.len()).shares(|loads| pool.pick(loads).unwrap());
                assert_shares(&seen, weights, &format!("{open} open"));
            }
        }
    }

    #[test]
    fn weights_hold_beside_a_backend_that_is_busy() {
        // If this fails, one backend with long sessions makes the others' weights meaningless.
        for extra in [0, 1] {
            let mut pool = Pool::new(&[1, 9, 5]);
            let seen =
                Closed::new(extra, 3).beside(2, 1_000).shares(|open| pool.pick(open).unwrap());
            assert_shares(&seen[..2], &[1, 9], &format!("{extra} open"));
            assert_eq!(seen[2], 0, "the busy one gets nothing");
        }
    }

    #[test]
    fn a_share_that_grows_counts_without_load() {
        // If this fails, `slow_start` gives a newcomer nothing, or all, while there are few
        // sessions.
        for grown in [1_u32, 64, 128, 255] {
            let weights = [256, 256, grown];
            let mut pool = Pool::new(&weights);
            pool.turns = RoundRobin::new(&[1, 1, 1]);
            let seen = Closed::new(1, 3).shares(|open| pool.pick(open).unwrap());
            assert_shares(&seen, &weights, &format!("{grown} of 256"));
        }
    }

    #[test]
    fn an_empty_backend_catches_up() {
        // If this fails, a backend that comes back stays underused for as long as sessions last.
        let mut pool = Pool::new(&[1, 1, 1]);
        let mut open = [50, 50, 0];
        for _ in 0..50 {
            let member = pool.pick(&open).unwrap();
            assert_eq!(member, 2, "{open:?}");
            open[2] += 1;
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        // If this fails, huge counters or weights wrap around and the busiest wins.
        let most = u32::MAX;
        assert_eq!(Pool::new(&[most, most]).pick(&[most, most - 1]), Some(1));
        assert_eq!(Pool::new(&[most, 1]).pick(&[most, most - 1]), Some(0));
        assert_eq!(Pool::new(&[]).pick(&[]), None);
        let many = vec![most; 65_536];
        assert_eq!(Pool::new(&many).pick(&many), Some(0));
    }

    proptest! {
        #[test]
        fn of_equals_the_one_with_the_fewest_sessions_serves(
            open in prop::collection::vec(0_u32..50, 1..20),
        ) {
            // If this fails, a busier backend is chosen over a freer one.
            let chosen = Pool::new(&vec![3; open.len()]).pick(&open).unwrap();
            prop_assert_eq!(Some(&open[usize::from(chosen)]), open.iter().min());
        }

        #[test]
        fn none_goes_above_its_share_and_none_is_left_behind(
            members in prop::collection::vec((1_u32..9, 0_u32..30), 1..12),
        ) {
            // If this fails, a backend is given more than its share of the open sessions, or one
            // that is short of them is passed over.
            let (weights, open): (Vec<u32>, Vec<u32>) = members.into_iter().unzip();
            let chosen = usize::from(Pool::new(&weights).pick(&open).unwrap());
            let (sessions, weight) =
                (open.iter().sum::<u32>() + 1, weights.iter().sum::<u32>());
            prop_assert!(open[chosen] * weight < sessions * weights[chosen]);
            let is_behind = |m: usize| (open[m] + 1) * weight <= sessions * weights[m];
            let is_above = |m: usize| open[m] * weight >= sessions * weights[m] + weight;
            let mut all = 0..open.len();
            if !all.clone().any(is_above) && all.any(is_behind) {
                prop_assert!(is_behind(chosen));
                for other in (0..open.len()).filter(|m| is_behind(*m)) {
                    prop_assert!(open[chosen] * weights[other] <= open[other] * weights[chosen]);
                }
            }
        }
    }
}
