//! What an import tells beside its result: statements that are not in it, and those that mean
//! something else there.

use std::fmt;

use super::place::SourcePlace;

/// Characters of a statement that a note repeats.
const SHOWN_MAX: usize = 64;

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// The result does without it.
    NotCarriedOver,
    /// It is in the result, where it does not mean quite the same.
    Differs,
}

/// One statement and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportNote {
    /// Where it stands.
    pub place: SourcePlace,
    /// The statement, shortened.
    pub statement: String,
    /// What became of it.
    pub kind: NoteKind,
    /// Why, and what to do instead.
    pub reason: String,
}

impl fmt::Display for ImportNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            NoteKind::NotCarriedOver => "not carried over",
            NoteKind::Differs => "differs",
        };
        write!(f, "{}: {}: {kind}: {}", self.place, self.statement, self.reason)
    }
}

/// Something that a note can be about.
pub(super) trait Noted {
    /// Where it stands.
    fn place(&self) -> SourcePlace;
    /// As it is written, in one line.
    fn shown(&self) -> String;
}

/// Notes as they come up.
#[derive(Debug, Default)]
pub(super) struct Notes {
    list: Vec<ImportNote>,
}

impl Notes {
    /// The result does without this statement.
    pub(super) fn lost(&mut self, what: &dyn Noted, reason: impl Into<String>) {
        self.add(what, NoteKind::NotCarriedOver, reason.into());
    }

    /// This statement does not mean quite the same in the result.
    pub(super) fn differs(&mut self, what: &dyn Noted, reason: impl Into<String>) {
        self.add(what, NoteKind::Differs, reason.into());
    }

    fn add(&mut self, what: &dyn Noted, kind: NoteKind, reason: String) {
        let note =
            ImportNote { place: what.place(), statement: shortened(&what.shown()), kind, reason };
        if !self.list.contains(&note) {
            self.list.push(note);
        }
    }

    /// A message, followed by every note: for a result that does not come about.
    pub(super) fn explaining(self, message: String) -> String {
        let notes = self.in_order();
        notes.iter().fold(message, |text, note| format!("{text}\n{note}"))
    }

    /// All of them, by file as they came and by line.
    pub(super) fn in_order(mut self) -> Vec<ImportNote> {
        let files: Vec<_> = self.list.iter().map(|note| note.place.file.clone()).collect();
        let rank = |note: &ImportNote| files.iter().position(|file| *file == note.place.file);
        self.list.sort_by_cached_key(|note| (rank(note), note.place.line));
        self.list
    }
}

/// A statement without control characters, and no longer than a note can show.
fn shortened(statement: &str) -> String {
    let plain = statement.chars().map(|letter| if letter.is_control() { '?' } else { letter });
    let mut shown: String = plain.clone().take(SHOWN_MAX).collect();
    if plain.count() > SHOWN_MAX {
        shown.push('…');
    }
    shown
}
