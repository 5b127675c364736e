//! `nat64`: the prefixes of translators.

use ipnet::{IpNet, Ipv6Net};

use crate::policy::nat64::PREFIX_LENGTHS;

use super::file::{Section, Value};
use super::network::network;
use super::report::{Finding, Report};
use super::scalar;

/// The well-known prefix (RFC 6052, section 2.1).
pub(super) const WELL_KNOWN: &str = "[\"64:ff9b::/96\"]";

/// Reads the prefixes.
pub(super) fn nat64(section: &Section<'_>, report: &mut Report<'_>) -> Vec<Ipv6Net> {
    let field = section
        .read("nat64", report, |value, report| scalar::list(value, WELL_KNOWN, report, prefix));
    if field.is_absent() { default() } else { field.or(Vec::new()) }
}

/// Behind the well-known prefix are IPv4 addresses everywhere.
pub(super) fn default() -> Vec<Ipv6Net> {
    "64:ff9b::/96".parse().into_iter().collect()
}

fn prefix(value: &Value<'_>, report: &mut Report<'_>) -> Option<Ipv6Net> {
    let net = network(value, report)?;
    let lengths = PREFIX_LENGTHS.map(|length| length.to_string());
    let finding = match net {
        IpNet::V6(net) if PREFIX_LENGTHS.contains(&net.prefix_len()) => return Some(net),
        IpNet::V6(net) => {
            Finding::new(format!("no translator has a prefix of {} bits", net.prefix_len()))
        }
        IpNet::V4(_) => Finding::new(format!("`{net}` is no prefix of a translator")),
    };
    let finding = finding.expected(format!("an IPv6 prefix of {} bits", lengths.join(", ")));
    report.error(&value.place, finding.hint("RFC 6052, section 2.2, says how it embeds addresses"));
    None
}
