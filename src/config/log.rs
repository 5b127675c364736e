//! `log` of `[global]`: which lines there are, how they look, and where they go.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::policy::log_choice::{LogChoice, LoggedSessions};
use crate::policy::terms::Word;

use super::entries::Entries;
use super::file::{Section, Value, quoted, shown};
use super::key::{Key, KeyTable, Shape, words};
use super::network;
use super::report::{Finding, Report};
use super::scalar;
use super::unix::PATH_LENGTH_MAX;

/// What comes before the address of a syslog server.
const SYSLOG_PREFIX: &str = "syslog:";
const STDERR: &str = "stderr";

/// Keys of `log`.
pub(super) static LOG: KeyTable = KeyTable {
    name: "Log",
    title: "`log` of [global]",
    sample: "log = { level = \"info\" }",
    keys: &[
        Key::new("level", Shape::Word(words::<LogLevel>))
            .default("info")
            .reload("now")
            .means("Least important event that is written."),
        Key::new("format", Shape::Word(words::<LogFormat>))
            .default("auto")
            .reload("now")
            .means("How a line looks."),
        Key::new("to", Shape::Text("log target")).default("stderr").reload("now").means(
            "Where lines go: `\"stderr\"`; the end of a file such as \
                `\"/var/log/evenkeel/evenkeel.log\"`, opened again at USR1; a syslog server \
                (RFC 5424), `\"syslog:192.0.2.1:514\"` by UDP or `\"syslog:/dev/log\"`.",
        ),
        Key::new("sessions", Shape::Word(words::<LoggedSessions>))
            .default("all")
            .reload("now")
            .means("Sessions that get a line when they end; refused connections have failed."),
        Key::new("sample", Shape::Count(1, u32::MAX as u64))
            .default("1")
            .reload("now")
            .means("Of the sessions that end in order, one in this many is logged."),
        Key::new("silent", Shape::Boolean).default("true").reload("now").means(
            "Log sessions that their clients ended without a byte either way, such as the checks \
                of a balancer in front.",
        ),
        Key::new("except", Shape::List("networks"))
            .default("[]")
            .reload("now")
            .means("Clients whose sessions are not logged."),
        Key::new("local_addresses", Shape::Boolean).default("false").reload("now").means(
            "Log the addresses of this host in both connections: two system calls for each \
                session.",
        ),
    ],
    also: &[],
};

/// `log = { ... }` of `[global]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least important event that is still written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Where lines go.
    pub to: LogTarget,
    /// Which sessions write a line when they end.
    pub choice: LogChoice,
    /// Clients whose sessions write none.
    pub except: Vec<IpNet>,
}

/// Importance of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures the operator must act on.
    Error,
    /// State changes.
    Warn,
    /// Starts, stops, reloads.
    Info,
    /// One line and more per session.
    Debug,
    /// Everything.
    Trace,
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A row on a terminal, `key=value` for the journal and a syslog server, JSON otherwise.
    Auto,
    /// `key=value` pairs.
    Text,
    /// One JSON object a line.
    Json,
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

/// Where lines of the log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// To stderr of the process.
    Stderr,
    /// To the end of this file, which is made if it is not there.
    File(PathBuf),
    /// To a syslog server at this address, each line a datagram of UDP (RFC 5424, RFC 5426).
    SyslogUdp(SocketAddr),
    /// To a syslog server at this socket, each line a datagram.
    SyslogUnix(PathBuf),
}

impl LogTarget {
    /// Whether lines go to a syslog server.
    #[must_use]
    pub fn is_syslog(&self) -> bool {
        matches!(self, Self::SyslogUdp(_) | Self::SyslogUnix(_))
    }
}

impl fmt::Display for LogTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => formatter.write_str(STDERR),
            Self::File(path) => path.display().fmt(formatter),
            Self::SyslogUdp(address) => write!(formatter, "{SYSLOG_PREFIX}{address}"),
            Self::SyslogUnix(path) => write!(formatter, "{SYSLOG_PREFIX}{}", path.display()),
        }
    }
}

