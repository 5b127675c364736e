//! Configurations of HAProxy and nginx, as evenkeel's: what `evenkeel import` prints.
//!
//! Each peer has a parser of its own, which knows its grammar and nothing else, and translators
//! that fill one draft. Every statement is carried over, or it is in a note with its place and
//! the reason: nothing is dropped in silence. What the peer does by default and evenkeel does
//! otherwise is written out in the result. No file is opened but through `files`.
//!
//! ADR 0057 has the reasons.

mod access;
mod amounts;
mod draft;
mod emit;
mod endpoint;
mod files;
mod finish;
mod haproxy;
mod networks;
mod nginx;
mod notes;
mod outcome;
mod place;
mod server_name;

use std::path::Path;

pub use files::{Disk, ImportFiles, NoFiles};
pub use notes::{ImportNote, NoteKind};
pub use outcome::{Import, ImportError};
pub use place::SourcePlace;

use draft::Draft;
use notes::Notes;

/// Imports a configuration of HAProxy.
///
/// # Errors
/// When the file cannot be read, or HAProxy itself could not read it.
pub fn haproxy(file: &Path, files: &dyn ImportFiles) -> Result<Import, ImportError> {
    let text = files::read(file, files)?;
    let mut notes = Notes::default();
    let draft = haproxy::translate(&file.display().to_string(), &text, &mut notes)?;
    done("haproxy", file, draft, notes)
}

/// Imports the `stream` block of a configuration of nginx, with the files that it includes.
///
/// # Errors
/// When a file cannot be read, or nginx itself could not read it.
pub fn nginx(file: &Path, files: &dyn ImportFiles) -> Result<Import, ImportError> {
    let mut notes = Notes::default();
    let draft = nginx::translate(file, files, &mut notes)?;
    done("nginx", file, draft, notes)
}

fn done(
    peer: &str,
    file: &Path,
    mut draft: Draft,
    mut notes: Notes,
) -> Result<Import, ImportError> {
    finish::finish(&mut draft, &mut notes);
    let place = SourcePlace::new(&file.display().to_string(), 1);
    if draft.listeners.is_empty() {
        let message = "nothing in it can be carried over".to_owned();
        return Err(ImportError { place, message: notes.explaining(message) });
    }
    let text = emit::emit(peer, file, &draft);
    let parsed = crate::config::parse(&text, Path::new("result"));
    match parsed.problems.iter().find(|problem| problem.severity == crate::config::Severity::Error)
    {
        None => Ok(Import { text, notes: notes.in_order() }),
        Some(problem) => {
            let message = format!(
                "the result would not be valid ({}: {}): change the file there",
                problem.key, problem.message
            );
            Err(ImportError { place, message: notes.explaining(message) })
        }
    }
}
