//! The time of day, as operators and certificates count it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since the epoch; 0 on a host whose clock stands before it.
pub(crate) fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
