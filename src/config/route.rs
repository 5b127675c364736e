//! `[[listener.NAME.route]]`: other pools for some clients.

use ipnet::IpNet;

use super::entries::Entries;
use super::file::{Section, Value, shown};
use super::key::{Key, KeyTable, Shape};
use super::named_pool::{NO_POOL, named_pool};
use super::network;
use super::report::{FilePlace, Finding, Report};
use super::scalar;

/// Longest name of a protocol (RFC 7301).
const PROTOCOL_BYTES_MAX: usize = 255;
/// Longest host name.
const NAME_BYTES_MAX: usize = 253;

/// Keys of `[[listener.NAME.route]]`.
pub(super) static ROUTE: KeyTable = KeyTable {
    name: "Route",
    title: "[[listener.NAME.route]]",
    sample: "",
    keys: &[
        Key::new("sni", Shape::ListOf("list", 1, NAME_BYTES_MAX))
            .or_else("any")
            .note("; names, `*.` only in front")
            .means("Server names, in any case."),
        Key::new("alpn", Shape::ListOf("list", 1, PROTOCOL_BYTES_MAX))
            .or_else("any")
            .means("One of these protocols is offered."),
        Key::new("tls", Shape::Boolean)
            .or_else("any")
            .note("not `false` beside `sni` or `alpn`")
            .means("Whether clients begin with a TLS hello, whatever it names."),
        Key::new("client", Shape::List("networks")).or_else("any").means("Networks of the client."),
        Key::new("pool", Shape::Text("name"))
            .note("a `[pool.NAME]`")
            .means("Where these sessions go."),
    ],
    also: &[],
};
/// `[[listener.NAME.route]]`: everything that is not empty has to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// Server names of TLS, in lower case; `*.` in front is every depth below.
    pub sni: Vec<String>,
    /// Protocols that TLS offers (ALPN).
    pub alpn: Vec<String>,
    /// Whether the client begins with a TLS hello; `None` for either.
    pub tls: Option<bool>,
    /// Networks of the client.
    pub client: Vec<IpNet>,
    /// Index into [`pools`](super::model::Config::pools).
    pub pool: usize,
}

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
    let Some(section) = Section::of(value, &ROUTE) else {
        scalar::wrong_type(value, "a table [[listener.NAME.route]]", None, report);
        return None;
    };
    let (names, protocols) = ("[\"*.example.com\"]", "[\"h2\"]");
    let sni = section
        .read("sni", report, |value, report| scalar::list(value, names, report, server_name));
    let alpn = section
        .read("alpn", report, |value, report| scalar::list(value, protocols, report, protocol));
    let tls = section.read("tls", report, scalar::boolean);
    let client = network::list(&section, "client", report);
    let pool = section.read("pool", report, |value, report| named_pool(value, pools, report));
    if pool.is_absent() {
        let finding = Finding::new("this route leads nowhere")
            .expected("`pool`, the name of a [pool.NAME] table");
        report.error(&value.place, finding);
    }
    let asks_hello = !sni.is_absent() || !alpn.is_absent();
    if !asks_hello && tls.is_absent() && client.is_absent() {
        let finding = Finding::new("this route asks for nothing")
            .expected("`sni`, `alpn`, `tls` or `client`")
            .hint("clients that match no route go to the listener's own `pool`");
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
    let tls = tls.value();
    if let Some(value) = section.get("tls").filter(|_| asks_hello && tls == Some(false)) {
        let finding = Finding::new("this route can match no client")
            .expected("`tls = true`, or no `tls`, beside `sni` or `alpn`")
            .hint("only a TLS hello has a server name or protocols");
        report.error(&value.place, finding);
    }
    Some(RouteConfig {
        sni: sni.or(Vec::new()),
        alpn: alpn.or(Vec::new()),
        tls,
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
        warn_misspelt(&text, value, report);
        return Some(text);
    }
    let finding = Finding::new("this protocol's name is too long");
    report.error(&value.place, finding.expected(format!("at most {PROTOCOL_BYTES_MAX} bytes")));
    None
}

/// Warns about other names of the protocols that browsers offer (IANA's registry of ALPN).
fn warn_misspelt(text: &str, value: &Value<'_>, report: &mut Report<'_>) {
    let real = match text.to_ascii_lowercase().as_str() {
        "http/2" | "http/2.0" | "http2" => "h2",
        "http/3" | "http3" => "h3",
        "http/1.1" | "http1.1" | "http/1" | "http1" | "h1" => "http/1.1",
        "h2" => "h2",
        "h3" => "h3",
        _ => return,
    };
    if real != text {
        let finding = Finding::new(format!("no client offers `{}`", shown(text)))
            .hint(format!("write \"{real}\", its name in TLS"));
        report.warning(&value.place, finding);
    }
}

/// Warns about routes that no client takes, since an earlier one matches all that they do.
pub(super) fn warn_shadowed(
    routes: &[RouteConfig],
    listener: &Section<'_>,
    report: &mut Report<'_>,
) {
    // A route that has an error is read as one that asks for nothing.
    if report.has_errors() {
        return;
    }
    let places: Vec<FilePlace> = listener
        .get("route")
        .and_then(|value| value.elements())
        .into_iter()
        .flatten()
        .map(|element| element.place)
        .collect();
    if places.len() != routes.len() {
        return;
    }
    for (index, (route, place)) in routes.iter().zip(&places).enumerate() {
        let earlier = routes.iter().zip(&places).take(index);
        let mut wider = earlier.filter(|(earlier, _)| earlier.covers(route));
        if let Some((_, first)) = wider.next() {
            let finding = Finding::new("no client takes this route")
                .hint("an earlier one matches all that it does; put the narrower one first")
                .beside(first, "matches first");
            report.warning(place, finding);
        }
    }
}

impl RouteConfig {
    /// Whether it matches every client that `other` matches.
    fn covers(&self, other: &Self) -> bool {
        let is_within = |name: &str, pattern: &str| match pattern.strip_prefix('*') {
            Some(end) => name.trim_start_matches('*').ends_with(end),
            None => name == pattern,
        };
        let has_name = |name: &String| self.sni.iter().any(|pattern| is_within(name, pattern));
        let has_protocol = |name: &String| self.alpn.contains(name);
        let has_network = |network: &IpNet| self.client.iter().any(|wider| wider.contains(network));
        let by_name =
            self.sni.is_empty() || (!other.sni.is_empty() && other.sni.iter().all(has_name));
        let by_protocol =
            self.alpn.is_empty() || (!other.alpn.is_empty() && other.alpn.iter().all(has_protocol));
        let by_client = self.client.is_empty()
            || (!other.client.is_empty() && other.client.iter().all(has_network));
        by_name && by_protocol && by_client
    }

    /// Its keys as `evenkeel config` shows them; `pool` is the name of its pool.
    pub(super) fn entries(&self, pool: &str) -> Entries {
        let Self { sni, alpn, tls, client, pool: _ } = self;
        let mut out = Entries::default();
        for (key, words) in [("sni", sni), ("alpn", alpn)] {
            out =
                out.given((!words.is_empty()).then_some(words), |out, words| out.list(key, words));
        }
        out.given(*tls, |out, tls| out.plain("tls", tls))
            .given((!client.is_empty()).then_some(client), |out, list| out.list("client", list))
            .text("pool", pool)
    }
}
