//! `[listener.NAME]`: from the table to a [`ListenerConfig`].

use super::Address;
use super::accept_proxy::accept_proxy;
use super::address::{Purpose, address, is_same, overlaps};
use super::bind::Bind;
use super::file::{Section, join_or, shown};
use super::keys::KeyTable;
use super::limit::limit;
use super::named_pool::{NO_POOL, named_pool};
use super::network;
use super::report::{FilePlace, Finding, Report};
use super::route::{peek, routes};
use super::scalar;
use super::unix;
use super::{Bandwidth, Keepalive, ListenerConfig, size};

/// Reads one listener; `pools` are the names it may choose from.
pub(super) fn listener(
    name: &str,
    section: &Section<'_>,
    pools: &[String],
    report: &mut Report<'_>,
) -> (ListenerConfig, Vec<Bind>) {
    let binds = bind(name, section, report);
    let protocol = section.word_or_default("protocol", report);
    let listener = ListenerConfig {
        name: name.to_owned(),
        bind: binds.iter().map(|bind| bind.address.clone()).collect(),
        pool: pool(name, section, pools, report),
        routes: routes(section, pools, report),
        peek: peek(section, report),
        protocol,
        idle_timeout: section.duration_or_default("idle_timeout", report),
        half_closed_timeout: section.duration_or_default("half_closed_timeout", report),
        max_lifetime: section.duration("max_lifetime", report).value(),
        max_sessions: section.count("max_sessions", report).value(),
        backlog: section.count32_or_default("backlog", report),
        allow: network::list(section, "allow", report).or(Vec::new()),
        deny: network::list(section, "deny", report).or(Vec::new()),
        accept_proxy: accept_proxy(section, report),
        keepalive: keepalive(section, report),
        user_timeout: section.duration("user_timeout", report).value(),
        fast_open: section.boolean_or_default("fast_open", report),
        defer_accept: section.boolean_or_default("defer_accept", report),
        mptcp: section.boolean_or_default("mptcp", report),
        bandwidth: bandwidth(section, report),
        limit: limit(section, protocol, report),
    };
    compare_access(&listener, section, report);
    unix::compare_listener(&listener, section, &binds, report);
    (listener, binds)
}

/// Reads `bind`, which is required.
fn bind(name: &str, section: &Section<'_>, report: &mut Report<'_>) -> Vec<Bind> {
    const SAMPLE: &str = "[\"0.0.0.0:5432\"]";
    let field = section.read("bind", report, |value, report| {
        if value.elements().is_some_and(|elements| elements.is_empty()) {
            let finding = Finding::new("`bind` is empty");
            report.error(&value.place, finding.expected("at least one address to accept on"));
            return None;
        }
        scalar::list(value, SAMPLE, report, |value, report| {
            let address = address(value, Purpose::Accept, report)?;
            Some(Bind { address, place: value.place.clone(), listener: name.to_owned() })
        })
    });
    if field.is_absent() && !section.partial {
        let finding = Finding::new(format!("listener `{}` has no `bind`", shown(name)))
            .expected("the addresses to accept on")
            .hint(format!("add `bind = {SAMPLE}`"));
        report.error(&section.header(), finding);
    }
    field.or(Vec::new())
}

/// Reads `pool`, which is required, and finds it among `pools`; [`NO_POOL`] after an error.
fn pool(name: &str, section: &Section<'_>, pools: &[String], report: &mut Report<'_>) -> usize {
    let field = section.read("pool", report, |value, report| named_pool(value, pools, report));
    if field.is_absent() && !section.partial {
        let known: Vec<String> =
            pools.iter().map(|pool| format!("`pool = \"{}\"`", shown(pool))).collect();
        let finding = Finding::new(format!("listener `{}` has no `pool`", shown(name)))
            .expected("the name of a [pool.NAME] table");
        let finding = match known.len() {
            1..=4 => finding.hint(format!("add {}", join_or(&known))),
            _ => finding,
        };
        report.error(&section.header(), finding);
    }
    field.or(NO_POOL)
}

/// Reads `keepalive`.
fn keepalive(section: &Section<'_>, report: &mut Report<'_>) -> Keepalive {
    const WHY: &str = "the kernel counts keepalive in seconds";
    let section = section.open("keepalive", report).unwrap_or(Section::absent(KeyTable::Keepalive));
    Keepalive {
        idle: section.whole_seconds("idle", WHY, report),
        interval: section.whole_seconds("interval", WHY, report),
        count: section.count32_or_default("count", report),
    }
}

/// Reads `bandwidth`.
fn bandwidth(section: &Section<'_>, report: &mut Report<'_>) -> Bandwidth {
    let Some(section) = section.open("bandwidth", report) else {
        return Bandwidth::default();
    };
    let up = size::per_second(&section, "up", report);
    let down = size::per_second(&section, "down", report);
    if up.is_absent() && down.is_absent() && !section.partial {
        let finding = Finding::new("`bandwidth` bounds nothing");
        let finding = finding.expected("`up`, `down` or both, such as `down = \"1MiB/s\"`");
        report.error(&section.header(), finding);
    }
    Bandwidth { up: up.value(), down: down.value() }
}

/// Warns when `deny` leaves nothing of `allow`.
fn compare_access(listener: &ListenerConfig, section: &Section<'_>, report: &mut Report<'_>) {
    if section.partial || !network::covers_all(&listener.deny, &listener.allow) {
        return;
    }
    let Some(allow) = section.get("allow") else { return };
    let name = shown(&listener.name);
    let mut finding = Finding::new(format!("nobody may connect to listener `{name}`"))
        .hint("`deny` wins over `allow` and covers all of it");
    if let Some(deny) = section.get("deny") {
        finding = finding.beside(&deny.place, "covers every allowed network");
    }
    report.warning(&allow.place, finding);
}

/// Checks that no two sockets ask for the same address.
pub(super) fn compare_binds(
    binds: &[Bind],
    http: Option<(Address, &FilePlace)>,
    report: &mut Report<'_>,
) {
    for (index, bind) in binds.iter().enumerate() {
        let earlier = binds.iter().take(index);
        if let Some(first) = earlier
            .filter(|first| overlaps(&first.address, &bind.address))
            .min_by_key(|first| first.place.span.start)
        {
            let owner = shown(&first.listener);
            let line = report.line(&first.place);
            let message = if !is_same(&first.address, &bind.address) {
                format!("`{}` overlaps with `{}`", bind.address, first.address)
            } else if first.listener == bind.listener {
                format!("`{}` is bound twice", bind.address)
            } else {
                format!("`{}` is already bound by listener `{owner}`", bind.address)
            };
            let finding = Finding::new(message)
                .hint(format!("the first is in line {line}; keep one of them"))
                .beside(&first.place, "first bound here");
            report.error(&bind.place, finding);
        }
    }
    let Some((address, place)) = http else { return };
    if let Some(bind) = binds.iter().find(|bind| overlaps(&bind.address, &address)) {
        let owner = shown(&bind.listener);
        let finding = Finding::new(format!("`{address}` is already bound by listener `{owner}`"))
            .hint("give the admin page a port of its own")
            .beside(&bind.place, "first bound here");
        report.error(place, finding);
    }
}
