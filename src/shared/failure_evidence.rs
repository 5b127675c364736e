//! Failures in a row that real sessions met at one backend.
//!
//! **Synchronization.** Workers write, relaxed, the control plane looks now and then; numbers are
//! evidence, not accounts, and one that a race loses is one of several. A backend that serves is
//! only read here: the row is written on a failure, and by the first success after one.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use super::reasons::{ConnectFailure, Symptom};

/// The row of one backend.
#[derive(Debug, Default)]
pub struct FailureEvidence {
    row: AtomicU32,
    /// Whether the row may eject the backend.
    judged: AtomicBool,
    /// The row that ejected it last.
    decisive: AtomicU32,
    /// Index of the latest [`Symptom`].
    symptom: AtomicU8,
}

impl FailureEvidence {
    /// One more failure.
    #[cold]
    pub fn failed(&self, symptom: Symptom) {
        self.symptom.store(symptom.index(), Ordering::Relaxed);
        self.row.fetch_add(1, Ordering::Relaxed);
    }

    /// A success: the row is over.
    pub fn served(&self) {
        if self.row.load(Ordering::Relaxed) != 0 {
            self.row.store(0, Ordering::Relaxed);
        }
    }

    /// Failures in a row up to now.
    #[must_use]
    pub fn row(&self) -> u32 {
        self.row.load(Ordering::Relaxed)
    }

    /// Whether the row may eject the backend.
    #[must_use]
    pub fn is_judged(&self) -> bool {
        self.judged.load(Ordering::Relaxed)
    }

    /// Starts to judge the backend, or stops.
    pub fn set_judged(&self, judged: bool) {
        self.judged.store(judged, Ordering::Relaxed);
    }

    /// Records the row that ejects the backend.
    pub fn decide(&self, row: u32) {
        self.decisive.store(row, Ordering::Relaxed);
    }

    /// The row that ejected the backend last.
    #[must_use]
    pub fn decisive(&self) -> u32 {
        self.decisive.load(Ordering::Relaxed)
    }

    /// How the latest failure looked.
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        Symptom::at(self.symptom.load(Ordering::Relaxed))
    }

    /// Forgets the row.
    pub fn clear(&self) {
        self.row.store(0, Ordering::Relaxed);
    }
}

impl Symptom {
    fn index(self) -> u8 {
        let index = match self {
            Self::Connect(failure) => failure.index(),
            Self::Reset => ConnectFailure::ALL.len(),
            Self::Closed => ConnectFailure::ALL.len() + 1,
        };
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    fn at(index: u8) -> Self {
        let index = usize::from(index);
        match ConnectFailure::ALL.get(index) {
            Some(failure) => Self::Connect(*failure),
            None if index == ConnectFailure::ALL.len() => Self::Reset,
            None => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_ends_the_row() {
        // If this fails, a backend that failed now and then is ejected.
        let evidence = FailureEvidence::default();
        for _ in 0..5 {
            evidence.failed(Symptom::Reset);
        }
        assert_eq!(evidence.row(), 5);
        evidence.served();
        evidence.failed(Symptom::Closed);
        assert_eq!((evidence.row(), evidence.symptom()), (1, Symptom::Closed));
        evidence.clear();
        assert_eq!(evidence.row(), 0);
    }

    #[test]
    fn every_symptom_is_remembered_as_itself() {
        // If this fails, the log gives a wrong reason for an ejection.
        let connects = ConnectFailure::ALL.map(Symptom::Connect);
        for symptom in connects.into_iter().chain([Symptom::Reset, Symptom::Closed]) {
            let evidence = FailureEvidence::default();
            evidence.failed(symptom);
            assert_eq!(evidence.symptom(), symptom);
        }
    }
}
