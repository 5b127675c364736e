//! What changes until the moment at which another process begins, copied at that moment: it comes
//! with the word to begin, where the manifest comes first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::control::plane::set_bans::{self, SetBan};
use crate::control::plane::state::Plane;
use crate::control::upgrade::tables::{self, PassedTables};
use crate::sys::sealed;

/// Fields that this version does not know are ignored, those that are missing are empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LatestState {
    pub(crate) tables: PassedTables,
    pub(crate) bans: Vec<SetBan>,
    /// The words of the tables; a file of their own.
    #[serde(skip)]
    pub(crate) words: Vec<u8>,
}

/// Its two files, sealed.
#[derive(Debug)]
pub(crate) struct SealedState {
    described: OwnedFd,
    words: OwnedFd,
}

impl LatestState {
    /// Of this process, now.
    pub(crate) fn of(plane: &Plane) -> Self {
        let (tables, words) = tables::passed(plane);
        Self { tables, bans: set_bans::written(plane.bans.list(plane.now_us())), words }
    }

    /// As files for another process.
    ///
    /// # Errors
    /// As [`sealed::sealed`].
    pub(crate) fn sealed(&self) -> io::Result<SealedState> {
        let described = sealed::sealed(&serde_json::to_vec(self)?)?;
        Ok(SealedState { described, words: sealed::sealed(&self.words)? })
    }

    /// From what came with the word to begin; empty when nothing came.
    ///
    /// # Errors
    /// `InvalidData` when it cannot be understood.
    pub(crate) fn read(files: Vec<OwnedFd>) -> io::Result<Self> {
        let mut files = files.into_iter();
        let Some(described) = files.next() else { return Ok(Self::default()) };
        let mut state: Self = serde_json::from_slice(&sealed::read_sealed(described)?)?;
        state.words = files.next().map(sealed::read_sealed).transpose()?.unwrap_or_default();
        Ok(state)
    }
}

impl SealedState {
    /// In the order in which they are sent.
    pub(crate) fn files(&self) -> [BorrowedFd<'_>; 2] {
        [self.described.as_fd(), self.words.as_fd()]
    }
}
