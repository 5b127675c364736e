//! How a session came to its backend, and which were passed over on the way, for the session log
//! and `evenkeel explain`.

use crate::policy::balance::BalanceAlgorithm;
use crate::policy::terms::Word;

use super::ids::BackendId;

/// How many backends that were passed over are kept of one session; a log line names no more.
const SKIPPED_MAX: usize = 8;

/// What decided for a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum By {
    /// Nothing has decided yet.
    #[default]
    Nothing,
    /// The pool's algorithm; `maglev` by the client's slot, or one after it.
    Balance(BalanceAlgorithm),
    /// What the client had before.
    Sticky,
}

impl By {
    /// The value of `balance`, or `sticky`; `None` when nothing has decided.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Balance(algorithm) => Some(algorithm.word()),
            Self::Sticky => Some("sticky"),
        }
    }

    /// What has this [`Self::word`].
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "sticky" => Some(Self::Sticky),
            algorithm => BalanceAlgorithm::of_word(algorithm).map(Self::Balance),
        }
    }
}

/// How one backend was chosen. Every session keeps one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pick {
    /// What decided.
    pub by: By,
    /// The client's own slot, if a Maglev table was asked.
    slot: u32,
}

impl Pick {
    /// A choice without a table.
    #[must_use]
    pub const fn new(by: By) -> Self {
        Self { by, slot: 0 }
    }

    /// By the table in which the client has this slot.
    #[must_use]
    pub const fn in_table(slot: u32) -> Self {
        Self { by: By::Balance(BalanceAlgorithm::Maglev), slot }
    }

    /// The client's own slot; `None` when no table was asked.
    #[must_use]
    pub fn slot(self) -> Option<u32> {
        (self.by == By::Balance(BalanceAlgorithm::Maglev)).then_some(self.slot)
    }
}

/// Why a backend was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its probes fail.
    Down,
    /// It failed too many sessions in a row.
    Ejected,
    /// It is drained.
    Drain,
    /// It is in maintenance.
    Maint,
    /// Its weight is 0.
    NoWeight,
    /// It holds as many sessions as it may.
    Full,
    /// It could not be connected for this very session.
    Failed,
    /// It is above the pool's `load_factor`.
    Loaded,
    /// It came up a short while ago, and its share has not grown up to this client.
    Starting,
}

impl Obstacle {
    /// All of them.
    const ALL: [Self; 9] = [
        Self::Down,
        Self::Ejected,
        Self::Drain,
        Self::Maint,
        Self::NoWeight,
        Self::Full,
        Self::Failed,
        Self::Loaded,
        Self::Starting,
    ];

    /// The one with this [`Self::word`].
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }

    /// One word, for the session log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Drain => "drain",
            Self::Maint => "maint",
            Self::NoWeight => "weight-0",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Loaded => "loaded",
            Self::Starting => "slow-start",
        }
    }
}

/// A backend that was passed over, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// The backend.
    pub backend: BackendId,
    /// What stood in the way when it was met first.
    pub why: Obstacle,
}

/// Adds a skip, unless that backend is listed already or the list is as long as it gets.
pub fn note_skip(list: &mut Vec<Skip>, skip: Skip) {
    let is_known = list.iter().any(|known| known.backend == skip.backend);
    if !is_known && list.len() < SKIPPED_MAX {
        list.push(skip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a session that waits in line for a minute makes the log line, or the memory,
    // grow with every look.
    #[test]
    fn a_backend_is_listed_once_and_the_list_is_short() {
        let mut list = Vec::new();
        for round in 0..3 {
            for index in 0..20 {
                let why = if round == 0 { Obstacle::Down } else { Obstacle::Full };
                note_skip(&mut list, Skip { backend: BackendId::new(index), why });
            }
        }
        assert_eq!(list.len(), SKIPPED_MAX);
        assert!(list.iter().all(|skip| skip.why == Obstacle::Down));
    }

    // If this fails, each session pays more memory for a line that most do not read.
    #[test]
    fn a_pick_is_small_and_slots_belong_to_tables() {
        assert_eq!(size_of::<Pick>(), 8);
        assert_eq!(Pick::in_table(7).slot(), Some(7));
        assert_eq!(Pick::new(By::Balance(BalanceAlgorithm::Random)).slot(), None);
        assert_eq!(Pick::default().by.word(), None);
    }
}
