//! `[global]` and `[admin]`: what concerns the process as a whole.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv6Net;

use crate::policy::terms::SpliceMode;

use super::address::{Purpose, socket};
use super::bounds::{LONGEST, SECOND, SESSIONS_MAX, ZERO};
use super::entries::Entries;
use super::file::{Field, Section, Value, quoted, shown};
use super::key::{Key, KeyTable, Shape, words};
use super::log::{LOG, Log, log};
use super::nat64::{WELL_KNOWN, nat64};
use super::report::{FilePlace, Finding, Report};
use super::scalar;
use super::unix::{PATH_LENGTH_MAX, PREFIX};

/// Largest seed that every TOML reader understands.
const SEED_MAX: u64 = i64::MAX as u64;
/// Largest number up to which floats of 64 bits hold every whole number.
const EXACT_MAX: u64 = 1 << 53;

/// Keys of `[global]`.
pub(super) static GLOBAL: KeyTable = KeyTable {
    name: "Global",
    title: "[global]",
    sample: "",
    keys: &[
        Key::new("workers", Shape::AutoOrCount(1, 256))
            .default("auto")
            .reload("restart")
            .means("Threads that move bytes."),
        Key::new("max_sessions", Shape::AutoOrCount(1, SESSIONS_MAX))
            .default("auto")
            .means("Sessions the process holds at once; more are refused (`max_sessions`)."),
        Key::new("pin_workers", Shape::Boolean)
            .default("false")
            .reload("restart")
            .means("Bind worker N to the N-th CPU it may use."),
        Key::new("drain_timeout", Shape::Duration(ZERO, LONGEST))
            .default("5m")
            .reload("now")
            .means("When stopping: how long sessions may go on before they are reset."),
        Key::new("shutdown_delay", Shape::Duration(ZERO, LONGEST))
            .default("0s")
            .reload("now")
            .means(
                "When stopping: `/readyz` says 503 but connections are still accepted for this \
                    long, so that whatever routes here can notice.",
            ),
        Key::new("splice", Shape::Word(words::<SpliceMode>))
            .default("auto")
            .reload("now; `\"always\"` new")
            .means("Move bytes through a kernel pipe instead of a buffer."),
        Key::new("spin", Shape::Duration(ZERO, SECOND)).default("0us").reload("restart").means(
            "Wait busily for up to this long before sleeping, while recent waits were about \
                    as short: lower latency for a client that talks all the time (try `\"50us\"`).",
        ),
        Key::new("hash_seed", Shape::Count(0, SEED_MAX))
            .default("0")
            .means("Seed of the Maglev hash."),
        Key::new("nat64", Shape::List("networks")).default(WELL_KNOWN).means(
            "Prefixes of translators: their clients are their IPv4 address for limits, lists and \
                hashes.",
        ),
        Key::new("log", Shape::Table(&LOG))
            .or_else("see below")
            .reload("now")
            .means("What is logged."),
    ],
    also: &[],
};
/// Keys of `[admin]`.
pub(super) static ADMIN: KeyTable = KeyTable {
    name: "Admin",
    title: "[admin]",
    sample: "",
    keys: &[
        Key::new("socket", Shape::TextOf("absolute path", 1, PATH_LENGTH_MAX))
            .default("/run/evenkeel/admin.sock")
            .reload("restart")
            .means("Control socket, mode 0600: a program that may open it controls the process."),
        Key::new("http", Shape::Text("IP address"))
            .or_else("off")
            .reload("restart")
            .means("Read-only page over TCP: `/`, `/metrics`, `/v1/status`, `/livez`, `/readyz`."),
        Key::new("hosts", Shape::List("host names")).default("[]").reload("now").means(
            "Names by which `http` may be asked, beside addresses, `localhost` and the name of \
                this host.",
        ),
    ],
    also: &[],
};
/// `[global]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Data-plane threads; `None` is "auto": as many as CPUs this process may use.
    pub workers: Option<usize>,
    /// Sessions the process will hold at once; `None` is "auto": from limits of the process.
    pub max_sessions: Option<u64>,
    /// Bind worker N to the N-th CPU this process may use.
    pub pin_workers: bool,
    /// How long a stopping process waits for its sessions before it resets them.
    pub drain_timeout: Duration,
    /// How long a stopping process still accepts while it already reports "not ready".
    pub shutdown_delay: Duration,
    /// When bytes are spliced instead of copied.
    pub splice: SpliceMode,
    /// How long a worker polls without sleeping before it blocks.
    pub spin: Duration,
    /// Seed of the stable hash; the same on every node that must agree.
    pub hash_seed: u64,
    /// Prefixes of translators.
    pub nat64: Vec<Ipv6Net>,
    /// What is logged and how.
    pub log: Log,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Path of the Unix control socket.
    pub socket: PathBuf,
    /// True when the file names the socket: failing to make it is then fatal, else a warning.
    pub socket_required: bool,
    /// Address of the read-only HTTP page; `None` is off.
    pub http: Option<SocketAddr>,
    /// Names by which the page may be asked for, in lower case, beside those of this host.
    pub hosts: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        let socket = Section::absent(&ADMIN).default_text("socket");
        let socket = PathBuf::from(socket);
        Self { socket, socket_required: false, http: None, hosts: Vec::new() }
    }
}

