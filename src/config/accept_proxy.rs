//! `accept_proxy` of a listener: peers that begin with a PROXY header.

use std::time::Duration;

use ipnet::IpNet;

use crate::policy::terms::Word;

use super::bounds::{HOUR, SHORTEST};
use super::entries::Entries;
use super::file::{Section, Value, shown};
use super::key::{Key, KeyTable, Shape, words};
use super::network;
use super::report::{Finding, Report};
use super::scalar;
use super::unix::PREFIX;

/// Keys of `accept_proxy`.
pub(super) static ACCEPT_PROXY: KeyTable = KeyTable {
    name: "AcceptProxy",
    title: "`accept_proxy` of [listener.NAME]",
    sample: "accept_proxy = { from = [\"10.0.0.0/8\"] }",
    keys: &[
        Key::new("from", Shape::List("networks"))
            .means("Peers that have to send a header; `\"unix:\"` is every peer on a Unix socket."),
        Key::new("others", Shape::Word(words::<OtherPeers>)).default("refuse").means(
            "Other peers are refused at once, or served as clients without a look for a \
                    header.",
        ),
        Key::new("timeout", Shape::Duration(SHORTEST, HOUR))
            .default("3s")
            .means("How long the whole header may take."),
    ],
    also: &[],
};
/// `accept_proxy` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxyConfig {
    /// Peers from which a header is required.
    pub from: Vec<IpNet>,
    /// Peers on Unix sockets, too. At least one network or this.
    pub from_unix: bool,
    /// True is "direct": of other peers no header is expected. False: they are refused.
    pub is_direct_else: bool,
    /// How long the header may take.
    pub timeout: Duration,
}

/// `others` of `accept_proxy`: what becomes of peers of which no header is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherPeers {
    /// They are refused.
    Refuse,
    /// They are served as clients.
    Direct,
}

impl Word for OtherPeers {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("direct", Self::Direct)];
}

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
        let finding = Finding::new("`accept_proxy` names no peers")
            .expected("`from`, the networks of the proxies in front")
            .hint("add `from = [\"10.0.0.0/8\"]`; peers in it may claim any address");
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
        let finding = Finding::new("every peer may claim to be any client")
            .hint("list only the proxies in front");
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
                .hint("write \"unix:\"; the socket's directory decides which programs may connect");
            report.error(&value.place, finding);
            None
        }
        _ => network::network(value, report).map(Proxies::In),
    }
}

impl AcceptProxyConfig {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        let Self { from, from_unix, is_direct_else, timeout } = self;
        let others = if *is_direct_else { OtherPeers::Direct } else { OtherPeers::Refuse };
        let mut from: Vec<String> = from.iter().map(IpNet::to_string).collect();
        from.extend(from_unix.then(|| PREFIX.to_owned()));
        Entries::default().list("from", &from).word("others", others).duration("timeout", *timeout)
    }
}
