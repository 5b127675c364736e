//! `[global]` and `[admin]`: what concerns the process as a whole.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Purpose, socket};
use crate::policy::terms::Word;

use super::file::{Field, Section};
use super::keys::Table;
use super::report::{Finding, Place, Report};
use super::scalar;
use super::unix::{PATH_LENGTH_MAX, PREFIX};
use super::{Admin, Global, Log, LogFormat, LogLevel, SpliceMode};

/// Most threads.
const WORKERS_MAX: u64 = 256;
/// Most sessions of a process, a listener or a backend.
pub(super) const SESSIONS_MAX: u64 = 100_000_000;
/// Longest time that can be asked for.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Longest busy wait: more is a mistake, not a latency.
const SPIN_MAX: Duration = Duration::from_secs(1);
/// Largest seed that every TOML reader understands.
const SEED_MAX: u64 = i64::MAX as u64;
/// Where the control socket is unless the file says otherwise.
const SOCKET: &str = "/run/evenkeel/admin.sock";
/// Longest path a Unix socket may have.
const SOCKET_LENGTH_MAX: usize = PATH_LENGTH_MAX;

impl Default for Global {
    fn default() -> Self {
        Self {
            workers: None,
            max_sessions: None,
            pin_workers: false,
            drain_timeout: Duration::from_secs(300),
            shutdown_delay: Duration::ZERO,
            splice: SpliceMode::Auto,
            spin: Duration::ZERO,
            hash_seed: 0,
            log: Log { level: LogLevel::Info, format: LogFormat::Auto, sessions: true },
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { socket: PathBuf::from(SOCKET), socket_required: false, http: None }
    }
}

/// Reads `[global]`.
pub(super) fn global(section: Option<&Section<'_>>, report: &mut Report<'_>) -> Global {
    let default = Global::default();
    let Some(section) = section else { return default };
    section.refuse_unknown(Table::Global, report);
    let any = Duration::ZERO..=LONGEST;
    let workers = section
        .read("workers", report, |value, report| {
            scalar::auto_or_count(value, 1..=WORKERS_MAX, report)
        })
        .or(None);
    Global {
        workers: workers.and_then(|count| usize::try_from(count).ok()),
        max_sessions: section
            .read("max_sessions", report, |value, report| {
                scalar::auto_or_count(value, 1..=SESSIONS_MAX, report)
            })
            .or(None),
        pin_workers: section.boolean("pin_workers", report).or(default.pin_workers),
        drain_timeout: section
            .duration("drain_timeout", any.clone(), report)
            .or(default.drain_timeout),
        shutdown_delay: section.duration("shutdown_delay", any, report).or(default.shutdown_delay),
        splice: section.word("splice", SpliceMode::WORDS, report).or(default.splice),
        spin: section.duration("spin", Duration::ZERO..=SPIN_MAX, report).or(default.spin),
        hash_seed: section
            .read("hash_seed", report, |value, report| scalar::count(value, 0..=SEED_MAX, report))
            .or(default.hash_seed),
        log: log(section, default.log, report),
    }
}

/// Reads `log` of `[global]`.
fn log(section: &Section<'_>, default: Log, report: &mut Report<'_>) -> Log {
    let Some(section) = section.open("log", Table::Log, report) else { return default };
    Log {
        level: section.word("level", LogLevel::WORDS, report).or(default.level),
        format: section.word("format", LogFormat::WORDS, report).or(default.format),
        sessions: section.boolean("sessions", report).or(default.sessions),
    }
}

/// Reads `[admin]`; also where `http` stands, to compare it with the listeners.
pub(super) fn admin(
    section: Option<&Section<'_>>,
    report: &mut Report<'_>,
) -> (Admin, Option<Place>) {
    let mut admin = Admin::default();
    let Some(section) = section else { return (admin, None) };
    section.refuse_unknown(Table::Admin, report);
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
