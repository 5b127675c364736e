//! What is known of backends beside their counters: why each is up or down, its probes, its
//! certificate, its ejection.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::shared::BackendId;

/// Why a backend is in the state it is in, for people.
#[derive(Debug, Clone)]
pub(crate) struct BackendVerdict {
    /// Why it is up, down or ejected, in words.
    pub(crate) reason: String,
    /// Since when.
    pub(crate) since: SystemTime,
}

impl BackendVerdict {
    /// A verdict that stands from now on.
    pub(crate) fn from_now(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), since: SystemTime::now() }
    }
}

/// Results of the probes of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProbeCounts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// What is known of the probes and ejections of all backends.
#[derive(Debug, Clone, Default)]
pub(crate) struct HealthBook {
    /// By the probes of each backend.
    pub(crate) verdicts: HashMap<BackendId, BackendVerdict>,
    pub(crate) probes: HashMap<BackendId, ProbeCounts>,
    /// When the certificates expire that backends have shown, in seconds since the epoch.
    pub(crate) certificates: HashMap<BackendId, u64>,
    /// Of backends that are ejected now.
    pub(crate) ejections: HashMap<BackendId, BackendVerdict>,
}

impl HealthBook {
    /// Counts the result of one probe.
    pub(crate) fn count_probe(&mut self, backend: BackendId, passed: bool) {
        let counts = self.probes.entry(backend).or_default();
        if passed {
            counts.passed += 1;
        } else {
            counts.failed += 1;
        }
    }

    /// Drops what is known of the probes of a backend that has none (yet).
    pub(crate) fn forget_probes(&mut self, backend: BackendId) {
        self.verdicts.remove(&backend);
        self.probes.remove(&backend);
        self.certificates.remove(&backend);
    }

    /// Records why a verdict stands that nothing has changed.
    pub(crate) fn explain_verdict(&mut self, backend: BackendId, reason: String) {
        self.verdicts.insert(backend, BackendVerdict::from_now(reason));
    }

    /// Records when the certificate of a backend expires, in seconds since the epoch, or that it
    /// has shown none.
    pub(crate) fn set_certificate(&mut self, backend: BackendId, not_after: Option<u64>) {
        match not_after {
            Some(not_after) => self.certificates.insert(backend, not_after),
            None => self.certificates.remove(&backend),
        };
    }
}
