//! `accept_proxy` of a listener: from the table to an [`AcceptProxyConfig`].

use ipnet::IpNet;

use super::AcceptProxyConfig;
use super::file::{Section, Value, shown};
use super::network;
use super::report::{Finding, Report};
use super::scalar;
use super::unix::PREFIX;
use super::words::OtherPeers;

/// Reads `accept_proxy`; without peers in `from` there is none.
pub(super) fn accept_proxy(
    listener: &Section<'_>,
    report: &mut Report<'_>,
) -> Option<AcceptProxyConfig> {
    let section = listener.open("accept_proxy", report)?;
    let from = section.read("from", report, |value, report| {
        scalar::list(value, "[\"10.0.0.0/8\"]", report, proxies)
    });
    if from.is_absent() && !section.partial {
        let finding = Finding::new("`accept_proxy` does not say from whom")
            .expected("`from`, the networks of the proxies in front")
            .hint("add `from = [\"10.0.0.0/8\"]`; who is in it may claim any address");
        report.error(&section.header(), finding);
    }
    let from = from.or(Vec::new());
    let rule = AcceptProxyConfig {
        from_unix: from.contains(&Proxies::OnUnixSockets),
        from: from.into_iter().filter_map(Proxies::network).collect(),
        is_direct_else: section.word_or_default::<OtherPeers>("others", report)
            == OtherPeers::Direct,
        timeout: section.duration_or_default("timeout", report),
    };
    if rule.from.iter().any(|network| network.prefix_len() == 0)
        && let Some(value) = section.get("from")
    {
        let finding = Finding::new("everybody may claim to be any client")
            .hint("list the proxies in front and nobody else");
        report.warning(&value.place, finding);
    }
    (rule.from_unix || !rule.from.is_empty()).then_some(rule)
}

/// Peers that have to send a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proxies {
    In(IpNet),
    OnUnixSockets,
}

impl Proxies {
    fn network(self) -> Option<IpNet> {
        match self {
            Self::In(network) => Some(network),
            Self::OnUnixSockets => None,
        }
    }
}

/// One entry of `from`: a network, or `unix:` for all peers on Unix sockets.
fn proxies(value: &Value<'_>, report: &mut Report<'_>) -> Option<Proxies> {
    match value.text() {
        Some(PREFIX) => Some(Proxies::OnUnixSockets),
        Some(text) if text.starts_with("unix") => {
            let finding = Finding::new(format!("`{}` is no network", shown(text)))
                .expected("a network, or \"unix:\" for every peer on a Unix socket")
                .hint("write \"unix:\"; who may connect is up to the socket's directory");
            report.error(&value.place, finding);
            None
        }
        _ => network::network(value, report).map(Proxies::In),
    }
}
