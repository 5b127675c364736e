//! `[[listener.NAME.route]]`, `[listener.NAME.peek]` and `hash_key`: what clients say first.

use crate::policy::first_bytes::request_head::is_token;
use crate::policy::terms::Word;

use super::file::{Section, Value, shown};
use super::keys::KeyTable;
use super::named_pool::{NO_POOL, named_pool};
use super::network;
use super::report::{Finding, Report};
use super::scalar;
use super::size;
use super::words::{HashKeyForm, OnPeekTimeout};
use super::{HashKey, Peek, RouteConfig};

/// Longest name of a protocol (RFC 7301).
const PROTOCOL_BYTES_MAX: usize = 255;
/// Longest host name.
const NAME_BYTES_MAX: usize = 253;

/// Reads the routes of a listener; `pools` are the names they may choose from.
pub(super) fn routes(
    listener: &Section<'_>,
    pools: &[String],
    report: &mut Report<'_>,
) -> Vec<RouteConfig> {
    let Some(value) = listener.get("route") else { return Vec::new() };
    let Some(elements) = value.elements() else {
        let finding = Finding::new("`route` must be a list of tables")
            .expected("tables [[listener.NAME.route]]")
            .hint("write two brackets: the first that matches counts");
        report.error(&value.place, finding);
        return Vec::new();
    };
    elements.iter().filter_map(|element| route(element, pools, report)).collect()
}

fn route(value: &Value<'_>, pools: &[String], report: &mut Report<'_>) -> Option<RouteConfig> {
    let Some(section) = Section::of(value, KeyTable::Route) else {
        scalar::wrong_type(value, "a table [[listener.NAME.route]]", None, report);
        return None;
    };
    section.refuse_unknown(report);
    let (names, protocols) = ("[\"*.example.com\"]", "[\"h2\"]");
    let sni = section
        .read("sni", report, |value, report| scalar::list(value, names, report, server_name));
    let alpn = section
        .read("alpn", report, |value, report| scalar::list(value, protocols, report, protocol));
    let client = network::list(&section, "client", report);
    let pool = section.read("pool", report, |value, report| named_pool(value, pools, report));
    if pool.is_absent() {
        let finding = Finding::new("this route leads nowhere")
            .expected("`pool`, the name of a [pool.NAME] table");
        report.error(&value.place, finding);
    }
    if sni.is_absent() && alpn.is_absent() && client.is_absent() {
        let finding = Finding::new("this route asks for nothing")
            .expected("`sni`, `alpn` or `client`")
            .hint("who matches no route goes to the listener's own `pool`");
        report.error(&value.place, finding);
    }
    for name in ["sni", "alpn", "client"] {
        let given = section.get(name);
        if let Some(value) = given.filter(|given| given.elements().is_some_and(|e| e.is_empty())) {
            let finding = Finding::new(format!("`{name}` is empty"))
                .expected("at least one entry")
                .hint("leave the key out if it does not matter");
            report.error(&value.place, finding);
        }
    }
    Some(RouteConfig {
        sni: sni.or(Vec::new()),
        alpn: alpn.or(Vec::new()),
        client: client.or(Vec::new()),
        pool: pool.or(NO_POOL),
    })
}

fn server_name(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a host name such as \"www.example.com\" or \"*.example.com\"";
    let text = scalar::string(value, EXPECTED, report)?.to_ascii_lowercase();
    let host = text.strip_prefix("*.").unwrap_or(&text);
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let has_labels = host.split('.').all(|label| !label.is_empty());
    if has_labels && host.chars().all(is_plain) && text.len() <= NAME_BYTES_MAX {
        return Some(text);
    }
    let finding = Finding::new(format!("`{}` is no server name", shown(&text))).expected(EXPECTED);
    let finding = if host.contains('*') {
        finding.hint("`*.` can stand in front only; it is every depth below")
    } else if host.contains(':') {
        finding.hint("a server name has no port")
    } else if !host.is_ascii() {
        finding.hint("write international names as clients send them: \"xn--...\"")
    } else {
        finding
    };
    report.error(&value.place, finding);
    None
}

fn protocol(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a protocol such as \"h2\" or \"http/1.1\"";
    let text = scalar::string(value, EXPECTED, report)?;
    if text.len() <= PROTOCOL_BYTES_MAX {
        return Some(text);
    }
    let finding = Finding::new("this protocol's name is too long");
    report.error(&value.place, finding.expected(format!("at most {PROTOCOL_BYTES_MAX} bytes")));
    None
}

/// Reads `peek`.
pub(super) fn peek(listener: &Section<'_>, report: &mut Report<'_>) -> Peek {
    let section = listener.open("peek", report).unwrap_or(Section::absent(KeyTable::Peek));
    let on_timeout = section.word_or_default::<OnPeekTimeout>("on_timeout", report);
    Peek {
        timeout: section.duration_or_default("timeout", report),
        max_bytes: size::bytes_or_default(&section, "max_bytes", report),
        is_default_else: on_timeout == OnPeekTimeout::Default,
    }
}

/// Reads `hash_key`.
pub(super) fn hash_key(section: &Section<'_>, report: &mut Report<'_>) -> HashKey {
    let field = section.read("hash_key", report, |value, report| {
        if let Some(text @ ("http-header" | "http-cookie")) = value.text().map(str::trim) {
            let finding = Finding::new(format!("`hash_key = \"{text}\"` does not say which one"))
                .expected(format!("\"{text} NAME\""));
            report.error(&value.place, finding);
            return None;
        }
        let form = scalar::word(value, HashKeyForm::WORDS, report)?;
        let name = value.text().and_then(|text| text.split_once(' ')).map_or("", |(_, name)| name);
        Some(match form {
            HashKeyForm::ClientIp => HashKey::ClientIp,
            HashKeyForm::ClientIpPort => HashKey::ClientIpPort,
            HashKeyForm::Sni => HashKey::Sni,
            HashKeyForm::Header => HashKey::HttpHeader(token(name, value, report)?),
            HashKeyForm::Cookie => HashKey::HttpCookie(token(name, value, report)?),
        })
    });
    field.or(HashKey::ClientIp)
}

/// The name of a header or a cookie (RFC 9110, section 5.6.2).
fn token(name: &str, value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    if !name.is_empty() && name.bytes().all(is_token) {
        return Some(name.to_owned());
    }
    let message = format!("`{}` is no name of a header or a cookie", shown(name));
    let finding = Finding::new(message).expected("one name, as in \"http-header X-User\"");
    report.error(&value.place, finding);
    None
}
