//! `[listener.NAME.refusal]`: what clients that are turned away are told.

use crate::policy::first_bytes::request_head::is_token;
use crate::policy::terms::Protocol;

use super::entries::Entries;
use super::file::{Section, Value, shown};
use super::key::{Key, KeyTable, Shape};
use super::payload::{PAYLOAD_MAX, escaped, payload};
use super::report::{Finding, Report};
use super::scalar;

/// Most fields of an answer.
const HEADERS_MAX: usize = 16;
/// Longest field, name and value.
const HEADER_BYTES_MAX: usize = 1024;
/// Fields that an answer has already, or that decide how it is read.
const OWN_HEADERS: [&str; 12] = [
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "retry-after",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Keys of `[listener.NAME.refusal]`.
pub(super) static REFUSAL: KeyTable = KeyTable {
    name: "Refusal",
    title: "[listener.NAME.refusal]",
    sample: "refusal = { bytes = '421 too busy\\r\\n' }",
    keys: &[
        Key::new("headers", Shape::ListUpTo("list", HEADERS_MAX)).default("[]").means(
            "Fields of an HTTP answer beside its own, such as \
                `\"Access-Control-Allow-Origin: *\"`.",
        ),
        Key::new("bytes", Shape::TextOf("text with escapes", 1, PAYLOAD_MAX))
            .or_else("nothing is sent")
            .means("What clients of other protocols are sent before the connection is closed."),
    ],
    also: &[],
};

/// `[listener.NAME.refusal]`: what of it the protocol of the listener has a use for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusalConfig {
    /// Fields of an HTTP answer: names and values.
    pub headers: Vec<(String, String)>,
    /// What clients of other protocols are sent; never empty.
    pub bytes: Option<Vec<u8>>,
}

/// Reads the refusal of a listener whose clients speak `protocol`.
pub(super) fn refusal(
    listener: &Section<'_>,
    protocol: Protocol,
    report: &mut Report<'_>,
) -> RefusalConfig {
    let Some(section) = listener.open("refusal", report) else { return RefusalConfig::default() };
    let headers = section.read("headers", report, headers);
    let bytes = section.read("bytes", report, bytes);
    if !section.partial {
        warn_of_unsent(&section, protocol, report);
    }
    match protocol {
        Protocol::Tcp => RefusalConfig { headers: Vec::new(), bytes: bytes.value() },
        Protocol::Http => RefusalConfig { headers: headers.or(Vec::new()), bytes: None },
    }
}

/// Warns of what this listener gives and never sends. `[defaults]` may give both.
fn warn_of_unsent(section: &Section<'_>, protocol: Protocol, report: &mut Report<'_>) {
    let (unsent, hint) = match protocol {
        Protocol::Tcp => {
            ("headers", "`protocol = \"http\"` answers in HTTP; `bytes` is for others")
        }
        Protocol::Http => ("bytes", "clients that speak HTTP are answered; `headers` adds fields"),
    };
    let given = section.get(unsent).filter(|value| !value.place.path.starts_with("defaults"));
    if let Some(value) = given {
        let finding = Finding::new(format!("`{unsent}` has no effect here")).hint(hint);
        report.warning(&value.place, finding);
    }
}

fn headers(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    const SAMPLE: &str = "[\"Access-Control-Allow-Origin: *\"]";
    let list = scalar::list(value, SAMPLE, report, header)?;
    if list.len() <= HEADERS_MAX {
        return Some(list);
    }
    let finding = Finding::new("`headers` is too long");
    report.error(&value.place, finding.expected(format!("at most {HEADERS_MAX} fields")));
    None
}

/// One field: its name (RFC 9110, section 5.1) and its value (section 5.5), in ASCII.
fn header(value: &Value<'_>, report: &mut Report<'_>) -> Option<(String, String)> {
    const EXPECTED: &str = "a field such as \"Access-Control-Allow-Origin: *\"";
    let text = scalar::string(value, EXPECTED, report)?;
    let (name, content) = text.split_once(':').unwrap_or(("", &text));
    let content = content.trim();
    let is_fit = |letter: char| matches!(letter, ' '..='~' | '\t');
    let lower = name.to_ascii_lowercase();
    let finding = if name.is_empty() || !name.bytes().all(is_token) {
        Finding::new(format!("`{}` is no field of an answer", shown(&text))).expected(EXPECTED)
    } else if !content.chars().all(is_fit) {
        Finding::new(format!("`{name}` has a value that cannot be sent"))
            .expected("printable ASCII in one line")
    } else if text.len() > HEADER_BYTES_MAX {
        Finding::new(format!("`{name}` is too long"))
            .expected(format!("at most {HEADER_BYTES_MAX} bytes with its value"))
    } else if OWN_HEADERS.contains(&&*lower) || lower.starts_with("x-ratelimit-") {
        Finding::new(format!("`{name}` is not for `headers`"))
            .expected("a field that evenkeel does not write itself")
            .hint("an answer has its own date, length, times and limits")
    } else {
        return Some((name.to_owned(), content.to_owned()));
    };
    report.error(&value.place, finding);
    None
}

fn bytes(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let bytes = payload(value, report)?;
    if !bytes.is_empty() {
        return Some(bytes);
    }
    let finding = Finding::new("`bytes` is empty")
        .expected("what clients are told, such as '421 too busy\\r\\n'")
        .hint("leave the key out to have connections closed or reset");
    report.error(&value.place, finding);
    None
}

impl RefusalConfig {
    /// Whether it says anything.
    pub(super) fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.bytes.is_none()
    }

    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        let line = |(name, value): &(String, String)| format!("{name}: {value}");
        let headers: Vec<String> = self.headers.iter().map(line).collect();
        Entries::default()
            .given((!headers.is_empty()).then_some(headers), |out, it| out.list("headers", &it))
            .given(self.bytes.as_deref(), |out, bytes| {
                out.plain("bytes", format!("'{}'", escaped(bytes)))
            })
    }
}
