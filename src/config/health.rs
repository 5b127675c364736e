//! `[pool.NAME.health]`: active probes. What one kind of probe asks is read in a file of its own.

use std::net::IpAddr;
use std::time::Duration;

use crate::policy::first_bytes::proxy_header::ProxyVersion;
use crate::policy::terms::{Address, Word};

use super::bounds::{LONGEST, SHORTEST};
use super::companions::report_idle;
use super::entries::Entries;
use super::file::{Section, Value, shown};
use super::http_probe::{PATH_BYTES_MAX, host, method, path, show_statuses, statuses};
use super::key::{Companion, IfIdle, Key, KeyTable, Shape, Values, words};
use super::payload::{PAYLOAD_MAX, escaped, expectation, payload};
use super::report::{FilePlace, Finding, Report};
use super::tls_probe::{Trust, compare_name};
use super::units::show_duration;

const WITH_HTTP: &[Companion] = &[with_probe(&["http"])];
const WITH_HTTP_OR_TLS: &[Companion] = &[with_probe(&["http", "tls"])];
const WITH_SEND_EXPECT: &[Companion] = &[with_probe(&["send-expect"])];
const WITH_TLS: &[Companion] = &[with_probe(&["tls"])];
const WITH_VERIFY: &[Companion] =
    &[with_probe(&["tls"]), Companion::new("verify", Values::Among(&["true"]), IfIdle::Warned)];

const fn with_probe(kinds: &'static [&'static str]) -> Companion {
    Companion::new("probe", Values::Among(kinds), IfIdle::Warned)
}

/// Keys of `[pool.NAME.health]`.
pub(super) static HEALTH: KeyTable = KeyTable {
    name: "Health",
    title: "[pool.NAME.health]",
    sample: "health = { probe = \"tcp\" }",
    keys: &[
        Key::new("probe", Shape::Word(words::<ProbeKind>))
            .default("tcp")
            .reload("now")
            .means("What one probe does."),
        Key::new("path", Shape::TextOf("text", 1, PATH_BYTES_MAX))
            .default("/health")
            .note(
                "; begins with `/`; spaces, `<`, `>`, `#` and what is not ASCII \
                   percent-encoded, the backtick before `?` and `\"` after it too",
            )
            .reload("now")
            .beside(WITH_HTTP)
            .means("http: path and query to ask for."),
        Key::new("host", Shape::Text("text"))
            .or_else("the backend's address; `localhost` on a Unix socket")
            .note("tls: a name, or an IP address")
            .reload("now")
            .beside(WITH_HTTP_OR_TLS)
            .means("http: Host header."),
        Key::new("method", Shape::Text("text"))
            .default("GET")
            .note("a method without a body, not CONNECT")
            .reload("now")
            .beside(WITH_HTTP)
            .means("http: the method of the request."),
        Key::new("status", Shape::List("list"))
            .default("[\"200\"]")
            .note("`\"100\"` to `\"599\"`, or ranges such as `\"200-299\"`")
            .reload("now")
            .beside(WITH_HTTP)
            .means("http: good answers."),
        Key::new("send", Shape::TextOf("bytes", 0, PAYLOAD_MAX))
            .default("PING\\r\\n")
            .reload("now")
            .beside(WITH_SEND_EXPECT)
            .means("send-expect: what is sent first; `\"\"` for servers that speak first."),
        Key::new("expect", Shape::TextOf("bytes", 1, PAYLOAD_MAX))
            .default("+PONG")
            .reload("now")
            .beside(WITH_SEND_EXPECT)
            .means("send-expect: what the answer has to hold, anywhere in its first 64 KiB."),
        Key::new("verify", Shape::Boolean)
            .default("false")
            .reload("now")
            .beside(WITH_TLS)
            .means("tls: whether the certificate is checked."),
        Key::new("ca", Shape::Text("path"))
            .or_else("the system's roots")
            .note("absolute")
            .reload("now")
            .beside(WITH_VERIFY)
            .means(
                "tls, with `verify`: a PEM file of the certificates to trust instead: of \
                    authorities, or the servers' own.",
            ),
        Key::new("port", Shape::Count(1, 65_535))
            .or_else("the backend's port")
            .reload("now")
            .means("Which port is asked, by every kind of probe."),
        Key::new("interval", Shape::Duration(SHORTEST, LONGEST)).default("5s").reload("now").means(
            "From the start of one probe to the start of the next, ±10 %, while the verdict \
                    is settled.",
        ),
        Key::new("fast_interval", Shape::Duration(SHORTEST, LONGEST))
            .default("1s")
            .reload("now")
            .means(
                "Time between probes while a verdict is changing; never longer than `interval`.",
            ),
        Key::new("timeout", Shape::Duration(SHORTEST, LONGEST))
            .default("2s")
            .reload("now")
            .means("How long one probe may take."),
        Key::new("rise", Shape::Count(1, 1_000))
            .default("2")
            .reload("now")
            .means("Passes in a row until a backend is up."),
        Key::new("fall", Shape::Count(1, 1_000))
            .default("3")
            .reload("now")
            .means("Failures in a row until it is down."),
        Key::new("down_backoff", Shape::Duration(SHORTEST, LONGEST))
            .default("30s")
            .reload("now")
            .means(
                "Longest time between probes of a backend that is down: from `fast_interval` \
                    upwards, at random, doubling.",
            ),
        Key::new("initial", Shape::Word(words::<InitialVerdict>))
            .default("up")
            .reload("new backends")
            .means("Verdict before the first probe has ended."),
    ],
    also: &[],
};
/// `[pool.NAME.health]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// What one probe does.
    pub probe: Probe,
    /// The port it asks; `None` is the backend's own.
    pub port: Option<u16>,
    /// Time between probes of a backend whose verdict is settled.
    pub interval: Duration,
    /// Time between probes while a verdict is changing.
    pub fast_interval: Duration,
    /// Bound on one probe.
    pub timeout: Duration,
    /// Passes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
    /// Longest time between probes of a backend that is down.
    pub down_backoff: Duration,
    /// The verdict before the first probe has ended: true is up.
    pub initial_up: bool,
    /// The PROXY header that a probe begins with: the pool's.
    pub send_proxy: Option<ProxyVersion>,
    /// Addresses that a probe may come from: the pool's.
    pub source: Vec<IpAddr>,
}

