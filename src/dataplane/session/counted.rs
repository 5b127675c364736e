//! Where a session is counted for its client, and which limit only observed it.

use std::sync::Arc;

use crate::policy::admit::limiter::{LimitKey, OpenSessions};
use crate::shared::RefuseReason;

/// One session counted for its client; holds on to the table, which a reload may replace.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) sessions: Arc<OpenSessions>,
    pub(crate) key: LimitKey,
}

impl Counted {
    /// Whether it is counted in this table.
    pub(crate) fn is_in(&self, table: &Arc<OpenSessions>) -> bool {
        Arc::ptr_eq(&self.sessions, table)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sessions.leave(self.key);
    }
}

/// Why a limit that only observes would have turned a client away.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) reason: RefuseReason,
    /// Its name.
    pub(crate) limit: Arc<str>,
}
