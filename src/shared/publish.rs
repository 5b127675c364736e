//! Hands a new snapshot to every worker.
//!
//! **Synchronization.** The publisher stores the `Arc` under a mutex, then the generation with
//! `Release`. A subscriber compares the generation once per loop turn (`Acquire`) and takes the
//! mutex only when it has changed, so a worker that sees generation N finds snapshot N or newer.

use std::sync::Arc;

use crate::policy::sync::{AtomicU64, Mutex, Ordering};

use super::snapshot::Snapshot;

#[derive(Debug)]
struct Published {
    generation: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
}

/// The control plane's end.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Published>);

impl Publisher {
    /// Starts with one snapshot.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let generation = AtomicU64::new(snapshot.generation.0);
        Self(Arc::new(Published { generation, snapshot: Mutex::new(snapshot) }))
    }

    /// Replaces the snapshot for everybody.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation.0;
        *self.0.snapshot.lock() = snapshot;
        self.0.generation.store(generation, Ordering::Release);
    }

    /// The newest snapshot.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshot.lock())
    }

    /// A worker's end.
    #[must_use]
    pub fn subscribe(&self) -> Subscriber {
        let current = self.latest();
        Subscriber { slot: Arc::clone(&self.0), current }
    }
}

/// A worker's end: its own reference to the snapshot it works with.
#[derive(Debug)]
pub struct Subscriber {
    slot: Arc<Published>,
    current: Arc<Snapshot>,
}

impl Subscriber {
    /// The snapshot this worker works with.
    #[must_use]
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.current
    }

    /// Whether a newer one has been published: one atomic load.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.slot.generation.load(Ordering::Acquire) != self.current.generation.0
    }

    /// The newest snapshot, without taking it up.
    #[must_use]
    pub fn latest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.slot.snapshot.lock())
    }

    /// Works with this snapshot, one that [`Self::latest`] gave, from now on; returns the one used
    /// until now. If a newer one has come meanwhile, [`Self::is_stale`] stays true.
    pub fn take_up(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        std::mem::replace(&mut self.current, snapshot)
    }
}
