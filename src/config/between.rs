//! What becomes of a listener's clients in the pools where they go, judged by what both tables say.

use crate::policy::balance::BalanceAlgorithm;
use crate::policy::terms::{Address, Protocol};

use super::bind::Bind;
use super::file::{Section, shown};
use super::hash::HashKey;
use super::listener::ListenerConfig;
use super::pool::PoolConfig;
use super::report::{FilePlace, Finding, Report};
use super::route::RouteConfig;
use super::units::show_duration;

/// Warns where all clients of a Unix socket go to one backend because it is chosen by an address.
pub(super) fn compare_hashes(
    listeners: &[ListenerConfig],
    pools: &[PoolConfig],
    binds: &[Bind],
    report: &mut Report<'_>,
) {
    for bind in binds.iter().filter(|bind| bind.addresses.first().is_unix()) {
        let Some(listener) = listeners.iter().find(|it| it.name == bind.listener) else { continue };
        if listener.accept_proxy.as_ref().is_some_and(|rule| rule.from_unix) {
            continue;
        }
        let routes = listener.routes.iter().filter(|route| route.client.is_empty());
        let used = routes.map(|route| route.pool).chain([listener.pool]);
        let Some((pool, how)) = used.filter_map(|pool| all_to_one(pools.get(pool)?)).next() else {
            continue;
        };
        let (address, name) = (shown(&bind.addresses.to_string()), shown(&pool.name));
        let message = format!("all clients of `{address}` go to one backend of pool `{name}`");
        let finding = Finding::new(message).hint(format!(
            "they have no address and {how}; write `balance = \"round-robin\"` or \
             \"least-connections\" there, without `sticky`"
        ));
        report.warning(&bind.place, finding);
    }
}

/// A pool that sends clients without an address to the same backend, and why.
fn all_to_one(pool: &PoolConfig) -> Option<(&PoolConfig, &'static str)> {
    let has_choice = pool.backends.iter().filter(|it| !it.backup && it.weight > 0).count() > 1;
    let by_address = matches!(pool.hashed()?, HashKey::ClientIp | HashKey::ClientIpPort);
    let how = match pool.balance {
        BalanceAlgorithm::Maglev => "\"maglev\" hashes it",
        _ => "`sticky` knows them by it",
    };
    (has_choice && by_address).then_some((pool, how))
}

/// Warns where a transparent pool cannot serve the clients that connect to an address.
pub(super) fn compare_clients(
    listeners: &[ListenerConfig],
    pools: &[PoolConfig],
    binds: &[Bind],
    report: &mut Report<'_>,
) {
    for bind in binds {
        let Some(listener) = listeners.iter().find(|it| it.name == bind.listener) else { continue };
        let claims = listener.accept_proxy.as_ref();
        let is_claimed = match bind.addresses.first() {
            Address::Ip(_) | Address::Host(_) => claims.is_some(),
            Address::Unix(_) => claims.is_some_and(|rule| rule.from_unix),
        };
        let used = listener.routes.iter().map(|route| route.pool).chain([listener.pool]);
        let mut unfit = used.filter_map(|pool| pools.get(pool)).filter(|pool| {
            let mut backends = pool.backends.iter().map(|backend| &backend.address);
            // One with Unix sockets has been refused already.
            let is_fit = |to: &Address| {
                matches!(to, Address::Unix(_)) || has_family(bind.addresses.first(), to)
            };
            pool.transparent && !pool.backends.is_empty() && !backends.any(is_fit)
        });
        let Some(pool) = unfit.next().filter(|_| !is_claimed) else { continue };
        let (address, name) = (shown(&bind.addresses.to_string()), shown(&pool.name));
        let why = match bind.addresses.first() {
            Address::Unix(_) => "its peers have none".to_owned(),
            Address::Ip(ip) if ip.is_ipv4() => "it has no IPv4 backend".to_owned(),
            Address::Ip(_) | Address::Host(_) => "it has no IPv6 backend".to_owned(),
        };
        let message = format!("pool `{name}` can serve no client of `{address}`");
        let finding = Finding::new(message).hint(format!(
            "it is `transparent`, which takes the client's address, and {why}; send them to \
             another pool"
        ));
        report.warning(&bind.place, finding);
    }
}

/// Whether a client of `bind` has an address by which `backend` can be connected.
fn has_family(bind: &Address, backend: &Address) -> bool {
    match (bind.host_ip(), backend.host_ip()) {
        (Some(bind), Some(backend)) => {
            bind.to_canonical().is_ipv4() == backend.to_canonical().is_ipv4()
        }
        _ => false,
    }
}

/// Warns where clients do not say first what a listener or a pool wants to hear; `section` is the
/// listener's table.
pub(super) fn lint_first_words(
    listener: &ListenerConfig,
    section: &Section<'_>,
    pools: &[PoolConfig],
    report: &mut Report<'_>,
) {
    let used = listener.routes.iter().map(|route| route.pool).chain([listener.pool]);
    let used = || used.clone().filter_map(|pool| pools.get(pool));
    let is_said = |key: &HashKey| !matches!(key, HashKey::ClientIp | HashKey::ClientIpPort);
    let asks_tls = |route: &RouteConfig| !route.sni.is_empty() || !route.alpn.is_empty();
    let has_tls_route = listener.routes.iter().any(asks_tls);
    if let Some(protocol) = section.get("protocol")
        && listener.terms.protocol == Protocol::Http
        && (has_tls_route || used().any(|pool| pool.hashed() == Some(&HashKey::Sni)))
    {
        let finding = Finding::new(
            "clients that name a server speak TLS, not `protocol = \"http\"`",
        )
        .hint("they cannot read its answers; write `protocol = \"tcp\"`, or route by `client`");
        report.warning(&protocol.place, finding);
    }
    let Some(pool) = used().find(|pool| pool.speaks_first()) else { return };
    let name = shown(&pool.name);
    if let Some(deferred) = section.get("defer_accept").filter(|_| listener.defer_accept) {
        let finding = Finding::new(format!(
            "`defer_accept` delays clients of pool `{name}`, whose servers speak first"
        ));
        report.warning(&deferred.place, finding.hint("write `defer_accept = false`"));
    }
    if has_tls_route || pool.hashed().is_some_and(is_said) {
        let place = section.own("pool").map_or_else(|| section.header(), |value| value.place);
        let peek = show_duration(listener.peek.timeout);
        let finding = Finding::new(format!(
            "clients of pool `{name}` say nothing before its servers do, and routing waits for them"
        ));
        let finding = finding.hint(format!(
            "each waits for {peek} (`peek`); give the pool a listener without `sni` and `alpn`, \
             and hash the client's address"
        ));
        report.warning(&place, finding);
    }
}

/// Warns about pools to which no listener sends a client; `headers` are where their tables begin.
pub(super) fn warn_unused(
    listeners: &[ListenerConfig],
    pools: &[PoolConfig],
    headers: &[FilePlace],
    report: &mut Report<'_>,
) {
    let used: Vec<usize> = listeners
        .iter()
        .flat_map(|listener| listener.routes.iter().map(|route| route.pool).chain([listener.pool]))
        .collect();
    let is_unclear = used.iter().any(|pool| *pool >= pools.len());
    if listeners.is_empty() || is_unclear {
        return;
    }
    for (index, (pool, header)) in pools.iter().zip(headers).enumerate() {
        if !used.contains(&index) {
            let name = shown(&pool.name);
            let finding = Finding::new(format!("no listener uses pool `{name}`"))
                .hint(format!("write `pool = \"{name}\"` in a listener, or remove the table"));
            report.warning(header, finding);
        }
    }
}