/// What one probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Connects.
    Tcp,
    /// Makes an HTTP/1.1 request and looks at the status.
    Http {
        /// `GET`, `HEAD` or another method without a body.
        method: String,
        /// Path and query, beginning with a slash.
        path: String,
        /// Host header; `None` is the backend's address.
        host: Option<String>,
        /// Inclusive ranges of accepted status codes.
        status: Vec<(u16, u16)>,
    },
    /// Makes a TLS handshake.
    Tls {
        /// The name to ask for and to check, or an IP address that is only checked; `None` is the
        /// backend's address, which is not asked for.
        host: Option<String>,
        /// Whose certificates are good.
        trust: Trust,
    },
    /// Sends bytes, and waits until the answer holds others.
    SendExpect {
        /// May be empty: then the server speaks first.
        send: Vec<u8>,
        /// At least one byte.
        expect: Vec<u8>,
    },
}

/// `probe` of `health`, without what belongs to each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeKind {
    /// Connects.
    Tcp,
    /// Makes a request over HTTP.
    Http,
    /// Sends bytes and expects others.
    SendExpect,
    /// Makes a TLS handshake.
    Tls,
}

impl Word for ProbeKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tcp", Self::Tcp),
        ("http", Self::Http),
        ("send-expect", Self::SendExpect),
        ("tls", Self::Tls),
    ];
}

/// `initial` of `health`: the verdict before the first probe has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitialVerdict {
    /// The backend serves.
    Up,
    /// It waits for its probes.
    Down,
}

impl Word for InitialVerdict {
    const WORDS: &'static [(&'static str, Self)] = &[("up", Self::Up), ("down", Self::Down)];
}

