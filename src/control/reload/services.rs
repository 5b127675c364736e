//! The parts of the control plane that act together, and a reload of all of them.

use std::sync::Arc;

use crate::control::log::Logging;
use crate::control::plane::state::Plane;
use crate::control::reload::apply::{RefusedReload, Reloaded, reload};
use crate::control::tell::notify;
use crate::control::watch::prober::Prober;

/// What operators and signals act on.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) plane: Arc<Plane>,
    pub(crate) prober: Arc<Prober>,
    pub(crate) logging: Arc<Logging>,
}

impl Services {
    /// Reloads, and tells the prober, the log and systemd; with `dry_run`, only checks the file.
    ///
    /// # Errors
    /// As [`reload`].
    pub(crate) fn reload(&self, dry_run: bool) -> Result<Reloaded, RefusedReload> {
        if dry_run {
            return reload(&self.plane, true);
        }
        notify::reloading();
        let outcome = reload(&self.plane, false);
        if outcome.is_ok() {
            let config = self.plane.current.lock().config.clone();
            self.prober.take_up(&config);
            self.logging.apply(&config.global.log);
        }
        notify::ready(&self.plane);
        outcome
    }
}
