//! Bounded loads: a backend far above the mean is passed over.
//!
//! Consistent hashing sends a client where it belongs, also when many belong to the same backend.
//! A bound on each backend's sessions, a factor times its share of all of them, caps what is too
//! much; a client that finds it reached goes on along its own sequence (Mirrokni, Thorup and
//! Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016). Rounded up, and with the session
//! to come counted, the bounds add up to more than there is: one backend always has room.

/// Parts of a factor of 1.
pub const FACTOR_ONE: u32 = 1_000;

/// How many sessions each backend of a group may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadBound {
    factor: u32,
    /// Sessions of all, with the one to come.
    sessions: u64,
    weight: u64,
}

impl LoadBound {
    /// From (sessions, weight) of those that could serve; `factor` is in thousandths, at least
    /// [`FACTOR_ONE`].
    #[must_use]
    pub fn new(factor: u32, loads: impl Iterator<Item = (u32, u32)>) -> Self {
        let empty = Self { factor: factor.max(FACTOR_ONE), sessions: 1, weight: 0 };
        loads.fold(empty, |sum, (sessions, weight)| Self {
            sessions: sum.sessions + u64::from(sessions),
            weight: sum.weight + u64::from(weight),
            ..sum
        })
    }

    /// Whether a backend that has `sessions` may have one more.
    #[must_use]
    pub fn admits(&self, sessions: u32, weight: u32) -> bool {
        let all = u128::from(self.factor) * u128::from(self.sessions) * u128::from(weight);
        let most = all.div_ceil((u128::from(FACTOR_ONE) * u128::from(self.weight)).max(1));
        u128::from(sessions) < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds(factor: u32, loads: &[(u32, u32)]) -> LoadBound {
        LoadBound::new(factor, loads.iter().copied())
    }

    #[test]
    fn the_bound_is_the_factor_times_the_share() {
        // If this fails, `load_factor` means something else than it says.
        // Of 100 sessions with the next one, each of four equals may have 25 * 1.25 = 31.25, so 32.
        let four = bounds(1_250, &[(40, 1), (30, 1), (20, 1), (9, 1)]);
        assert!(four.admits(31, 1));
        assert!(!four.admits(32, 1));
        // Of weights 1 and 3 and 80 sessions: 20 * 1.5 and 60 * 1.5.
        let two = bounds(1_500, &[(60, 1), (19, 3)]);
        assert!(two.admits(29, 1) && !two.admits(30, 1));
        assert!(two.admits(89, 3) && !two.admits(90, 3));
        assert!(bounds(1_000, &[(0, 1), (0, 1)]).admits(0, 1), "the first session of all");
    }

    proptest! {
        #[test]
        fn one_backend_always_has_room(
            factor in 1_000_u32..100_000,
            loads in prop::collection::vec((any::<u32>(), 1_u32..=u32::MAX), 1..30),
        ) {
            // If this fails, a client is turned away although backends could serve.
            let bounds = bounds(factor, &loads);
            prop_assert!(loads.iter().any(|(sessions, weight)| bounds.admits(*sessions, *weight)));
        }

        #[test]
        fn no_backend_is_filled_above_the_bound(
            factor in 1_000_u32..3_000,
            weights in prop::collection::vec(1_u32..10, 1..8),
            wishes in prop::collection::vec(0_usize..8, 1..300),
        ) {
            // If this fails, one backend gets more than its share of what is open, times the
            // factor.
            let mut loads: Vec<(u32, u32)> = weights.iter().map(|weight| (0, *weight)).collect();
            let sum: u32 = weights.iter().sum();
            for (done, wish) in (0_u32..).zip(wishes) {
                let now = bounds(factor, &loads);
                let mut order = (0..loads.len()).map(|step| (wish + step) % loads.len());
                let chosen = order.find(|m| now.admits(loads[*m].0, loads[*m].1)).unwrap();
                loads[chosen].0 += 1;
                let (sessions, weight) = loads[chosen];
                let most = u64::from(factor) * u64::from(done + 1) * u64::from(weight);
                prop_assert!(u64::from(sessions) <= most.div_ceil(u64::from(1_000 * sum)));
            }
        }
    }
}