/// Reads the probes of a pool, if it has any; `unix` is a backend of it that has no port.
pub(super) fn health(
    pool: &Section<'_>,
    unix: Option<&Address>,
    report: &mut Report<'_>,
) -> Option<Health> {
    let section = pool.open("health", report)?;
    let section = &section;
    let interval = section.duration_or_default("interval", report);
    let timeout = section.duration_or_default("timeout", report);
    compare_timeout(section, timeout, interval, report);
    let port = section.count("port", report);
    if let (Some(place), Some(unix)) = (port.place(), unix) {
        compare_port(place, unix, report);
    }
    let initial = section.word_or_default::<InitialVerdict>("initial", report);
    Some(Health {
        probe: probe(section, unix, report),
        port: port.value().and_then(|port| u16::try_from(port).ok()),
        interval,
        fast_interval: section.duration_or_default("fast_interval", report),
        timeout,
        rise: section.count32_or_default("rise", report),
        fall: section.count32_or_default("fall", report),
        down_backoff: section.duration_or_default("down_backoff", report),
        initial_up: initial == InitialVerdict::Up,
        send_proxy: None,
        source: Vec::new(),
    })
}

/// Reads what a probe does. The keys of every kind are checked in any case.
fn probe(section: &Section<'_>, unix: Option<&Address>, report: &mut Report<'_>) -> Probe {
    let kind = section.word_or_default::<ProbeKind>("probe", report);
    let host = section.read("host", report, host);
    let http = Probe::Http {
        method: section.read_or_default("method", report, method),
        path: section.read_or_default("path", report, path),
        host: host.clone().value(),
        status: section.read_or_default("status", report, statuses),
    };
    let send_expect = Probe::SendExpect {
        send: section.read_or_default("send", report, payload),
        expect: section.read_or_default("expect", report, expectation),
    };
    let trust = Trust::read(section, report);
    report_idle(section, report);
    match kind {
        ProbeKind::Tcp => Probe::Tcp,
        ProbeKind::Http => http,
        ProbeKind::Tls => {
            compare_name(section, &host, unix, report);
            Probe::Tls { host: host.value(), trust }
        }
        ProbeKind::SendExpect => send_expect,
    }
}

/// Warns when one probe may outlast the time to the next.
fn compare_timeout(
    section: &Section<'_>,
    timeout: Duration,
    interval: Duration,
    report: &mut Report<'_>,
) {
    if timeout <= interval || section.partial {
        return;
    }
    // A short `interval` alone is no slip: probes that answer late are rare.
    let Some(Value { place, .. }) = section.get("timeout") else { return };
    let (timeout, interval) = (show_duration(timeout), show_duration(interval));
    let finding = Finding::new(format!(
        "a probe may take {timeout}, longer than the {interval} between probes"
    ))
    .expected("a `timeout` no longer than `interval`")
    .hint(format!("write `timeout = \"{interval}\"`, or a longer `interval`"));
    report.warning(&place, finding);
}

/// Checks that probes do not ask for a port where backends have none.
fn compare_port(port: &FilePlace, address: &Address, report: &mut Report<'_>) {
    let address = shown(&address.to_string());
    let finding = Finding::new(format!("`port` has no meaning for backend `{address}`"))
        .expected("no `port`, or backends with IP addresses")
        .hint("put what is probed over TCP into a pool of its own");
    report.error(port, finding);
}

impl Health {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        let initial = if self.initial_up { InitialVerdict::Up } else { InitialVerdict::Down };
        self.probe
            .entries()
            .given(self.port, |out, port| out.plain("port", port))
            .duration("interval", self.interval)
            .duration("fast_interval", self.fast_interval)
            .duration("timeout", self.timeout)
            .plain("rise", self.rise)
            .plain("fall", self.fall)
            .duration("down_backoff", self.down_backoff)
            .word("initial", initial)
    }
}

impl Probe {
    fn entries(&self) -> Entries {
        let out = |kind: ProbeKind| Entries::default().word("probe", kind);
        match self {
            Self::Tcp => out(ProbeKind::Tcp),
            Self::Http { method, path, host, status } => out(ProbeKind::Http)
                .text("path", path)
                .given(host.as_ref(), |out, host| out.text("host", host))
                .text("method", method)
                .list("status", &show_statuses(status)),
            Self::Tls { host, trust } => out(ProbeKind::Tls)
                .given(host.as_ref(), |out, host| out.text("host", host))
                .plain("verify", *trust != Trust::Unchecked)
                .given(trust.file(), |out, ca| out.text("ca", ca.to_string_lossy())),
            Self::SendExpect { send, expect } => out(ProbeKind::SendExpect)
                .plain("send", format!("'{}'", escaped(send)))
                .plain("expect", format!("'{}'", escaped(expect))),
        }
    }
}
