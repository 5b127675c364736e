//! Kills of operators (`kill --pace`), as long as they go on.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::shared::LeaveOrder;

/// The orders by which named sessions end. A worker drops its own once it has none of them left.
#[derive(Debug, Default)]
pub(crate) struct KillBook(Mutex<Vec<Weak<LeaveOrder>>>);

impl KillBook {
    /// Records an order that is about to be given.
    pub(crate) fn put(&self, order: &Arc<LeaveOrder>) {
        let mut book = self.0.lock();
        book.retain(|order| order.strong_count() > 0);
        book.push(Arc::downgrade(order));
    }

    /// Stops all that go on: what is left of their sessions stays. Returns how many there were.
    pub(crate) fn revoke_all(&self) -> u64 {
        let orders: Vec<_> = self.0.lock().drain(..).filter_map(|order| order.upgrade()).collect();
        orders.iter().for_each(|order| order.revoke());
        orders.len() as u64
    }
}
