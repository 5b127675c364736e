//! Panic mode: so few backends are healthy that the verdicts are more likely wrong than right.
//!
//! A bad probe, or a broken network on the way to the backends, looks like the death of most of
//! them; all load on the few that are left then kills those too. At or below a threshold, every
//! backend that only a verdict took out serves again. Drained and maintained backends are not
//! counted and never used: an operator took them out.

/// Whether `healthy` of `total` backends are too few to believe the verdicts.
///
/// A threshold of 0 per cent means "only when none is healthy"; an empty pool never panics.
#[must_use]
pub fn is_panicking(healthy: usize, total: usize, threshold_percent: u8) -> bool {
    if total == 0 {
        return false;
    }
    healthy.saturating_mul(100) <= total.saturating_mul(usize::from(threshold_percent))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
