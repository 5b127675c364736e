//! `[global]` and `[admin]`: what concerns the process as a whole.

use std::path::PathBuf;

use super::address::{Purpose, socket};

use super::file::{Field, Section};
use super::keys::KeyTable;
use super::report::{FilePlace, Finding, Report};
use super::scalar;
use super::unix::{PATH_LENGTH_MAX, PREFIX};
use super::{Admin, Global, Log};

/// Longest path a Unix socket may have.
const SOCKET_LENGTH_MAX: usize = PATH_LENGTH_MAX;

impl Default for Admin {
    fn default() -> Self {
        let socket = Section::absent(KeyTable::Admin).default_text("socket");
        Self { socket: PathBuf::from(socket), socket_required: false, http: None }
    }
}

/// Reads `[global]`.
pub(super) fn global(section: Option<&Section<'_>>, report: &mut Report<'_>) -> Global {
    let absent = Section::absent(KeyTable::Global);
    let section = section.unwrap_or(&absent);
    section.refuse_unknown(report);
    let workers = section.auto_or_count("workers", report);
    Global {
        workers: workers.and_then(|count| usize::try_from(count).ok()),
        max_sessions: section.auto_or_count("max_sessions", report),
        pin_workers: section.boolean_or_default("pin_workers", report),
        drain_timeout: section.duration_or_default("drain_timeout", report),
        shutdown_delay: section.duration_or_default("shutdown_delay", report),
        splice: section.word_or_default("splice", report),
        spin: section.duration_or_default("spin", report),
        hash_seed: section.count_or_default("hash_seed", report),
        log: log(section, report),
    }
}

/// Reads `log` of `[global]`.
fn log(section: &Section<'_>, report: &mut Report<'_>) -> Log {
    let section = section.open("log", report).unwrap_or(Section::absent(KeyTable::Log));
    Log {
        level: section.word_or_default("level", report),
        format: section.word_or_default("format", report),
        sessions: section.boolean_or_default("sessions", report),
    }
}

/// Reads `[admin]`; also where `http` stands, to compare it with the listeners.
pub(super) fn admin(
    section: Option<&Section<'_>>,
    report: &mut Report<'_>,
) -> (Admin, Option<FilePlace>) {
    let mut admin = Admin::default();
    let Some(section) = section else { return (admin, None) };
    section.refuse_unknown(report);
    if let Some(socket) = section.read("socket", report, socket_path).value() {
        admin.socket = socket;
        admin.socket_required = true;
    }
    let http = section.read("http", report, |value, report| socket(value, Purpose::Show, report));
    let place = http.place().cloned();
    admin.http = Field::value(http);
    (admin, place)
}

/// An absolute path that fits into a socket's address.
fn socket_path(value: &super::file::Value<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    const EXPECTED: &str = "an absolute path such as \"/run/evenkeel/admin.sock\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let finding = if !text.starts_with('/') {
        let bare = text.strip_prefix(PREFIX).filter(|path| path.starts_with('/'));
        let finding = Finding::new("`socket` is no absolute path").expected(EXPECTED);
        match bare {
            Some(path) => finding.hint(format!("write \"{path}\"")),
            None => finding,
        }
    } else if text.len() > SOCKET_LENGTH_MAX {
        Finding::new("`socket` is too long")
            .expected(format!("a path of at most {SOCKET_LENGTH_MAX} bytes"))
    } else {
        return Some(PathBuf::from(text));
    };
    report.error(&value.place, finding);
    None
}
