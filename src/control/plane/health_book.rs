//! The health of backends for people: the reason of each verdict, counts of probes, certificates,
//! ejections.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::shared::{Backend, BackendId, BackendState, CONNECT_SECONDS, HistogramSums};

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
    /// How long they took, in the buckets of [`CONNECT_SECONDS`].
    pub(crate) seconds: HistogramSums,
}

impl ProbeCounts {
    /// Counts the result of one probe that took this long.
    pub(crate) fn count(&mut self, passed: bool, took: Duration) {
        self.seconds.record(took, &CONNECT_SECONDS);
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }
}

/// The health of one backend.
#[derive(Debug, Clone)]
pub(crate) struct BackendHealth {
    /// Tells the backend from an earlier one with its id.
    state: Arc<BackendState>,
    /// Of its probes.
    pub(crate) verdict: Option<BackendVerdict>,
    pub(crate) probes: ProbeCounts,
    /// The end of the certificate that it has shown, in seconds since the epoch.
    pub(crate) certificate: Option<u64>,
    /// Its present ejection.
    pub(crate) ejection: Option<BackendVerdict>,
}

/// The health of all backends. An id that is used again starts clean.
#[derive(Debug, Clone, Default)]
pub(crate) struct HealthBook(HashMap<BackendId, BackendHealth>);

impl HealthBook {
    /// The health of a backend, to be changed.
    pub(crate) fn of(&mut self, backend: &Backend) -> &mut BackendHealth {
        let clean = || BackendHealth {
            state: Arc::clone(&backend.state),
            verdict: None,
            probes: ProbeCounts::default(),
            certificate: None,
            ejection: None,
        };
        let entry = self.0.entry(backend.id).or_insert_with(clean);
        if !Arc::ptr_eq(&entry.state, &backend.state) {
            *entry = clean();
        }
        entry
    }

    /// The health of a backend, if something is known of it.
    pub(crate) fn get(&self, backend: &Backend) -> Option<&BackendHealth> {
        let entry = self.0.get(&backend.id)?;
        Arc::ptr_eq(&entry.state, &backend.state).then_some(entry)
    }

    /// What is known of a backend by its probes holds of another one, which is the same by another
    /// name.
    pub(crate) fn know_as(&mut self, old: &Backend, new: &Backend) {
        let Some(known) = self.get(old) else { return };
        let (verdict, certificate) = (known.verdict.clone(), known.certificate);
        let entry = self.of(new);
        entry.verdict = verdict;
        entry.certificate = certificate;
    }

    /// Drops the results of a backend's probes.
    pub(crate) fn forget_probes(&mut self, backend: &Backend) {
        match self.get(backend).map(|entry| entry.ejection.is_some()) {
            None => {}
            Some(false) => self.forget(backend),
            Some(true) => {
                let entry = self.of(backend);
                entry.verdict = None;
                entry.probes = ProbeCounts::default();
                entry.certificate = None;
            }
        }
    }

    /// Drops what is known of a backend that is gone.
    pub(crate) fn forget(&mut self, backend: &Backend) {
        if self.get(backend).is_some() {
            self.0.remove(&backend.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Address, PoolId};

    fn backend() -> Backend {
        Backend {
            id: BackendId::new(3),
            pool: PoolId::new(0),
            pool_name: "p".to_owned(),
            name: "b".to_owned(),
            address: Address::Ip(([192, 0, 2, 1], 80).into()),
            weight: 1,
            sessions_max: None,
            backup: false,
            measured: false,
            line: None,
            source: None,
            state: Arc::new(BackendState::new(1, true, 0)),
        }
    }

    // If this fails, a new backend is shown with the ejection, the probes or the certificate of the
    // one that had its id before.
    #[test]
    fn an_id_that_is_used_again_starts_clean() {
        let (old, new) = (backend(), backend());
        let mut book = HealthBook::default();
        let entry = book.of(&old);
        entry.ejection = Some(BackendVerdict::from_now("for 30s: reset"));
        entry.verdict = Some(BackendVerdict::from_now("probe passed"));
        entry.certificate = Some(1);
        entry.probes.count(false, Duration::from_secs(1));
        assert!(book.get(&old).is_some() && book.get(&new).is_none());
        book.forget(&new);
        assert!(book.get(&old).is_some(), "not its own");
        let entry = book.of(&new);
        assert!(entry.ejection.is_none() && entry.verdict.is_none());
        assert_eq!((entry.certificate, entry.probes), (None, ProbeCounts::default()));
        assert!(book.get(&old).is_none());
        book.forget(&new);
        assert!(book.get(&new).is_none());
    }
}
