//! The backends whose sessions are judged, with their earlier ejections.

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
    /// Rings when the first pool with an `outlier` table appears.
    pub(crate) wanted: Notify,
}

/// One backend whose sessions are judged.
#[derive(Debug)]
pub(crate) struct JudgedBackend {
    /// Tells a backend from a later one with the same id.
    pub(crate) state: Arc<BackendState>,
    pub(crate) history: History,
    /// The row that was logged when its pool could not spare it.
    pub(crate) spared: u32,
}
