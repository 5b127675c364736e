//! `import`: a configuration of another program, as evenkeel's.

use std::process::ExitCode;

use evenkeel::import::{Disk, haproxy, nginx};

use crate::cli::exit::{BAD_CONFIG, WARNINGS};
use crate::cli::terminal::{complain, fail, say};
use crate::cli::{ImportOptions, ImportPeer};

/// Prints the configuration to stdout and the notes to stderr.
pub(crate) fn import(options: &ImportOptions) -> ExitCode {
    let done = match options.peer {
        ImportPeer::Haproxy => haproxy(&options.file, &Disk),
        ImportPeer::Nginx => nginx(&options.file, &Disk),
    };
    match done {
        Ok(import) => {
            say(&import.text);
            import.notes.iter().for_each(|note| complain(format_args!("{note}\n")));
            if import.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(WARNINGS) }
        }
        Err(error) => {
            fail(error, "docs/migrating.md tells what is carried over");
            ExitCode::from(BAD_CONFIG)
        }
    }
}
