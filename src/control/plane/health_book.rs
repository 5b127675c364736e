//! The health of backends for people: the reason of each verdict, counts of probes, certificates,
//! ejections.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::shared::BackendId;

/// The reason for the state of a backend, for people.
#[derive(Debug, Clone)]
pub(crate) struct BackendVerdict {
    /// Why the backend is up, down or ejected, in words.
    pub(crate) reason: String,
    /// The time of the verdict.
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

/// The probes and ejections of all backends.
#[derive(Debug, Clone, Default)]
pub(crate) struct HealthBook {
    /// The verdicts of probes.
    pub(crate) verdicts: HashMap<BackendId, BackendVerdict>,
    pub(crate) probes: HashMap<BackendId, ProbeCounts>,
    /// The ends of the certificates that backends have shown, in seconds since the epoch.
    pub(crate) certificates: HashMap<BackendId, u64>,
    /// Present ejections.
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

    /// Drops verdict, counts and certificate of a backend that has no probes, or none yet.
    pub(crate) fn forget_probes(&mut self, backend: BackendId) {
        self.verdicts.remove(&backend);
        self.probes.remove(&backend);
        self.certificates.remove(&backend);
    }

    /// Records the reason for a verdict that no probe has changed.
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
