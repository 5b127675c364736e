//! How lines look, by the format that the file asks for and where they go.

use std::io::{self, IsTerminal};

use crate::config::{Log, LogFormat, LogTarget};
use crate::control::words::wants_colour;
use crate::sys::process::host_name;

/// How lines look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineShape {
    pub(crate) head: LineHead,
    pub(crate) body: LineBody,
}

/// What stands before a line for the program that takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LineHead {
    /// Nothing.
    None,
    /// A priority in the form of sd-daemon(3).
    Journal,
    /// The header of RFC 5424, section 6.2, with the name of this host.
    Syslog(String),
}

/// The line itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineBody {
    /// `key=value`.
    Text,
    /// One JSON object.
    Json,
    /// A row for a person who watches.
    Row {
        /// Whether colour supports the words.
        has_colour: bool,
    },
}

impl LineShape {
    /// Without anything before the line.
    #[cfg(test)]
    pub(crate) fn bare(body: LineBody) -> Self {
        Self { head: LineHead::None, body }
    }

    /// What the configuration asks for; `auto` is a row on a terminal, `key=value` for the journal
    /// and a syslog server, JSON for everything else.
    pub(crate) fn of(log: &Log) -> Self {
        let is_stderr = log.to == LogTarget::Stderr;
        let is_journal = is_stderr && is_journal();
        let body = match log.format {
            LogFormat::Json => LineBody::Json,
            LogFormat::Text => LineBody::Text,
            LogFormat::Auto if is_journal || log.to.is_syslog() => LineBody::Text,
            LogFormat::Auto if is_stderr && io::stderr().is_terminal() => {
                LineBody::Row { has_colour: wants_colour() }
            }
            LogFormat::Auto => LineBody::Json,
        };
        let head = if log.to.is_syslog() {
            LineHead::Syslog(syslog_name(&host_name()))
        } else if is_journal && body == LineBody::Text {
            LineHead::Journal
        } else {
            LineHead::None
        };
        Self { head, body }
    }
}

/// The name of this host as RFC 5424, section 6, has it: printable, at most 255 bytes, `-` for
/// none.
fn syslog_name(name: &str) -> String {
    let name: String = name.chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// Whether stderr is the journal's: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(status) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", status.st_dev, status.st_ino)
}
