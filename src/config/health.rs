//! `[pool.NAME.health]`: from the table to a [`Health`].

use std::time::Duration;

use crate::policy::first_bytes::request_head::is_token;
use crate::policy::terms::Word;

use super::Address;
use super::file::{Field, Section, Value, quoted, shown};
use super::keys::{Companion, Values};
use super::payload::payload;
use super::report::{Finding, Report};
use super::scalar;
use super::tls_probe;
use super::units::show_duration;
use super::unix::compare_port;
use super::words::{InitialVerdict, ProbeKind};
use super::{Health, Probe};

/// Longest path and query of a request; the HTTP client takes 65,534.
const PATH_LENGTH_MAX: usize = 4096;

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
    Some(Health {
        probe: probe(section, unix, report),
        port: port.value().and_then(|port| u16::try_from(port).ok()),
        interval,
        fast_interval: section.duration_or_default("fast_interval", report),
        timeout,
        rise: section.count32_or_default("rise", report),
        fall: section.count32_or_default("fall", report),
        down_backoff: section.duration_or_default("down_backoff", report),
        initial_up: section.word_or_default::<InitialVerdict>("initial", report)
            == InitialVerdict::Up,
        send_proxy: None,
        source: Vec::new(),
    })
}

/// Reads what a probe does. The keys of every kind are checked in any case.
fn probe(section: &Section<'_>, unix: Option<&Address>, report: &mut Report<'_>) -> Probe {
    let kind = section.word::<ProbeKind>("probe", report);
    let host = section.read("host", report, host);
    let http = Probe::Http {
        method: section.read("method", report, method).or(section.default_text("method")),
        path: section.read("path", report, path).or(section.default_text("path")),
        host: host.clone().value(),
        status: section
            .read("status", report, |value, report| {
                if value.elements().is_some_and(|elements| elements.is_empty()) {
                    let finding = Finding::new("`status` is empty: no answer would pass");
                    report.error(&value.place, finding.expected("codes such as [\"200\"]"));
                    return None;
                }
                scalar::list(value, "[\"200-299\"]", report, status)
            })
            .or(vec![(200, 200)]),
    };
    let send_expect = Probe::SendExpect {
        send: section.read("send", report, payload).or(b"PING\r\n".to_vec()),
        expect: section.read("expect", report, expectation).or(b"+PONG".to_vec()),
    };
    let tls = tls_probe::Keys::read(section, report);
    let kind = match kind {
        Field::Given(kind, _) => kind,
        Field::Absent => ProbeKind::Tcp,
        Field::Bad => return Probe::Tcp,
    };
    warn_unused(section, kind, report);
    match kind {
        ProbeKind::Tcp => Probe::Tcp,
        ProbeKind::Http => http,
        ProbeKind::Tls => tls.probe(section, host, unix, report),
        ProbeKind::SendExpect => send_expect,
    }
}

/// What has to be in the answer: one byte at least.
fn expectation(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let bytes = payload(value, report)?;
    if !bytes.is_empty() {
        return Some(bytes);
    }
    let finding = Finding::new("`expect` is empty: every answer would pass")
        .expected("a part of a good answer such as \"+PONG\"")
        .hint("`probe = \"tcp\"` only connects");
    report.error(&value.place, finding);
    None
}

