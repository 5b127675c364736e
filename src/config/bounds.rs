//! Bounds that more than one key has.

use std::time::Duration;

use crate::policy::terms::CLIENT_TABLE_MAX;

pub(super) const ZERO: Duration = Duration::ZERO;
/// Shortest timeout of a session or a probe.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
/// Longest time that can be asked for.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Most sessions of a process, a listener or a backend.
pub(super) const SESSIONS_MAX: u64 = 100_000_000;
pub(super) const U32_MAX: u64 = u32::MAX as u64;
/// Clients in a table: at least one set of it.
pub(super) const CLIENTS_MIN: u64 = 8;
pub(super) const CLIENTS_MAX: u64 = CLIENT_TABLE_MAX as u64;
