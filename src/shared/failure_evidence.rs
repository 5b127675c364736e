//! Failures in a row that real sessions met at one backend.
//!
//! **Synchronization.** Workers write, relaxed, the control plane looks now and then; numbers are
//! evidence, not accounts, and one that a race loses is one of several. A backend that serves is
//! only read here: the row is written on a failure, and by the first success after one.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::reasons::{ConnectFailure, Symptom};

/// The row of one backend.
#[derive(Debug, Default)]
pub struct FailureEvidence {
    row: AtomicU32,
    /// The longest row since it was last taken: a success must not hide it before anybody looks.
    worst: AtomicU32,
    /// Index of the latest [`Symptom`].
    symptom: AtomicU8,
}

impl FailureEvidence {
    /// One more failure.
    #[cold]
    pub fn failed(&self, symptom: Symptom) {
        let row = self.row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.symptom.store(symptom.index(), Ordering::Relaxed);
        self.worst.fetch_max(row, Ordering::Relaxed);
    }

    /// A success: the row is over.
    pub fn served(&self) {
        if self.row.load(Ordering::Relaxed) != 0 {
            self.row.store(0, Ordering::Relaxed);
        }
    }

    /// The longest row since the last call in which there was a failure; 0 without one.
    #[must_use]
    pub fn take_worst(&self) -> u32 {
        self.worst.swap(0, Ordering::Relaxed)
    }

    /// How the latest failure looked.
    #[must_use]
    pub fn symptom(&self) -> Symptom {
        Symptom::at(self.symptom.load(Ordering::Relaxed))
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.row.store(0, Ordering::Relaxed);
        self.worst.store(0, Ordering::Relaxed);
    }
}

impl Symptom {
    fn index(self) -> u8 {
        let index = match self {
            Self::Connect(failure) => failure.index(),
            Self::Reset => ConnectFailure::ALL.len(),
            Self::Closed => ConnectFailure::ALL.len() + 1,
            Self::Unanswered => ConnectFailure::ALL.len() + 2,
        };
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    fn at(index: u8) -> Self {
        let index = usize::from(index);
        match ConnectFailure::ALL.get(index) {
            Some(failure) => Self::Connect(*failure),
            None if index == ConnectFailure::ALL.len() => Self::Reset,
            None if index == ConnectFailure::ALL.len() + 1 => Self::Closed,
            None => Self::Unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_a_success_ended_is_still_seen_once() {
        // If this fails, a backend that fails five times between two looks is never ejected, or
        // one that failed now and then is.
        let evidence = FailureEvidence::default();
        for _ in 0..5 {
            evidence.failed(Symptom::Reset);
        }
        evidence.served();
        evidence.failed(Symptom::Closed);
        assert_eq!((evidence.take_worst(), evidence.symptom()), (5, Symptom::Closed));
        assert_eq!(evidence.take_worst(), 0);
        evidence.failed(Symptom::Connect(ConnectFailure::Timeout));
        assert_eq!(evidence.take_worst(), 2, "the row goes on over a look");
        evidence.failed(Symptom::Reset);
        evidence.clear();
        evidence.failed(Symptom::Reset);
        assert_eq!(evidence.take_worst(), 1);
    }

    #[test]
    fn every_symptom_is_remembered_as_itself() {
        // If this fails, the log gives a wrong reason for an ejection.
        let connects = ConnectFailure::ALL.map(Symptom::Connect);
        let others = [Symptom::Reset, Symptom::Closed, Symptom::Unanswered];
        for symptom in connects.into_iter().chain(others) {
            let evidence = FailureEvidence::default();
            evidence.failed(symptom);
            assert_eq!(evidence.symptom(), symptom);
        }
    }
}