/// Warns about keys of another kind of probe in the very table that makes this one.
fn warn_unused(section: &Section<'_>, kind: ProbeKind, report: &mut Report<'_>) {
    if section.partial {
        return;
    }
    for (value, _) in section.entries() {
        let name = value.name.as_str();
        let idle = section
            .key(name)
            .into_iter()
            .flat_map(|key| key.companions)
            .find(|companion| companion.key == "probe" && !companion.admits(kind.word()));
        let Some(Companion { values: Values::Among([word, ..]), .. }) = idle else { continue };
        let does = match kind {
            ProbeKind::Tcp => "this probe only connects",
            ProbeKind::Http => "this probe makes a request over HTTP",
            ProbeKind::Tls => "this probe only makes a TLS handshake",
            ProbeKind::SendExpect => "this probe sends and expects bytes",
        };
        let finding = Finding::new(format!("`{name}` has no effect: {does}"));
        let hint = match *word {
            "http" => "add `probe = \"http\"` to make a request".to_owned(),
            word => format!("write `probe = \"{word}\"` to have it used"),
        };
        report.warning(&value.place, finding.hint(hint));
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
    let key = section.get("timeout").or_else(|| section.get("interval"));
    let place = key.map_or_else(|| section.header(), |value| value.place);
    let (timeout, interval) = (show_duration(timeout), show_duration(interval));
    let finding = Finding::new(format!(
        "a probe may take {timeout}, longer than the {interval} between probes"
    ))
    .expected("a `timeout` no longer than `interval`")
    .hint(format!("write `timeout = \"{interval}\"`, or a longer `interval`"));
    report.warning(&place, finding);
}

/// An HTTP method: a token of RFC 9110.
fn method(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a method without a body, such as \"GET\" or \"HEAD\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let finding = if !text.bytes().all(is_token) {
        Finding::new(format!("`{}` is no HTTP method", shown(&text))).expected(EXPECTED)
    } else if text == "CONNECT" {
        Finding::new("a probe cannot CONNECT").expected(EXPECTED)
    } else {
        return Some(text);
    };
    report.error(&value.place, finding);
    None
}

/// Path and query of a request.
fn path(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a path such as \"/health\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let finding = if !text.starts_with('/') {
        Finding::new("`path` does not begin with `/`")
            .expected(EXPECTED)
            .hint(format!("write `path = {}`", quoted(&format!("/{text}"))))
    } else if let Some(letter) = unfit_for_a_request_line(&text) {
        let mut bytes = [0; 4];
        let bytes = letter.encode_utf8(&mut bytes).bytes();
        let encoded: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
        Finding::new(format!("`path` holds `{letter}`, which has to be encoded there"))
            .expected(EXPECTED)
            .hint(format!("write {encoded} for it"))
    } else if text.len() > PATH_LENGTH_MAX {
        Finding::new("`path` is too long").expected(format!("at most {PATH_LENGTH_MAX} bytes"))
    } else {
        return Some(text);
    };
    report.error(&value.place, finding);
    None
}

/// The first character that the client of the probes would not send as it is.
fn unfit_for_a_request_line(text: &str) -> Option<char> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let unfit = |text: &str, also: &str| {
        text.chars().find(|letter| !letter.is_ascii_graphic() || also.contains(*letter))
    };
    unfit(path, "<>`#").or_else(|| unfit(query, "<>\"#"))
}

/// Value of a Host header.
fn host(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a host such as \"www.example.com\"";
    let text = scalar::string(value, EXPECTED, report)?;
    if text.chars().all(|letter| letter.is_ascii_graphic() && letter != '/') {
        return Some(text);
    }
    let finding = Finding::new(format!("`{}` is no value of a Host header", shown(&text)));
    report.error(&value.place, finding.expected(EXPECTED));
    None
}

/// One status code or an inclusive range.
fn status(value: &Value<'_>, report: &mut Report<'_>) -> Option<(u16, u16)> {
    const EXPECTED: &str = "a status such as \"200\" or a range such as \"200-299\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let code =
        |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    let (low, high) = text.split_once('-').unwrap_or((&text, &text));
    let finding = match (code(low), code(high)) {
        (Some(low), Some(high)) if low <= high => return Some((low, high)),
        (Some(_), Some(_)) => Finding::new(format!("`{}` runs backwards", shown(&text)))
            .hint(format!("write \"{}-{}\"", high.trim(), low.trim())),
        _ => Finding::new(format!("`{}` is no HTTP status", shown(&text)))
            .hint("codes run from 100 to 599"),
    };
    report.error(&value.place, finding.expected(EXPECTED));
    None
}
