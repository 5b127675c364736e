//! `[pool.NAME.health]`: active probes. What one kind of probe asks is read in a file of its own.

use std::net::IpAddr;
use std::time::Duration;

use crate::policy::balance::source::SOURCES_MAX;
use crate::policy::first_bytes::proxy_header::ProxyVersion;
use crate::policy::health::probe_step::ProbeStep;
use crate::policy::terms::{Address, Word};

use super::bounds::{LONGEST, SHORTEST};
use super::companions::report_idle;
use super::entries::Entries;
use super::file::{Section, Value, shown};
use super::http_probe::{PATH_BYTES_MAX, host, method, path, show_statuses, statuses};
use super::key::{Companion, IfIdle, Key, KeyTable, Shape, Values, words};
use super::payload::{PAYLOAD_MAX, escaped, expectation, payload};
use super::report::{FilePlace, Finding, Report};
use super::source::source;
use super::steps::{STEP, shown as shown_steps, steps};
use super::tls_probe::{Trust, compare_name};
use super::units::show_duration;

const WITH_HTTP: &[Companion] = &[with_probe(&["http"])];
const WITH_HTTP_OR_TLS: &[Companion] = &[with_probe(&["http", "tls"]).or_beside("tls")];
const WITH_WORDS: &[Companion] = &[with_probe(&["http", "send-expect"])];
const WITH_SEND_EXPECT: &[Companion] = &[with_probe(&["send-expect"])];
const WITH_TLS: &[Companion] = &[with_probe(&["tls"]).or_beside("tls")];
const WITH_VERIFY: &[Companion] = &[
    with_probe(&["tls"]).or_beside("tls"),
    Companion::new("verify", Values::Among(&["true"]), IfIdle::Warned),
];

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
        Key::new("steps", Shape::Tables(&STEP))
            .or_else("`send`, then `expect`")
            .note("1 to 32, at least one of them with `expect`; not with `send` or `expect`")
            .reload("now")
            .beside(WITH_SEND_EXPECT)
            .means(
                "send-expect: a conversation, see [below](#an-entry-of-steps-of-poolnamehealth).",
            ),
        Key::new("tls", Shape::Boolean)
            .default("false")
            .reload("now")
            .beside(WITH_WORDS)
            .means("http, send-expect: speak inside TLS."),
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
            .or_else("the backend's port, or the only one of its listeners")
            .reload("now")
            .means(
                "Which port is asked, by every kind of probe. Needed where backends have no port \
                    and clients come to several.",
            ),
        Key::new("source", Shape::ListUpTo("list", SOURCES_MAX))
            .or_else("the pool's `source`")
            .note(" IP addresses of this host, without ports")
            .reload("now")
            .means("Where probes come from: the first address of the backend's family."),
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
    /// The TLS that it is done in; `None`: in none.
    pub tls: Option<ProbeTls>,
    /// The port it asks; `None` is the backend's own.
    pub port: Option<u16>,
    /// The port it asks of a backend that has none, where `port` is not given: the only one to
    /// which clients of the pool connect.
    pub listener_port: Option<u16>,
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
    /// Addresses that a probe may come from: its own, or the pool's.
    pub source: Vec<IpAddr>,
}

/// The TLS of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTls {
    /// The name to ask for and to check, or an IP address that is only checked; `None` is the
    /// backend's address, which is not asked for.
    pub host: Option<String>,
    /// Whose certificates are good.
    pub trust: Trust,
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
    /// Makes a TLS handshake, and nothing in it.
    Tls,
    /// Sends bytes and waits for others.
    SendExpect {
        /// In turn; at least one of them waits.
        steps: Vec<ProbeStep>,
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
    let (probe, tls) = probe(section, unix, report);
    Some(Health {
        probe,
        tls,
        port: port.value().and_then(|port| u16::try_from(port).ok()),
        listener_port: None,
        interval,
        fast_interval: section.duration_or_default("fast_interval", report),
        timeout,
        rise: section.count32_or_default("rise", report),
        fall: section.count32_or_default("fall", report),
        down_backoff: section.duration_or_default("down_backoff", report),
        initial_up: initial == InitialVerdict::Up,
        send_proxy: None,
        source: source(section, report),
    })
}

/// Reads what a probe does, and in which TLS. The keys of every kind are checked in any case.
fn probe(
    section: &Section<'_>,
    unix: Option<&Address>,
    report: &mut Report<'_>,
) -> (Probe, Option<ProbeTls>) {
    let kind = section.word_or_default::<ProbeKind>("probe", report);
    let host = section.read("host", report, host);
    let http = Probe::Http {
        method: section.read_or_default("method", report, method),
        path: section.read_or_default("path", report, path),
        host: host.clone().value(),
        status: section.read_or_default("status", report, statuses),
    };
    let send_expect = Probe::SendExpect { steps: conversation(section, report) };
    let trust = Trust::read(section, report);
    let is_inside = section.boolean_or_default("tls", report);
    report_idle(section, report);
    let (probe, has_tls) = match kind {
        ProbeKind::Tcp => (Probe::Tcp, false),
        ProbeKind::Http => (http, is_inside),
        ProbeKind::Tls => (Probe::Tls, true),
        ProbeKind::SendExpect => (send_expect, is_inside),
    };
    if has_tls {
        compare_name(section, &host, unix, report);
    }
    let tls = has_tls.then(|| ProbeTls { host: host.value(), trust });
    (probe, tls)
}

/// `steps`, or else the two that `send` and `expect` are.
fn conversation(section: &Section<'_>, report: &mut Report<'_>) -> Vec<ProbeStep> {
    let send = section.read_or_default("send", report, payload);
    let expect = section.read_or_default("expect", report, expectation);
    let given = section.read("steps", report, steps);
    let own = |name: &str| section.entries().into_iter().find(|(value, _)| value.name == name);
    if let (Some(place), Some((other, _))) = (given.place(), own("send").or_else(|| own("expect")))
        && own("steps").is_some()
    {
        let name = &other.name;
        let finding = Finding::new(format!("`{name}` and `steps` exclude one another"))
            .hint(format!("make a step of `{name}`, or remove `steps`"))
            .beside(place, "`steps` are here");
        report.error(&other.place, finding);
    }
    given.or(vec![ProbeStep::Send(send), ProbeStep::Find(expect)])
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
        let tls = self.tls.as_ref();
        let is_inside = tls.filter(|_| self.probe != Probe::Tls);
        // `host` is the HTTP probe's Host header, too.
        let is_http = matches!(self.probe, Probe::Http { .. });
        let host = tls.and_then(|tls| tls.host.as_ref()).filter(|_| !is_http);
        let source = (!self.source.is_empty()).then_some(&self.source);
        self.probe
            .entries()
            .given(is_inside, |out, _| out.plain("tls", true))
            .given(host, |out, host| out.text("host", host))
            .given(tls, |out, tls| {
                out.plain("verify", tls.trust != Trust::Unchecked)
                    .given(tls.trust.file(), |out, ca| out.text("ca", ca.to_string_lossy()))
            })
            .given(source, |out, source| out.list("source", source))
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
            Self::Tls => out(ProbeKind::Tls),
            Self::SendExpect { steps } => match &**steps {
                [ProbeStep::Send(send), ProbeStep::Find(expect)] => out(ProbeKind::SendExpect)
                    .plain("send", format!("'{}'", escaped(send)))
                    .plain("expect", format!("'{}'", escaped(expect))),
                steps => out(ProbeKind::SendExpect).plain("steps", shown_steps(steps)),
            },
        }
    }
}
