//! Why evenkeel did not run: what was attempted, why it failed, what to do about it.

use std::fmt;
use std::io;

use crate::config::KeyPath;

/// Why evenkeel did not run.
#[derive(Debug)]
pub enum RunError {
    /// The configuration is refused; the text shows every problem.
    Config(String),
    /// The file is good, and this host does not let evenkeel listen where it says.
    Host {
        /// Every address, with its place in the file.
        text: String,
        /// Where the file names the first of them; `None` when there is none.
        key: Option<KeyPath>,
        /// Why the first of them failed.
        cause: io::Error,
    },
    /// Something else failed.
    Failed {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
        /// What to do about it; may be empty.
        help: String,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::Host { text, .. } => formatter.write_str(text),
            Self::Failed { what, source, help } if help.is_empty() => {
                write!(formatter, "{what}: {source}")
            }
            Self::Failed { what, source, help } => {
                write!(formatter, "{what}: {source}\nhelp: {help}")
            }
        }
    }
}

impl std::error::Error for RunError {}

/// Names what was attempted when an operation of the system fails.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let what = what.into();
    move |source| RunError::Failed { what, source, help: String::new() }
}
