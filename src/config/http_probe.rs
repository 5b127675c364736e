//! The keys of `probe = "http"`: the request, and which answers are good.

use crate::policy::first_bytes::request_head::is_token;

use super::file::{Value, quoted, shown};
use super::report::{Finding, Report};
use super::scalar;

/// Longest path and query of a request; the HTTP client takes 65,534.
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// An HTTP method: a token of RFC 9110.
pub(super) fn method(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
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
pub(super) fn path(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
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
    } else if text.len() > PATH_BYTES_MAX {
        Finding::new("`path` is too long").expected(format!("at most {PATH_BYTES_MAX} bytes"))
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
pub(super) fn host(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    const EXPECTED: &str = "a host such as \"www.example.com\"";
    let text = scalar::string(value, EXPECTED, report)?;
    if text.chars().all(|letter| letter.is_ascii_graphic() && letter != '/') {
        return Some(text);
    }
    let finding = Finding::new(format!("`{}` is no value of a Host header", shown(&text)));
    report.error(&value.place, finding.expected(EXPECTED));
    None
}

/// Status codes that are good.
pub(super) fn statuses(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<(u16, u16)>> {
    if value.elements().is_some_and(|elements| elements.is_empty()) {
        let finding = Finding::new("`status` is empty: no answer would pass");
        report.error(&value.place, finding.expected("codes such as [\"200\"]"));
        return None;
    }
    scalar::list(value, "[\"200-299\"]", report, status)
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

/// Status codes and ranges as the file has them.
pub(super) fn show_statuses(ranges: &[(u16, u16)]) -> Vec<String> {
    let shown = |(low, high): &(u16, u16)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    };
    ranges.iter().map(shown).collect()
}
