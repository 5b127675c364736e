//! Counts of a pool's backends by their verdicts: ejections and panic are decided by them.

/// Backends that an operator lets serve: those that are drained, in maintenance, or have no weight
/// are in none of the counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolHealth {
    /// All of them.
    pub total: usize,
    /// Those that are neither down by their probes nor ejected.
    pub healthy: usize,
    /// Those of the healthy ones that are backups.
    pub healthy_backups: usize,
    /// Those that are kept out until a probe has judged them (`initial = "down"`).
    pub unjudged: usize,
    /// Those that are ejected, whatever their probes say.
    pub ejected: usize,
}

impl PoolHealth {
    /// Whether a verdict lets at least one backend serve.
    #[must_use]
    pub fn serves(self) -> bool {
        self.healthy > 0
    }
}
