//! What may change about the log while the process runs, and what was lost.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::config::{Log, LogFormat};
use crate::control::log::level::Level;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineShape {
    /// Text.
    Text,
    /// Text after a priority in the form of sd-daemon(3).
    Journal,
    /// One JSON object.
    Json,
}

impl LineShape {
    /// The inverse of `as u8`.
    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Text,
            1 => Self::Journal,
            _ => Self::Json,
        }
    }
}

/// What may change while the process runs, and what was lost.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    level: AtomicU8,
    shape: AtomicU8,
    /// Whether session records are made.
    pub(crate) sessions: Arc<AtomicBool>,
    /// Lines that found no room or could not be written.
    pub(crate) dropped: Arc<AtomicU64>,
}

impl Settings {
    /// Takes over what the configuration says.
    pub(crate) fn apply(&self, log: &Log) {
        self.level.store(Level::from(log.level) as u8, Ordering::Relaxed);
        self.shape.store(shape_of(log.format) as u8, Ordering::Relaxed);
        self.sessions.store(log.sessions, Ordering::Relaxed);
    }

    /// The least important level that is written.
    pub(crate) fn level(&self) -> Level {
        Level::from_bits(self.level.load(Ordering::Relaxed))
    }

    /// How lines look.
    pub(crate) fn shape(&self) -> LineShape {
        LineShape::from_bits(self.shape.load(Ordering::Relaxed))
    }

    /// Counts lines that are lost.
    pub(crate) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Text for people, JSON for machines.
fn shape_of(format: LogFormat) -> LineShape {
    match format {
        LogFormat::Json => LineShape::Json,
        LogFormat::Text | LogFormat::Auto if is_journal() => LineShape::Journal,
        LogFormat::Text => LineShape::Text,
        LogFormat::Auto if io::stderr().is_terminal() => LineShape::Text,
        LogFormat::Auto => LineShape::Json,
    }
}

/// Whether stderr is the journal's: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(status) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", status.st_dev, status.st_ino)
}
