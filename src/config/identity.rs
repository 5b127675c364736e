//! `accept_proxy` of a listener: from the table to an [`AcceptProxy`].

use std::time::Duration;

use super::AcceptProxy;
use super::file::Section;
use super::keys::Table;
use super::listener::SHORTEST;
use super::network;
use super::report::{Finding, Report};
use super::scalar::Words;

/// Longest time that somebody may take to say who is there.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// True is "direct".
const OTHERS: &Words<bool> = &[("refuse", Some(false)), ("direct", Some(true))];

/// Reads `accept_proxy`; without peers in `from` there is none.
pub(super) fn accept_proxy(listener: &Section<'_>, report: &mut Report<'_>) -> Option<AcceptProxy> {
    let section = listener.open("accept_proxy", Table::AcceptProxy, report)?;
    let from = network::list(&section, "from", report);
    if from.is_absent() && !section.partial {
        let finding = Finding::new("`accept_proxy` does not say from whom")
            .expected("`from`, the networks of the proxies in front")
            .hint("add `from = [\"10.0.0.0/8\"]`; who is in it may claim any address");
        report.error(&section.header(), finding);
    }
    let rule = AcceptProxy {
        from: from.or(Vec::new()),
        is_direct_else: section.word("others", OTHERS, report).or(false),
        timeout: section.duration("timeout", SHORTEST..=LONGEST, report).or(Duration::from_secs(3)),
    };
    if rule.from.iter().any(|network| network.prefix_len() == 0)
        && let Some(value) = section.get("from")
    {
        let finding = Finding::new("everybody may claim to be any client")
            .hint("list the proxies in front and nobody else");
        report.warning(&value.place, finding);
    }
    (!rule.from.is_empty()).then_some(rule)
}
