//! A relay described for another process, and one that goes on as described.

use std::io;

use crate::shared::PathKind;

use super::super::path_choice::PathChoice;
use super::super::wire::{Holds, Wire};
use super::{Held, Relay, State};

/// One direction of a session that changes hands. What it holds goes beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedRelay {
    /// How far it has come, in a word.
    pub state: String,
    /// Whether its next batch is to be spliced.
    pub is_spliced: bool,
    /// How many batches in a row speak against that.
    pub in_a_row: u8,
    /// Bytes delivered through a buffer.
    pub copied: u64,
    /// Bytes delivered through a pipe.
    pub spliced: u64,
    /// Bytes that it holds.
    pub held: usize,
}

/// How far a relay has come, in a word for other processes.
const STATES: [(&str, State); 5] = [
    ("open", State::Open),
    ("ending", State::Ending),
    ("finished", State::Finished),
    ("aborting", State::Aborting),
    ("broken", State::Broken),
];

impl<P: Holds> Relay<P> {
    /// Takes what it holds out of the pipe, which goes back.
    pub(in super::super) fn keep_in_buffer<W: Wire<Pipe = P>>(
        &mut self,
        wire: &mut W,
    ) -> io::Result<()> {
        if let Held::Pipe(pipe) = &mut self.held {
            let bytes = wire.unload(pipe)?;
            self.drop_held(wire);
            self.held = Held::Buffer { bytes, sent: 0 };
        }
        Ok(())
    }

    /// It, described; nothing may be in a pipe.
    pub(crate) fn passed(&self) -> PassedRelay {
        debug_assert!(!matches!(self.held, Held::Pipe(_)), "bytes are left in a pipe");
        let (path, in_a_row) = self.path.parts();
        let state = STATES.iter().find(|(_, state)| *state == self.state);
        PassedRelay {
            state: state.map_or("", |(word, _)| word).to_owned(),
            is_spliced: path == PathKind::Splice,
            in_a_row,
            copied: self.copied,
            spliced: self.spliced,
            held: self.held(),
        }
    }

    /// The one described, which holds these bytes; `None` where the description says something
    /// else.
    pub(crate) fn resumed(passed: &PassedRelay, held: &[u8]) -> Option<Self> {
        let path = if passed.is_spliced { PathKind::Splice } else { PathKind::Copy };
        let buffer = || Held::Buffer { bytes: held.into(), sent: 0 };
        (held.len() == passed.held).then_some(Self {
            held: if held.is_empty() { Held::Nothing } else { buffer() },
            state: STATES.iter().find(|(word, _)| *word == passed.state)?.1,
            path: PathChoice::resumed(path, passed.in_a_row),
            copied: passed.copied,
            spliced: passed.spliced,
        })
    }
}