/// Reads `log`.
pub(super) fn log(section: &Section<'_>, report: &mut Report<'_>) -> Log {
    let section = section.open_or_absent("log", report);
    Log {
        level: section.word_or_default("level", report),
        format: section.word_or_default("format", report),
        to: section.read("to", report, target).or(LogTarget::Stderr),
        choice: LogChoice {
            sessions: section.word_or_default("sessions", report),
            sample: u32::try_from(section.count_or_default("sample", report)).unwrap_or(u32::MAX),
            silent: section.boolean_or_default("silent", report),
            local_addresses: section.boolean_or_default("local_addresses", report),
        },
        except: network::list(&section, "except", report).or(Vec::new()),
    }
}

/// Where lines go.
fn target(value: &Value<'_>, report: &mut Report<'_>) -> Option<LogTarget> {
    const EXPECTED: &str =
        "\"stderr\", an absolute path, \"syslog:ADDRESS:PORT\" or \"syslog:/PATH\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let found = match text.strip_prefix(SYSLOG_PREFIX) {
        Some(server) => syslog(server),
        None if text == STDERR => Ok(LogTarget::Stderr),
        None => file(&text).map(LogTarget::File),
    };
    found.map_err(|finding| report.error(&value.place, finding.expected(EXPECTED))).ok()
}

fn syslog(server: &str) -> Result<LogTarget, Finding> {
    if server.starts_with('/') {
        if server.len() > PATH_LENGTH_MAX {
            let finding = Finding::new(format!("this path has {} bytes", server.len()));
            return Err(finding.hint(format!("the kernel takes at most {PATH_LENGTH_MAX}")));
        }
        return file(server).map(LogTarget::SyslogUnix);
    }
    match server.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(LogTarget::SyslogUdp(address)),
        Ok(_) => {
            Err(Finding::new("a syslog server is never at port 0").hint("the usual port is 514"))
        }
        Err(_) => {
            let finding = Finding::new(format!("`{}` is no syslog server", shown(server)));
            let hint = match server.parse::<std::net::IpAddr>() {
                Ok(ip) => {
                    let address = SocketAddr::new(ip, 514);
                    format!("write {}", quoted(&format!("{SYSLOG_PREFIX}{address}")))
                }
                Err(_) if server.starts_with("tcp:") || server.starts_with("tls:") => {
                    "only UDP and Unix sockets are supported: let a syslog server on this host \
                     pass lines on"
                        .to_owned()
                }
                Err(_) => "name its IP address: names are not looked up here".to_owned(),
            };
            Err(finding.hint(hint))
        }
    }
}

/// The absolute path of a file.
fn file(text: &str) -> Result<PathBuf, Finding> {
    if !text.starts_with('/') {
        let finding = Finding::new(format!("`{}` is no absolute path", shown(text)));
        return Err(match text {
            "stdout" => finding.hint("write \"stderr\": stdout is for results"),
            "journal" | "journald" => {
                finding.hint("write \"stderr\": under systemd that is the journal")
            }
            "syslog" => finding.hint("write \"syslog:/dev/log\" for the server of this host"),
            _ => finding,
        });
    }
    if text.ends_with('/') || Path::new(text).file_name().is_none() {
        return Err(
            Finding::new(format!("`{}` is a directory", shown(text))).hint("name a file in it")
        );
    }
    Ok(PathBuf::from(text))
}

impl Log {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        let Self { level, format, to, choice, except } = self;
        Entries::default()
            .word("level", *level)
            .word("format", *format)
            .text("to", to.to_string())
            .word("sessions", choice.sessions)
            .plain("sample", choice.sample)
            .plain("silent", choice.silent)
            .list("except", except)
            .plain("local_addresses", choice.local_addresses)
    }
}
