//! Outlier ejection: when a backend that fails real sessions is left out, and for how long.
//!
//! A number of failures in a row ejects a backend. Each ejection lasts longer than the one before;
//! time in service shortens the next. Two bounds keep a fault outside the backends (a client that
//! every server hangs up on, a broken network on this side) from emptying a pool: the share of the
//! pool that may be out, the new ejection included, and one healthy backend that always stays. The
//! rules are Envoy's, except that Envoy checks the share before it counts the new ejection. Times
//! are durations since one fixed moment.

use std::time::Duration;

use super::pool_health::PoolHealth;

/// The longest ejection.
pub const EJECT_MAX: Duration = Duration::from_secs(5 * 60);

/// The time in service that takes one ejection off the count.
pub const FORGET_AFTER: Duration = EJECT_MAX;

/// When and for how long a pool ejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionRules {
    /// Failures in a row that eject; 0 counts as 1.
    pub consecutive_failures: u32,
    /// The length of the first ejection.
    pub eject: Duration,
    /// The largest share of the backends that an operator lets serve which may be out at once, in
    /// per cent.
    pub max_ejected: u8,
}

impl EjectionRules {
    /// Whether `failures` in a row are enough to eject a backend, if its pool has room for that.
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
    /// Ejections that lengthen the next one.
    counted: u32,
    /// The end of the present ejection.
    until: Option<Duration>,
    /// The start of the service time that has not yet taken an ejection off the count.
    served_from: Duration,
}

impl History {
    /// Ejects the backend. Returns the length: the first length times the number of ejections that
    /// count, this one included, at most [`EJECT_MAX`].
    pub fn eject(&mut self, rules: &EjectionRules, now: Duration) -> Duration {
        self.forget(now);
        self.counted = self.counted.saturating_add(1);
        let out = rules.eject.saturating_mul(self.counted).min(EJECT_MAX);
        self.until = Some(now.saturating_add(out));
        out
    }

    /// One of a backend that another process has ejected, until then.
    #[must_use]
    pub fn resumed(until: Duration, counted: u32) -> Self {
        Self { counted: counted.max(1), until: Some(until), served_from: until }
    }

    /// How many ejections lengthen the next one.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.counted
    }

    /// Whether the time of an ejection is over.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// The end of the present ejection; `None` while the backend serves.
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
        // If this fails, one failed session takes a backend out, or a dead backend stays in.
        assert!(!rules(50).is_outlier(4));
        assert!(rules(50).is_outlier(5));
        assert!(!EjectionRules { consecutive_failures: 0, ..rules(50) }.is_outlier(0));
    }

    #[test]
    fn the_new_one_counts_towards_the_share() {
        // If this fails, two of three are ejected at "50%".
        let room = |percent, total, ejected| {
            let healthy = total - ejected;
            rules(percent).has_room(PoolHealth { total, ejected, healthy, ..PoolHealth::default() })
        };
        assert!(room(50, 2, 0) && !room(50, 2, 1));
        assert!(room(50, 3, 0) && !room(50, 3, 1));
        assert!(room(50, 4, 1) && !room(50, 4, 2));
        assert!(!room(0, 100, 0));
        assert!(room(100, 3, 1) && !room(100, 3, 2), "the last one stays");
        assert!(!room(100, 1, 0) && !room(49, 2, 0));
        let down = PoolHealth { total: 4, healthy: 1, ..PoolHealth::default() };
        assert!(!rules(100).has_room(down), "probes have taken the others");
    }

    #[test]
    fn each_ejection_is_longer_and_time_in_service_is_forgiven() {
        // If this fails, a backend that flaps is tried as often as one that failed once, or a
        // failure of last year keeps a backend out for minutes.
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

    #[test]
    fn an_ejection_goes_on_in_another_process() {
        // If this fails, an upgrade readmits a backend early, or forgives what it did.
        let (mut before, now) = (History::default(), 100 * SECOND);
        before.eject(&rules(50), now);
        before.readmit(now + 30 * SECOND);
        before.eject(&rules(50), now + 30 * SECOND);
        let left = before.until().unwrap() - (now + 40 * SECOND);
        let mut after = History::resumed(SECOND + left, before.counted());
        assert!(!after.is_due(left) && after.is_due(SECOND + left));
        after.readmit(SECOND + left);
        assert_eq!(after.eject(&rules(50), SECOND + left), 90 * SECOND, "the third one");
    }

    proptest! {
        #[test]
        fn a_pool_always_keeps_a_healthy_backend_and_its_share(
            up in proptest::collection::vec(any::<bool>(), 1..20),
            percent in 0_u8..=100,
            asked in proptest::collection::vec(0_usize..20, 0..60),
        ) {
            // If this fails, a fault on our side empties a pool.
            let mut ejected = vec![false; up.len()];
            let healthy =
                |out: &[bool]| up.iter().zip(out).filter(|(up, out)| **up && !**out).count();
            let before = healthy(&ejected);
            for index in asked.into_iter().map(|index| index % up.len()) {
                let out = ejected.iter().filter(|e| **e).count();
                let (total, healthy) = (up.len(), healthy(&ejected));
                let pool = PoolHealth { total, ejected: out, healthy, ..PoolHealth::default() };
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
            // If this fails, a backend is out for longer than the documented bound.
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
