//! What becomes of a file that is imported.

use super::notes::{ImportNote, NoteKind};
use super::place::SourcePlace;

/// A configuration made of another program's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The text of a configuration file, which [`crate::config::parse`] accepts.
    pub text: String,
    /// What is not in it, and what means something else there, in the order of the file.
    pub notes: Vec<ImportNote>,
}

impl Import {
    /// Whether every statement has its counterpart in [`Self::text`].
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.notes.iter().all(|note| note.kind != NoteKind::NotCarriedOver)
    }
}

/// Why a file cannot be imported at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError {
    /// Where it is.
    pub place: SourcePlace,
    /// What is wrong there.
    pub message: String,
}

impl std::fmt::Display for ImportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ImportError {}
