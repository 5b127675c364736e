//! The settings that the probes of a backend obey.

use std::sync::Arc;

use crate::config::Health;
use crate::control::host::trust::TlsProbe;

/// The settings of a backend's probes.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    pub(super) health: Health,
    /// Names, roots and client of TLS probes.
    pub(super) tls: Option<Arc<TlsProbe>>,
}

impl Orders {
    /// Whether they are these.
    pub(super) fn are(&self, health: &Health, tls: Option<&Arc<TlsProbe>>) -> bool {
        self.health == *health && self.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
    }
}
