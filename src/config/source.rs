//! Where connections to backends come from: `source` and `transparent` of a pool.

use std::net::IpAddr;

use crate::policy::balance::source::SOURCES_MAX;

use super::backend::Member;
use super::file::{Section, Value, quoted, shown};
use super::report::{Finding, Report};
use super::scalar;
use super::unix::PREFIX;

const SAMPLE: &str = "[\"10.0.0.5\", \"10.0.0.6\"]";
const EXPECTED: &str = "an IP address of this host such as \"10.0.0.5\"";

/// Reads `source`; empty when the kernel chooses.
pub(super) fn source(section: &Section<'_>, report: &mut Report<'_>) -> Vec<IpAddr> {
    let field = section.read("source", report, |value, report| {
        let sources = scalar::list(value, SAMPLE, report, |element, report| {
            Some((address(element, report)?, element.clone()))
        })?;
        if sources.len() > SOURCES_MAX {
            let message = format!("`source` has {} entries", sources.len());
            let finding = Finding::new(message).expected(format!("at most {SOURCES_MAX}"));
            report.error(&value.place, finding);
        }
        for (position, (own, element)) in sources.iter().enumerate() {
            let mut earlier = sources.iter().take(position);
            if let Some((_, first)) = earlier.find(|(other, _)| other == own) {
                let finding = Finding::new(format!("source `{own}` stands twice in this pool"))
                    .hint("each address has a turn of its own; name it once")
                    .beside(&first.place, "first given here");
                report.error(&element.place, finding);
            }
        }
        Some(sources.into_iter().map(|(own, _)| own).collect())
    });
    field.or(Vec::new())
}

/// Reads one address to connect from.
fn address(value: &Value<'_>, report: &mut Report<'_>) -> Option<IpAddr> {
    let text = scalar::string(value, EXPECTED, report)?;
    let finding = match text.parse::<IpAddr>() {
        Ok(address) => match unusable(address.to_canonical()) {
            None => return Some(address.to_canonical()),
            Some(finding) => finding,
        },
        Err(_) => explain(&text),
    };
    report.error(&value.place, finding);
    None
}

/// Why nothing can be connected from a well-formed address.
fn unusable(address: IpAddr) -> Option<Finding> {
    let finding = || Finding::new(format!("nothing can be connected from `{address}`"));
    let is_link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if address.is_unspecified() {
        let hint = "leave `source` out to let the kernel choose an address";
        return Some(finding().expected(EXPECTED).hint(hint));
    }
    if address.is_multicast() || matches!(address, IpAddr::V4(ip) if ip.is_broadcast()) {
        return Some(finding().expected(EXPECTED).hint("it is the address of many hosts"));
    }
    is_link_local.then(|| {
        let hint = "it says nothing without a device; use a global or unique local address";
        finding().expected(EXPECTED).hint(hint)
    })
}

/// What is wrong with text that is no IP address.
fn explain(text: &str) -> Finding {
    let finding = Finding::new(format!("`{}` is no IP address", shown(text))).expected(EXPECTED);
    if text.starts_with(PREFIX) {
        return finding.hint("a Unix socket is no place to connect from");
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        let hint =
            format!("write {}; the kernel chooses the port", quoted(&socket.ip().to_string()));
        return Finding::new(format!("source `{}` has a port", shown(text)))
            .expected(EXPECTED)
            .hint(hint);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return finding.hint(format!("write {}", quoted(bare)));
    }
    if text.split_once('/').is_some_and(|(network, _)| network.parse::<IpAddr>().is_ok()) {
        return finding.hint("name each address of the network that sessions may come from");
    }
    finding
}

/// Checks what `source` and `transparent` stand beside.
pub(super) fn compare_source(
    section: &Section<'_>,
    sources: &[IpAddr],
    is_transparent: bool,
    members: &[Member],
    report: &mut Report<'_>,
) {
    if section.partial {
        return;
    }
    let source = section.get("source").filter(|_| !sources.is_empty());
    let transparent = section.get("transparent").filter(|_| is_transparent);
    if let (Some(source), Some(transparent)) = (&source, &transparent) {
        let finding = Finding::new("a pool has `source` or is `transparent`, not both")
            .hint(
                "write `source = []` to have backends see the client's address, or \
                 `transparent = false`",
            )
            .beside(&source.place, "an address of this host");
        report.error(&transparent.place, finding);
        return;
    }
    let Some(given) = source.or(transparent) else { return };
    let name = given.name.clone();
    for member in members {
        let backend = &member.backend.address;
        let Some(to) = backend.host_ip() else {
            let address = shown(&backend.to_string());
            let finding = Finding::new(format!("`{name}` has no meaning for backend `{address}`"))
                .expected(format!("no `{name}`, or backends with IP addresses"))
                .hint("put Unix sockets into a pool of their own")
                .beside(&given.place, "given here");
            report.error(&member.place, finding);
            return;
        };
        let is_v4 = to.to_canonical().is_ipv4();
        if !sources.is_empty() && sources.iter().all(|own| own.is_ipv4() != is_v4) {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            let finding = Finding::new(format!("no `source` can connect to backend `{backend}`"))
                .expected(format!("at least one {family} address in `source`"))
                .hint(format!("add one, or put {family} backends into a pool of their own"))
                .beside(&given.place, format!("holds no {family} address"));
            report.error(&member.place, finding);
            return;
        }
    }
}
