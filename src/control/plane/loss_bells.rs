//! A bell for each pool, which rings when the pool has lost its last healthy backend: probes that
//! back off are then due at once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::shared::PoolId;

/// The bells of all pools with probes.
#[derive(Debug, Default)]
pub(crate) struct LossBells(Mutex<HashMap<PoolId, Arc<Notify>>>);

impl LossBells {
    /// The bell of a pool.
    pub(crate) fn of(&self, pool: PoolId) -> Arc<Notify> {
        Arc::clone(self.0.lock().entry(pool).or_default())
    }

    /// Rings for all that wait at this moment.
    pub(crate) fn ring(&self, pool: PoolId) {
        if let Some(bell) = self.0.lock().get(&pool) {
            bell.notify_waiters();
        }
    }

    /// Drops the bell of a pool that is gone.
    pub(crate) fn forget(&self, pool: PoolId) {
        self.0.lock().remove(&pool);
    }
}
