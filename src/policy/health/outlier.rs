//! Outlier ejection: when a backend that fails real sessions is left out, and for how long.
//!
//! So many failures in a row eject; the time out grows with each ejection and shrinks again with
//! time in service. Two bounds keep a fault that is not the backends' (a client that everybody
//! hangs up on, a broken network of ours) from emptying a pool: a share of the pool that may be
//! out, counted with the new one, and always one healthy backend left. As in Envoy, but for the
//! bound, which Envoy checks before it counts the new one. Times are since any fixed moment.

use std::time::Duration;

/// No ejection lasts longer.
pub const EJECT_MAX: Duration = Duration::from_secs(5 * 60);

/// Each time so long in service takes one ejection off those that count.
pub const FORGET_AFTER: Duration = EJECT_MAX;

/// When and for how long a pool ejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionRules {
    /// Failures in a row; 0 counts as 1.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts.
    pub eject: Duration,
    /// Most backends out at once, in per cent of those an operator lets serve.
    pub max_ejected: u8,
}

/// How a pool stands, of the backends that an operator lets serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolHealth {
    /// All of them.
    pub total: usize,
    /// Those ejected now.
    pub ejected: usize,
    /// Those neither ejected nor down by their probes.
    pub healthy: usize,
}

impl EjectionRules {
    /// Whether a backend with this many failures in a row is to be ejected, were there room.
    #[must_use]
    pub fn is_outlier(&self, failures: u32) -> bool {
        failures >= self.consecutive_failures.max(1)
    }

    /// Whether a pool can spare one more healthy backend.
    #[must_use]
    pub fn has_room(&self, pool: PoolHealth) -> bool {
        let out = pool.ejected.saturating_add(1);
        let most = pool.total.saturating_mul(usize::from(self.max_ejected));
        out.saturating_mul(100) <= most && pool.healthy > 1
    }
}

/// The ejections of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct History {
    /// Ejections that count.
    counted: u32,
    /// Out until then.
    until: Option<Duration>,
    /// When the backend came back, moved on by what has been forgotten since.
    served_from: Duration,
}

impl History {
    /// Ejects the backend; returns for how long: the first time times the number so far.
    pub fn eject(&mut self, rules: &EjectionRules, now: Duration) -> Duration {
        self.forget(now);
        self.counted = self.counted.saturating_add(1);
        let out = rules.eject.saturating_mul(self.counted).min(EJECT_MAX);
        self.until = Some(now.saturating_add(out));
        out
    }

    /// Whether the time of an ejection is over.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Until when the backend is out; `None` while it is not.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The backend serves again.
    pub fn readmit(&mut self, now: Duration) {
        self.until = None;
        self.served_from = now;
    }

    fn forget(&mut self, now: Duration) {
        while self.counted > 0 && now >= self.served_from.saturating_add(FORGET_AFTER) {
            self.counted -= 1;
            self.served_from = self.served_from.saturating_add(FORGET_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(percent: u8) -> EjectionRules {
        EjectionRules { consecutive_failures: 5, eject: 30 * SECOND, max_ejected: percent }
    }

    #[test]
    fn the_row_is_exact() {
        // If this fails, one hung-up session takes a backend out, or a dead one stays in.
        assert!(!rules(50).is_outlier(4));
        assert!(rules(50).is_outlier(5));
        assert!(!EjectionRules { consecutive_failures: 0, ..rules(50) }.is_outlier(0));
    }

    #[test]
    fn the_new_one_counts_towards_the_share() {
        // If this fails, two of three are ejected at "50%".
        let room = |percent, total, ejected| {
            rules(percent).has_room(PoolHealth { total, ejected, healthy: total - ejected })
        };
        assert!(room(50, 2, 0) && !room(50, 2, 1));
        assert!(room(50, 3, 0) && !room(50, 3, 1));
        assert!(room(50, 4, 1) && !room(50, 4, 2));
        assert!(!room(0, 100, 0));
        assert!(room(100, 3, 1) && !room(100, 3, 2), "the last one stays");
        assert!(!room(100, 1, 0) && !room(49, 2, 0));
        let down = PoolHealth { total: 4, ejected: 0, healthy: 1 };
        assert!(!rules(100).has_room(down), "probes have taken the others");
    }

    #[test]
    fn each_ejection_is_longer_and_time_in_service_is_forgiven() {
        // If this fails, a backend that flaps is tried as often as one that failed once, or one
        // that failed last year is out for minutes.
        let mut history = History::default();
        let mut now = SECOND;
        let out = |history: &mut History, now: &mut Duration| {
            let out = history.eject(&rules(50), *now);
            assert!(!history.is_due(*now + out - SECOND) && history.is_due(*now + out));
            *now += out;
            history.readmit(*now);
            out.as_secs()
        };
        let times: Vec<u64> = (0..12).map(|_| out(&mut history, &mut now)).collect();
        assert_eq!(times, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
        now += 9 * FORGET_AFTER;
        assert_eq!(out(&mut history, &mut now), 120, "three of twelve still count");
        now += 100 * FORGET_AFTER;
        assert_eq!(out(&mut history, &mut now), 30);
    }

    proptest! {
        #[test]
        fn a_pool_always_keeps_a_healthy_backend_and_its_share(
            up in proptest::collection::vec(any::<bool>(), 1..20),
            percent in 0_u8..=100,
            asked in proptest::collection::vec(0_usize..20, 0..60),
        ) {
            // If this fails, a fault of ours empties a pool.
            let mut ejected = vec![false; up.len()];
            let healthy =
                |out: &[bool]| up.iter().zip(out).filter(|(up, out)| **up && !**out).count();
            let before = healthy(&ejected);
            for index in asked.into_iter().map(|index| index % up.len()) {
                let out = ejected.iter().filter(|e| **e).count();
                let pool = PoolHealth { total: up.len(), ejected: out, healthy: healthy(&ejected) };
                if up[index] && !ejected[index] && rules(percent).has_room(pool) {
                    ejected[index] = true;
                }
            }
            prop_assert!(before == 0 || healthy(&ejected) >= 1);
            let out = ejected.iter().filter(|e| **e).count();
            prop_assert!(out * 100 <= up.len() * usize::from(percent));
        }

        #[test]
        fn no_ejection_is_without_end(
            eject in 1_u64..=300, gaps in proptest::collection::vec(0_u64..2_000, 1..50),
        ) {
            // If this fails, a backend is out for longer than any operator was promised.
            let rules = EjectionRules { eject: Duration::from_secs(eject), ..rules(50) };
            let (mut history, mut now) = (History::default(), Duration::ZERO);
            for gap in gaps {
                now += Duration::from_secs(gap);
                let out = history.eject(&rules, now);
                prop_assert!(out >= rules.eject && out <= EJECT_MAX);
                prop_assert_eq!(history.until(), Some(now + out));
                now += out;
                prop_assert!(history.is_due(now));
                history.readmit(now);
                prop_assert!(!history.is_due(now));
            }
        }
    }
}
