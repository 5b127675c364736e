//! Whether one direction of a session copies its next batch or splices it: small reads are copied,
//! large ones spliced.

use crate::shared::{PathKind, SpliceMode};

/// Reads at least this large, twice in a row, switch a direction to splicing.
const LARGE_READ_BYTES: usize = 32 * 1024;
/// Fills smaller than this, twice in a row, switch it back to copying.
const SMALL_FILL_BYTES: usize = 8 * 1024;
/// How many in a row.
const IN_A_ROW: u8 = 2;

/// The path of one direction, and what speaks for the other.
#[derive(Debug)]
pub(super) struct PathChoice {
    path: PathKind,
    in_a_row: u8,
}

impl PathChoice {
    /// Of a direction that has moved nothing yet.
    pub(super) fn new(splice: SpliceMode) -> Self {
        let path = if splice == SpliceMode::Always { PathKind::Splice } else { PathKind::Copy };
        Self { path, in_a_row: 0 }
    }

    /// As [`Self::parts`] told of it, in another process.
    pub(super) fn resumed(path: PathKind, in_a_row: u8) -> Self {
        Self { path, in_a_row: in_a_row.min(IN_A_ROW - 1) }
    }

    /// The path, and how many batches in a row speak for the other.
    pub(super) fn parts(&self) -> (PathKind, u8) {
        (self.path, self.in_a_row)
    }

    /// Whether the next batch is to be spliced.
    #[inline]
    pub(super) fn is_splice(&self, splice: SpliceMode) -> bool {
        self.path == PathKind::Splice && splice != SpliceMode::Never
    }

    /// A batch was copied, of at most `most` bytes.
    #[inline]
    pub(super) fn copied(&mut self, bytes: usize, most: usize, splice: SpliceMode) {
        self.choose(bytes >= large_read(most) && splice != SpliceMode::Never);
    }

    /// A pipe was filled.
    pub(super) fn filled(&mut self, bytes: usize, splice: SpliceMode) {
        if splice == SpliceMode::Auto {
            self.choose(bytes >= SMALL_FILL_BYTES);
        }
    }

    /// Counts batches that speak for the other path and switches after a few in a row.
    #[inline]
    fn choose(&mut self, for_splice: bool) {
        let wanted = if for_splice { PathKind::Splice } else { PathKind::Copy };
        if wanted == self.path {
            self.in_a_row = 0;
            return;
        }
        self.in_a_row += 1;
        if self.in_a_row == IN_A_ROW {
            self.path = wanted;
            self.in_a_row = 0;
        }
    }
}

/// Bytes that make a read a large one. Where fewer may be taken at once that is no reason to copy
/// them, unless a fill that large would be a small one.
fn large_read(most: usize) -> usize {
    if most < SMALL_FILL_BYTES { LARGE_READ_BYTES } else { most.min(LARGE_READ_BYTES) }
}
