//! Networks in CIDR notation and lists of them.
//!
//! A bare address stands for itself alone. Host bits are dropped, with a warning: another
//! network or another prefix was meant.

use std::net::IpAddr;

use ipnet::IpNet;

use super::file::{Field, Section, Value, shown};
use super::report::{Finding, Report};
use super::scalar;

const EXPECTED: &str = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";

/// Reads a list of networks; empty when the key is absent.
pub(super) fn list(
    section: &Section<'_>,
    name: &str,
    report: &mut Report<'_>,
) -> Field<Vec<IpNet>> {
    section.read(name, report, |value, report| {
        scalar::list(value, "[\"10.0.0.0/8\"]", report, network)
    })
}

/// Reads one network.
pub(super) fn network(value: &Value<'_>, report: &mut Report<'_>) -> Option<IpNet> {
    let text = scalar::string(value, EXPECTED, report)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address));
    }
    let Ok(network) = text.parse::<IpNet>() else {
        report.error(&value.place, explain(&text));
        return None;
    };
    let whole = network.trunc();
    if whole != network {
        let finding = Finding::new(format!("`{network}` has bits set beyond its prefix"))
            .hint(format!("it is read as \"{whole}\"; write that, or \"{}\"", network.addr()));
        report.warning(&value.place, finding);
    }
    Some(whole)
}

/// What is wrong with text that is no network.
fn explain(text: &str) -> Finding {
    let finding = Finding::new(format!("`{}` is no network", shown(text))).expected(EXPECTED);
    if text.starts_with("unix") {
        return finding.hint("a peer on a Unix socket has no address and is in no network");
    }
    let Some((address, _)) = text.split_once('/') else { return finding };
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => finding.hint("an IPv4 prefix is a length from 0 to 32"),
        Ok(IpAddr::V6(_)) => finding.hint("an IPv6 prefix is a length from 0 to 128"),
        Err(_) => finding,
    }
}

/// Whether `deny` covers every network of a non-empty `allow`.
pub(super) fn covers_all(deny: &[IpNet], allow: &[IpNet]) -> bool {
    let deny = IpNet::aggregate(&deny.to_vec());
    !allow.is_empty() && allow.iter().all(|network| deny.iter().any(|wide| wide.contains(network)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(deny: &[&str], allow: &[&str]) -> bool {
        let read =
            |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        covers_all(&read(deny), &read(allow))
    }

    /// If it fails, a listener that admits no client goes unnoticed, or a good one is accused.
    #[test]
    fn an_allow_list_that_admits_no_client_is_found() {
        assert!(covered(&["10.0.0.0/8"], &["10.1.0.0/16", "10.2.3.4/32"]));
        assert!(covered(&["10.0.0.0/9", "10.128.0.0/9"], &["10.0.0.0/8"]));
        assert!(!covered(&["10.0.0.0/8"], &["10.1.0.0/16", "192.168.0.0/16"]));
        assert!(!covered(&["10.1.0.0/16"], &["10.0.0.0/8"]));
        assert!(!covered(&["0.0.0.0/0"], &[]));
        assert!(!covered(&["0.0.0.0/0"], &["::/0"]));
    }
}
