//! Backends whose sessions an operator has reset (`drain --reset`), as long as that goes on.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::LeaveConfig;
use crate::shared::{AdminState, Backend, BackendId, LeaveOrder, Snapshot};

/// An order that the workers have.
#[derive(Debug)]
pub(crate) struct DrainOrder {
    pub(crate) order: Arc<LeaveOrder>,
    /// At once, or at a pace.
    pub(crate) wanted: LeaveConfig,
}

/// The orders of operators by which sessions leave a backend.
#[derive(Debug, Default)]
pub(crate) struct DrainBook(Mutex<HashMap<BackendId, DrainOrder>>);

impl DrainBook {
    /// Records an order that has been given.
    pub(crate) fn put(&self, backend: BackendId, given: DrainOrder) {
        self.0.lock().insert(backend, given);
    }

    /// Ends the order for this backend, if there is one.
    pub(crate) fn revoke(&self, backend: BackendId) {
        if let Some(given) = self.0.lock().remove(&backend) {
            given.order.revoke();
        }
    }

    /// In which way the sessions of a backend are being reset, while it has some.
    pub(crate) fn wanted(&self, backend: &Backend) -> Option<LeaveConfig> {
        let book = self.0.lock();
        let given = book.get(&backend.id).filter(|given| given.order.is_of(backend))?;
        let is_out = backend.state.admin() != AdminState::Ready;
        (is_out && backend.state.active() > 0).then_some(given.wanted)
    }

    /// Ends the orders for backends that the file lets serve again, and drops those for backends
    /// that are gone with their sessions.
    pub(crate) fn keep(&self, snapshot: &Snapshot) {
        self.0.lock().retain(|id, given| {
            let known = snapshot.backend(*id).filter(|backend| given.order.is_of(backend));
            let holds = known.is_some_and(|backend| backend.state.admin() != AdminState::Ready);
            if !holds {
                given.order.revoke();
            }
            holds
        });
    }
}
