//! Tells in the log of listeners whose sockets fail to accept, once, and once when that is over.
//!
//! Workers leave such a socket alone for a moment and try again (`dataplane/listening.rs`); what
//! lasts until a look is told.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::control::plane::state::Plane;
use crate::shared::{Listener, ListenerId};

/// Listeners of which sockets fail to accept, as the log has told.
#[derive(Debug, Default)]
pub(crate) struct AcceptWatch {
    /// Errors of all workers at the latest look.
    errors: u64,
    told: BTreeSet<ListenerId>,
}

impl AcceptWatch {
    /// Looks at the listeners, if an attempt has failed since the latest look or one was told of.
    pub(crate) fn look(&mut self, plane: &Plane) {
        let errors = plane.workers.states.iter().map(|state| state.accept_errors.value()).sum();
        if self.told.is_empty() && self.errors == errors {
            return;
        }
        self.errors = errors;
        let snapshot = plane.publisher.latest();
        for listener in snapshot.listeners.iter().flatten() {
            let failing = listener.state.sum(|block| &block.accept_failing);
            let is_told = self.told.contains(&listener.id);
            if failing > 0 && !is_told {
                tracing::warn!(
                    "listener {}: {failing} of its sockets cannot accept: {}; tried again ten \
                     times a second",
                    listener.name,
                    latest_error(listener)
                );
                self.told.insert(listener.id);
            } else if failing == 0 && self.told.remove(&listener.id) {
                tracing::warn!("listener {}: all of its sockets accept again", listener.name);
            }
        }
        // Its sockets went with it.
        self.told.retain(|id| snapshot.listener(*id).is_some());
    }
}

/// What the system said of the latest failure.
fn latest_error(listener: &Arc<Listener>) -> io::Error {
    let blocks = listener.state.blocks().map(|block| block.accept_errno.value());
    let errno = blocks.filter(|errno| *errno > 0).last().unwrap_or_default();
    io::Error::from_raw_os_error(i32::try_from(errno).unwrap_or_default())
}
