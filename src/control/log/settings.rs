//! What may change about the log while the process runs, and what was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::Log;
use crate::control::log::level::Level;
use crate::policy::admit::access::NetSet;

/// What may change while the process runs, and what was lost.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    level: AtomicU8,
    /// The bits of a [`LogChoice`](crate::policy::log_choice::LogChoice): which session records
    /// are made.
    pub(crate) sessions: Arc<AtomicU64>,
    /// Clients whose sessions are not logged.
    except: Mutex<Arc<NetSet>>,
    /// Lines that found no room or could not be written.
    pub(crate) dropped: Arc<AtomicU64>,
}

impl Settings {
    /// Takes over what the configuration says.
    pub(crate) fn apply(&self, log: &Log) {
        self.level.store(Level::from(log.level) as u8, Ordering::Relaxed);
        *self.except.lock() = Arc::new(NetSet::new(&log.except));
        self.sessions.store(log.choice.to_bits(), Ordering::Relaxed);
    }

    /// Networks of clients whose sessions are not logged.
    pub(crate) fn except(&self) -> Arc<NetSet> {
        Arc::clone(&self.except.lock())
    }

    /// The least important level that is written.
    pub(crate) fn level(&self) -> Level {
        Level::from_bits(self.level.load(Ordering::Relaxed))
    }

    /// Counts lines that are lost.
    pub(crate) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}