/// Reads `[global]`.
pub(super) fn global(section: &Section<'_>, report: &mut Report<'_>) -> Global {
    let hash_seed = section.count_or_default("hash_seed", report);
    if let Some(seed) = section.get("hash_seed")
        && hash_seed > EXACT_MAX
    {
        let finding = Finding::new("programs that keep numbers as floats cannot read this file")
            .hint(format!("a `hash_seed` up to {EXACT_MAX} is read by all"));
        report.warning(&seed.place, finding);
    }
    let workers = section.auto_or_count("workers", report);
    Global {
        workers: workers.and_then(|count| usize::try_from(count).ok()),
        max_sessions: section.auto_or_count("max_sessions", report),
        pin_workers: section.boolean_or_default("pin_workers", report),
        drain_timeout: section.duration_or_default("drain_timeout", report),
        shutdown_delay: section.duration_or_default("shutdown_delay", report),
        splice: section.word_or_default("splice", report),
        spin: section.duration_or_default("spin", report),
        hash_seed,
        nat64: nat64(section, report),
        log: log(section, report),
    }
}

/// Reads `[admin]`; also where `http` stands, to compare it with the listeners.
pub(super) fn admin(
    section: Option<&Section<'_>>,
    report: &mut Report<'_>,
) -> (Admin, Option<FilePlace>) {
    let mut admin = Admin::default();
    let Some(section) = section else { return (admin, None) };
    if let Some(socket) = section.read("socket", report, socket_path).value() {
        admin.socket = socket;
        admin.socket_required = true;
    }
    let http = section.read("http", report, |value, report| socket(value, Purpose::Show, report));
    let place = http.place().cloned();
    admin.http = Field::value(http);
    let hosts = section.read("hosts", report, |value, report| {
        scalar::list(value, "[\"lb.example.com\"]", report, host_name)
    });
    admin.hosts = hosts.or(Vec::new());
    (admin, place)
}

/// A name as it stands in a `Host` header, without a port.
fn host_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a host name such as \"lb.example.com\"";
    let text = scalar::string(value, EXPECTED, report)?.to_ascii_lowercase();
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if !text.is_empty() && text.chars().all(is_plain) {
        return Some(text);
    }
    let finding = Finding::new(format!("`{}` is no host name", shown(&text))).expected(EXPECTED);
    report.error(&value.place, finding.hint("write the name alone, without a port"));
    None
}

/// An absolute path that fits into a socket's address.
fn socket_path(value: &Value<'_>, report: &mut Report<'_>) -> Option<PathBuf> {
    const EXPECTED: &str = "an absolute path such as \"/run/evenkeel/admin.sock\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let finding = if !text.starts_with('/') {
        let bare = text.strip_prefix(PREFIX).filter(|path| path.starts_with('/'));
        let finding = Finding::new("`socket` is no absolute path").expected(EXPECTED);
        match bare {
            Some(path) => finding.hint(format!("write \"{path}\"")),
            None => finding,
        }
    } else if text.len() > PATH_LENGTH_MAX {
        Finding::new("`socket` is too long")
            .expected(format!("a path of at most {PATH_LENGTH_MAX} bytes"))
    } else {
        return Some(PathBuf::from(text));
    };
    report.error(&value.place, finding);
    None
}

impl Global {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        Entries::default()
            .plain("workers", auto(self.workers))
            .plain("max_sessions", auto(self.max_sessions))
            .plain("pin_workers", self.pin_workers)
            .duration("drain_timeout", self.drain_timeout)
            .duration("shutdown_delay", self.shutdown_delay)
            .word("splice", self.splice)
            .duration("spin", self.spin)
            .plain("hash_seed", self.hash_seed)
            .list("nat64", &self.nat64)
            .table("log", &self.log.entries())
    }
}

impl Admin {
    /// Its keys as `evenkeel config` shows them. The default socket is a comment, because naming it
    /// makes it required.
    pub(super) fn entries(&self) -> Entries {
        let name = if self.socket_required { "socket" } else { "# socket" };
        Entries::default()
            .text(name, self.socket.to_string_lossy())
            .given(self.http, |out, http| out.text("http", http))
            .list("hosts", &self.hosts)
    }
}

/// A number, or "auto".
fn auto<T: Display>(value: Option<T>) -> String {
    value.map_or(quoted("auto"), |value| value.to_string())
}
