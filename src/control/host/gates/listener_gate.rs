//! What comes of the wish for a gate: the gate of a listener, or why there is none.

use std::io;
use std::sync::Arc;

use crate::config::{KeyPath, ListenerConfig};
use crate::control::host::listeners::ListenFailure;
use crate::shared::{AccessMarks, Gate, GateCount, Refusing};

/// What lets a service have gates.
pub(crate) const REMEDY: &str = "run it as root or with CAP_BPF, and let it call bpf(2); \
                                 configs/kernel-refusal.conf is a drop-in for the systemd unit";

/// What a listener gets.
#[derive(Debug)]
pub(crate) struct ListenerGate {
    pub(crate) gate: Option<Arc<Gate>>,
    /// Of clients that are not admitted.
    pub(crate) access: Refusing<AccessMarks>,
    /// What a new gate counts of those.
    pub(crate) access_counts: Option<AccessCounts>,
    /// Of its limits, in their order.
    pub(crate) limits: Vec<Refusing>,
    /// Of those what a new gate counts.
    pub(crate) counts: Vec<Option<Arc<dyn GateCount>>>,
}

/// What a gate counts of clients that are not admitted.
#[derive(Debug)]
pub(crate) struct AccessCounts {
    pub(crate) ban: Arc<dyn GateCount>,
    pub(crate) lists: Arc<dyn GateCount>,
}

/// A limit or listener that requires what cannot be.
#[derive(Debug)]
pub(crate) struct GateRefusal {
    /// Where the file requires it.
    pub(crate) key: KeyPath,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl From<GateRefusal> for ListenFailure {
    fn from(refusal: GateRefusal) -> Self {
        let GateRefusal { key, message, hint } = refusal;
        Self { key, message, hint, cause: io::ErrorKind::PermissionDenied.into() }
    }
}

/// Where a limit of a listener stands in the file.
pub(crate) fn limit_key(listener: &ListenerConfig, place: usize) -> KeyPath {
    let limit = KeyPath::listener(&listener.name).key("limit");
    if listener.limits.len() > 1 { limit.item(place) } else { limit }
}
