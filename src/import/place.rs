//! Where a statement stands in the files that are imported.

use std::fmt;
use std::sync::Arc;

/// A line of a file, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePlace {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Its first line, from 1.
    pub line: usize,
    /// Its last line.
    pub last: usize,
}

impl SourcePlace {
    pub(super) fn new(file: &str, line: usize) -> Self {
        Self { file: file.into(), line, last: line }
    }

    /// The same file at another line.
    pub(super) fn at(&self, line: usize) -> Self {
        Self { file: Arc::clone(&self.file), line, last: line }
    }

    /// From here to the line of a later place.
    pub(super) fn to(&self, last: usize) -> Self {
        Self { file: Arc::clone(&self.file), line: self.line, last: last.max(self.line) }
    }
}

impl fmt::Display for SourcePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        if self.last > self.line { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}
