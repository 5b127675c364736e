//! Panic mode: so few backends are healthy that the verdicts are more likely wrong than right.
//!
//! A bad probe, or a broken network on the way to the backends, looks like the death of most of
//! them; all load on the few that are left then kills those too. At or below a threshold, every
//! backend that only a verdict took out serves again. Drained and maintained backends are not
//! counted and never used: an operator took them out.
//!
//! Panic is the last resort. It waits for the first verdict on every backend, gives way to a backup
//! that is healthy, and can be forbidden where a probe asks for a role (the leader of a cluster): a
//! client is then better refused than served by the wrong server.

use std::fmt;

use crate::policy::health::pool_health::PoolHealth;

/// When a pool panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicThreshold {
    /// Never: verdicts always count.
    Never,
    /// When at most this share of the backends is healthy, in per cent; 0: when none is.
    AtMost(u8),
}

impl fmt::Display for PanicThreshold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => out.write_str("never"),
            Self::AtMost(percent) => write!(out, "{percent}%"),
        }
    }
}

impl PanicThreshold {
    /// Whether too few backends are healthy to believe the verdicts. A pool without backends never
    /// panics.
    #[must_use]
    pub fn is_panicking(self, pool: PoolHealth) -> bool {
        let Self::AtMost(percent) = self else { return false };
        if pool.total == 0 || pool.healthy_backups > 0 {
            return false;
        }
        let not_failed = pool.healthy.saturating_add(pool.unjudged);
        not_failed.saturating_mul(100) <= pool.total.saturating_mul(usize::from(percent))
    }

    /// Whether a pool that panics doubts its verdicts. With 0 per cent it believes them, and tries
    /// backends that are down only because it has no other.
    #[must_use]
    pub fn doubts_verdicts(self) -> bool {
        matches!(self, Self::AtMost(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_panicking(healthy: usize, total: usize, percent: u8) -> bool {
        let pool = PoolHealth { total, healthy, ..PoolHealth::default() };
        PanicThreshold::AtMost(percent).is_panicking(pool)
    }

    #[test]
    fn zero_per_cent_means_none_healthy() {
        // If this fails, the default setting sends sessions to backends known to be down.
        assert!(is_panicking(0, 3, 0));
        assert!(!is_panicking(1, 3, 0));
        assert!(!is_panicking(1, 1_000, 0));
    }

    #[test]
    fn the_threshold_itself_panics() {
        // If this fails, "at or below" has become "below".
        assert!(is_panicking(5, 10, 50));
        assert!(!is_panicking(6, 10, 50));
        assert!(is_panicking(1, 3, 34));
        assert!(!is_panicking(1, 3, 33));
        assert!(is_panicking(3, 3, 100));
    }

    #[test]
    fn an_empty_pool_never_panics() {
        // If this fails, a pool of drained backends would be treated as a broken network.
        assert!(!is_panicking(0, 0, 0));
        assert!(!is_panicking(0, 0, 100));
    }

    #[test]
    fn a_backend_without_a_verdict_has_not_failed() {
        // If this fails, `initial = "down"` lets clients in before the first verdict.
        let pool = |unjudged| PoolHealth { total: 4, unjudged, ..PoolHealth::default() };
        assert!(!PanicThreshold::AtMost(0).is_panicking(pool(4)));
        assert!(!PanicThreshold::AtMost(0).is_panicking(pool(1)));
        assert!(PanicThreshold::AtMost(0).is_panicking(pool(0)));
        assert!(!PanicThreshold::AtMost(50).is_panicking(pool(3)));
        assert!(PanicThreshold::AtMost(50).is_panicking(pool(2)));
    }

    proptest! {
        #[test]
        fn panic_can_be_forbidden_and_gives_way_to_a_backup(
            total in 0_usize..50, healthy in 0_usize..50, backups in 0_usize..50,
            percent in 0_u8..=100,
        ) {
            // If this fails, a client of a leaderless cluster writes to a replica, or a server that
            // fails its probes is preferred to a backup that passes them.
            let healthy = healthy.min(total);
            let healthy_backups = backups.min(healthy);
            let pool = PoolHealth { total, healthy, healthy_backups, ..PoolHealth::default() };
            prop_assert!(!PanicThreshold::Never.is_panicking(pool));
            if PanicThreshold::AtMost(percent).is_panicking(pool) {
                prop_assert_eq!(healthy_backups, 0);
            }
        }
    }
}
