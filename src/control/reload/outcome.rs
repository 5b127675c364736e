//! What came of a reload, and of what was read instead of the file.

use std::path::PathBuf;

use crate::config::{self, Difference, Parsed, Problem};

/// A configuration that is not in the file of the process.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// How problems name it.
    pub(crate) name: PathBuf,
    pub(crate) text: String,
}

/// What came of a reload.
#[derive(Debug, Clone)]
pub(crate) struct Reloaded {
    /// The file that was read.
    pub(crate) file: String,
    /// The generation in force afterwards, which stays when nothing changed.
    pub(crate) generation: u64,
    /// Each key that has another value.
    pub(crate) differences: Vec<Difference>,
    /// What has changed beside the keys, and what operators have set and stays; one line each.
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: ProblemList,
}

impl Reloaded {
    /// Every change, in a line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let keys = self.differences.iter().map(ToString::to_string);
        keys.chain(self.notes.iter().cloned())
    }

    /// How many lines that is.
    pub(crate) fn lines_count(&self) -> usize {
        self.differences.len() + self.notes.len()
    }
}

/// Why a reload was refused.
#[derive(Debug, Clone)]
pub(crate) struct RefusedReload {
    /// The file that was read.
    pub(crate) file: String,
    /// Warnings among them.
    pub(crate) problems: ProblemList,
    pub(crate) cause: RefusalCause,
}

/// What refuses a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalCause {
    /// The file is wrong, or asks for what takes a restart.
    File,
    /// This host does not let evenkeel listen where the file says.
    Host,
    /// evenkeel is stopping.
    Stopping,
}

/// Problems, for programs and for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProblemList {
    pub(crate) problems: Vec<Problem>,
    /// All of them as text.
    pub(crate) text: String,
}

impl ProblemList {
    /// The problems of a text.
    pub(crate) fn of(parsed: &Parsed, text: &str) -> Self {
        let problems = parsed.problems.clone();
        let text = config::render(&problems, text, false);
        Self { problems, text }
    }
}
