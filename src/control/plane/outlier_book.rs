//! The backends whose sessions are judged, and what each has done before.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::policy::health::outlier::History;
use crate::shared::{BackendId, BackendState};

/// The backends of all pools that eject.
#[derive(Debug, Default)]
pub(crate) struct OutlierBook {
    pub(crate) judged: Mutex<HashMap<BackendId, JudgedBackend>>,
    /// Rings when there is something to judge again.
    pub(crate) wanted: Notify,
}

/// One backend whose sessions are judged.
#[derive(Debug)]
pub(crate) struct JudgedBackend {
    /// Tells a backend from a later one with the same id.
    pub(crate) state: Arc<BackendState>,
    pub(crate) history: History,
}
