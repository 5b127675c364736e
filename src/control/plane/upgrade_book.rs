//! Whether an upgrade is under way, and when one has succeeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// What is known of upgrades.
#[derive(Debug, Default)]
pub(crate) struct UpgradeBook {
    is_under_way: AtomicBool,
    has_handed_over: AtomicBool,
    /// Rings once another process has taken over.
    pub(crate) handed_over: Notify,
}

/// An upgrade that is under way, as long as this lives.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<UpgradeBook>);

impl UpgradeBook {
    /// Begins one; `None` while another is under way.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        let was_under_way = self.is_under_way.swap(true, Ordering::Relaxed);
        (!was_under_way).then(|| UnderWay(Arc::clone(self)))
    }

    /// Another process has taken over.
    pub(crate) fn hand_over(&self) {
        self.has_handed_over.store(true, Ordering::Relaxed);
    }

    /// Whether another process has taken over.
    pub(crate) fn has_handed_over(&self) -> bool {
        self.has_handed_over.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.is_under_way.store(false, Ordering::Relaxed);
    }
}
