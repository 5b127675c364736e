//! What goes to the terminal: results to stdout, complaints to stderr.
//!
//! A reader that goes away early (`| head`) is no error, and never a panic.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Prints a result, as it is.
pub(crate) fn say(text: impl Display) {
    // Whoever closed stdout does not want it.
    let _gone = write!(io::stdout().lock(), "{text}").and_then(|()| io::stdout().flush());
}

/// Prints to stderr, as it is.
pub(crate) fn complain(text: impl Display) {
    let _gone = write!(io::stderr().lock(), "{text}");
}

/// Prints what failed and what to do about it.
pub(crate) fn fail(what: impl Display, help: &str) {
    complain(format_args!("evenkeel: {what}\n"));
    if !help.is_empty() {
        complain(format_args!("help: {help}\n"));
    }
}

/// Whether colour helps on stdout.
pub(crate) fn stdout_has_colour() -> bool {
    io::stdout().is_terminal() && wants_colour()
}

/// Whether colour helps on stderr.
pub(crate) fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && wants_colour()
}

/// The convention of no-color.org.
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
