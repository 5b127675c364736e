//! `[listener.NAME]`: where clients connect, and on what terms.

use std::time::Duration;

use ipnet::IpNet;

use crate::policy::address_range::AddressRange;
use crate::policy::session_terms::ListenerTerms;
use crate::policy::terms::{KernelRefusal, OnIdle, Peek, Protocol};

use super::accept_proxy::{ACCEPT_PROXY, AcceptProxyConfig, accept_proxy};
use super::bandwidth::{self, BANDWIDTH, bandwidth};
use super::bind::{Bind, bind};
use super::bounds::{LONGEST, SESSIONS_MAX, SHORTEST};
use super::entries::Entries;
use super::file::{Section, bare_or_quoted, join_or, shown};
use super::keepalive::{self, KEEPALIVE, keepalive};
use super::key::{Key, KeyTable, Shape, words};
use super::limit::{LIMIT, LimitConfig, limits};
use super::named_pool::{NO_POOL, named_pool};
use super::network;
use super::peek::{self, PEEK, peek};
use super::refusal::{REFUSAL, RefusalConfig, refusal};
use super::report::{Finding, Report};
use super::route::{ROUTE, RouteConfig, routes};

/// The kernel keeps TCP_USER_TIMEOUT in milliseconds of 31 bits.
const USER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 86_400);

/// Options of a TCP socket that listens.
const OF_TCP: [&str; 4] = ["fast_open", "defer_accept", "mptcp", "freebind"];

/// Keys of `[listener.NAME]`.
pub(super) static LISTENER: KeyTable = KeyTable {
    name: "Listener",
    title: "[listener.NAME]",
    sample: "",
    keys: &[
        Key::new("bind", Shape::List("addresses"))
            .note("at least one")
            .reload(
                "new addresses are opened before the swap; gone ones are emptied and closed \
                     after it",
            )
            .means(
                "Where to accept: addresses, or ranges of ports such as `\"0.0.0.0:5000-5099\"`.",
            ),
        Key::new("pool", Shape::Text("name"))
            .note("a `[pool.NAME]`")
            .means("Where its sessions go, those that no route sends elsewhere."),
        Key::new("protocol", Shape::Word(words::<Protocol>))
            .default("tcp")
            .means("What clients speak."),
        Key::new("idle_timeout", Shape::Duration(SHORTEST, LONGEST))
            .default("10m")
            .reload("now, noticed within 17 s")
            .means(
                "Reset a session when no byte was delivered in either direction, and neither peer \
                 has acknowledged any, for this long.",
            ),
        Key::new("half_closed_timeout", Shape::Duration(SHORTEST, LONGEST))
            .default("1m")
            .reload("now, noticed within 17 s")
            .means("`idle_timeout` of a session of which one side has sent EOF."),
        Key::new("on_idle", Shape::Word(words::<OnIdle>))
            .default("reset")
            .reload("now")
            .means("How `idle_timeout` ends a session of which nothing is on its way."),
        Key::new("max_sessions", Shape::Count(1, SESSIONS_MAX))
            .or_else("no bound of its own")
            .means("Sessions of this listener at once."),
        Key::new("backlog", Shape::Count(1, 65_535)).default("4096").reload("now").means(
            "Length of the kernel's accept queue, for each worker; a Unix socket has one for \
                    all.",
        ),
        Key::new("allow", Shape::List("networks"))
            .default("[]")
            .means("Networks that may connect; empty is all."),
        Key::new("deny", Shape::List("networks"))
            .default("[]")
            .means("Networks that may not connect; wins over `allow`."),
        Key::new("kernel_refusal", Shape::Word(words::<KernelRefusal>)).default("auto").means(
            "Whether the kernel refuses clients that `allow`, `deny` or a ban keeps out, see \
             [below](#refusals-in-the-kernel): where it can, never, or else the configuration is \
             refused.",
        ),
        Key::new("accept_proxy", Shape::TableOrFalse(&ACCEPT_PROXY))
            .or_else("no peers")
            .means("Peers that begin with a PROXY header, see below."),
        Key::new("max_lifetime", Shape::Duration(SHORTEST, LONGEST))
            .or_else("for ever")
            .reload("now, noticed within 17 s")
            .means(
                "Reset a session once it has lasted this long: at its first moment of rest, or a \
                 quarter of this later, at most 30 s, whatever it does.",
            ),
        Key::new("keepalive", Shape::Table(&KEEPALIVE))
            .or_else("see below")
            .means("TCP keepalive of both sockets."),
        Key::new("user_timeout", Shape::Duration(SHORTEST, USER_TIMEOUT_MAX))
            .or_else("`idle` + `interval` × `count` of `keepalive`")
            .means(
                "`TCP_USER_TIMEOUT` of both sockets: give a peer up when sent bytes stay \
                 unacknowledged, or it takes none, for this long. The kernel has none for a client \
                 that speaks Multipath TCP.",
            ),
        Key::new("fast_open", Shape::Boolean).default("false").reload("now").means(
            "Accept data in the SYN (queue of 256). The host has to allow it to servers: bit 2 \
                    of `net.ipv4.tcp_fastopen`.",
        ),
        Key::new("defer_accept", Shape::Boolean).default("false").reload("now").means(
            "`TCP_DEFER_ACCEPT`: accept only once the client has sent something. The kernel lets \
                    a silent client in after about a second.",
        ),
        Key::new("mptcp", Shape::Boolean)
            .default("false")
            .reload("restart, for an address that is listened on")
            .means("Accept Multipath TCP, and plain TCP as well. The host has to have it."),
        Key::new("freebind", Shape::Boolean)
            .default("false")
            .reload("now, for addresses that are not listened on yet")
            .means(
                "Listen on addresses that this host does not have yet, such as a VIP that another \
                    node has.",
            ),
        Key::new("bandwidth", Shape::TableOrFalse(&BANDWIDTH))
            .or_else("no bound")
            .reload("now")
            .means(
                "How fast the bytes of each session go, see \
                 [below](#bandwidth-of-listenername).",
            ),
        Key::new("route", Shape::Tables(&ROUTE))
            .or_else("none")
            .means("Other pools for some clients, see [below](#listenernameroute)."),
        Key::new("peek", Shape::Table(&PEEK))
            .or_else("see below")
            .means("How long to wait for what routes and hashes need."),
        Key::new("limit", Shape::TableOrTables(&LIMIT))
            .or_else("no limit")
            .means("Admission per client, see [below](#listenernamelimit)."),
        Key::new("refusal", Shape::Table(&REFUSAL)).or_else("see below").means(
            "What clients that are turned away are told, see [below](#listenernamerefusal).",
        ),
    ],
    also: &[],
};
/// `[listener.NAME]`: addresses that accept, and what happens to clients that connect.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Its name in the file.
    pub name: String,
    /// Addresses to accept on, as they are written; port 0 lets the kernel choose. Never empty, no
    /// address twice.
    pub bind: Vec<AddressRange>,
    /// Index into [`pools`](super::model::Config::pools).
    pub pool: usize,
    /// Other pools, for clients that the first matching route sends there.
    pub routes: Vec<RouteConfig>,
    /// How what the client says first is looked at, where a route or a hash needs it.
    pub peek: Peek,
    /// What holds for each of its sessions.
    pub terms: ListenerTerms,
    /// Sessions this listener will hold at once.
    pub max_sessions: Option<u64>,
    /// Length of the kernel's accept queue, per worker.
    pub backlog: u32,
    /// Networks that may connect; empty is all.
    pub allow: Vec<IpNet>,
    /// Networks that may not; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Whether the kernel refuses clients that the two or a ban keeps out.
    pub kernel_refusal: KernelRefusal,
    /// Peers that have to begin with a PROXY header; `None` is none.
    pub accept_proxy: Option<AcceptProxyConfig>,
    /// Accept TCP Fast Open.
    pub fast_open: bool,
    /// TCP_DEFER_ACCEPT: wake up only when the client has sent something.
    pub defer_accept: bool,
    /// Accept Multipath TCP.
    pub mptcp: bool,
    /// Listen on addresses that this host does not have (yet).
    pub freebind: bool,
    /// Admission per client: all of these that concern the client.
    pub limits: Vec<LimitConfig>,
    /// What clients that are turned away are told.
    pub refusal: RefusalConfig,
}

impl ListenerConfig {
    /// Why the kernel cannot refuse clients before its sockets, in words.
    pub(super) fn has_no_place_for_a_gate(&self) -> Option<&'static str> {
        if self.bind.iter().all(|range| range.first().is_unix()) {
            return Some("clients of Unix sockets have no address");
        }
        self.mptcp.then_some("Linux has no place for it before a listener with `mptcp`")
    }
}

/// Reads one listener; `pools` are the names it may choose from.
pub(super) fn listener(
    name: &str,
    section: &Section<'_>,
    pools: &[String],
    report: &mut Report<'_>,
) -> (ListenerConfig, Vec<Bind>) {
    let binds = bind(name, section, report);
    let terms = terms(section, report);
    let refusal = refusal(section, terms.protocol, report);
    let is_told = terms.protocol == Protocol::Http || refusal.bytes.is_some();
    let listener = ListenerConfig {
        name: name.to_owned(),
        bind: binds.iter().map(|bind| bind.addresses.clone()).collect(),
        pool: pool(name, section, pools, report),
        routes: routes(section, pools, report),
        peek: peek(section, report),
        max_sessions: section.count("max_sessions", report).value(),
        backlog: section.count32_or_default("backlog", report),
        allow: network::list(section, "allow", report).or(Vec::new()),
        deny: network::list(section, "deny", report).or(Vec::new()),
        kernel_refusal: section.word_or_default("kernel_refusal", report),
        accept_proxy: accept_proxy(section, report),
        fast_open: section.boolean_or_default("fast_open", report),
        defer_accept: section.boolean_or_default("defer_accept", report),
        mptcp: section.boolean_or_default("mptcp", report),
        freebind: section.boolean_or_default("freebind", report),
        limits: limits(section, is_told, report),
        refusal,
        terms,
    };
    compare_access(&listener, section, report);
    compare_unix(&listener, section, &binds, report);
    (listener, binds)
}

fn terms(section: &Section<'_>, report: &mut Report<'_>) -> ListenerTerms {
    ListenerTerms {
        protocol: section.word_or_default("protocol", report),
        idle_timeout: section.duration_or_default("idle_timeout", report),
        half_closed_timeout: section.duration_or_default("half_closed_timeout", report),
        on_idle: section.word_or_default("on_idle", report),
        max_lifetime: section.duration("max_lifetime", report).value(),
        keepalive: keepalive(section, report),
        user_timeout: section.duration("user_timeout", report).value(),
        bandwidth: bandwidth(section, report),
    }
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

/// Warns when `deny` leaves nothing of `allow`.
fn compare_access(listener: &ListenerConfig, section: &Section<'_>, report: &mut Report<'_>) {
    if section.partial || !network::covers_all(&listener.deny, &listener.allow) {
        return;
    }
    let Some(allow) = section.get("allow") else { return };
    let name = shown(&listener.name);
    let mut finding = Finding::new(format!("listener `{name}` admits no client"))
        .hint("`deny` wins over `allow` and covers all of it");
    if let Some(deny) = section.get("deny") {
        finding = finding.beside(&deny.place, "covers every allowed network");
    }
    report.warning(&allow.place, finding);
}

/// Warns where a listener on a Unix socket does something else than what it seems to.
fn compare_unix(
    listener: &ListenerConfig,
    section: &Section<'_>,
    binds: &[Bind],
    report: &mut Report<'_>,
) {
    let is_unix = |bind: &&Bind| bind.addresses.first().is_unix();
    let Some(bind) = binds.iter().find(is_unix).filter(|_| !section.partial) else { return };
    let address = shown(&bind.addresses.to_string());
    let proxies = listener.accept_proxy.as_ref();
    if proxies.is_some_and(|rule| !rule.from_unix && !rule.is_direct_else) {
        let mut finding = Finding::new(format!("every peer of `{address}` is refused"))
            .expected("`\"unix:\"` among those that `accept_proxy` takes a header from")
            .hint("add \"unix:\" to `from`, or write `others = \"direct\"`");
        if let Some(rule) = section.get("accept_proxy") {
            finding = finding.beside(&rule.place, "names networks only");
        }
        report.warning(&bind.place, finding);
    } else if !listener.allow.is_empty() && proxies.is_none_or(|rule| !rule.from_unix) {
        let mut finding = Finding::new(format!("every client of `{address}` is refused"))
            .hint("a peer on a Unix socket has no address and is in no network of `allow`");
        if let Some(allow) = section.get("allow") {
            finding = finding.beside(&allow.place, "admits networks only");
        }
        report.warning(&bind.place, finding);
    }
    if binds.iter().all(|bind| is_unix(&bind)) {
        let given = [listener.fast_open, listener.defer_accept, listener.mptcp, listener.freebind];
        for (name, _) in OF_TCP.into_iter().zip(given).filter(|(_, given)| *given) {
            let Some(value) = section.get(name) else { continue };
            let finding = Finding::new(format!("`{name}` has no effect on Unix sockets"))
                .hint(format!("write `{name} = false` for listener `{}`", shown(&listener.name)));
            report.warning(&value.place, finding);
        }
    }
}

impl ListenerConfig {
    /// Indexes of the pools where its clients may go; one may come several times.
    pub(crate) fn pools(&self) -> impl Iterator<Item = usize> {
        self.routes.iter().map(|route| route.pool).chain([self.pool])
    }

    /// Its tables as `evenkeel config` shows them; `pool_name` knows the name of a pool by its
    /// index.
    pub(super) fn shown<'p>(&self, pool_name: impl Fn(usize) -> &'p str) -> String {
        let name = bare_or_quoted(&self.name);
        let mut out = self.entries(pool_name(self.pool)).below(&format!("[listener.{name}]"));
        for limit in &self.limits {
            let header = match self.limits.len() {
                1 => format!("[listener.{name}.limit]"),
                _ => format!("[[listener.{name}.limit]]"),
            };
            out += &limit.entries().below(&header);
        }
        if !self.refusal.is_empty() {
            out += &self.refusal.entries().below(&format!("[listener.{name}.refusal]"));
        }
        out += &peek::entries(self.peek).below(&format!("[listener.{name}.peek]"));
        for route in &self.routes {
            let entries = route.entries(pool_name(route.pool));
            out += &entries.below(&format!("[[listener.{name}.route]]"));
        }
        out
    }

    fn entries(&self, pool: &str) -> Entries {
        let ListenerTerms { protocol, idle_timeout, half_closed_timeout, on_idle, .. } = self.terms;
        let ListenerTerms { max_lifetime, keepalive, user_timeout, bandwidth, .. } = self.terms;
        let bandwidth = bandwidth::entries(bandwidth);
        Entries::default()
            .list("bind", &self.bind)
            .text("pool", pool)
            .word("protocol", protocol)
            .duration("idle_timeout", idle_timeout)
            .duration("half_closed_timeout", half_closed_timeout)
            .word("on_idle", on_idle)
            .given(max_lifetime, |out, most| out.duration("max_lifetime", most))
            .given(self.max_sessions, |out, most| out.plain("max_sessions", most))
            .plain("backlog", self.backlog)
            .list("allow", &self.allow)
            .list("deny", &self.deny)
            .word("kernel_refusal", self.kernel_refusal)
            .given(self.accept_proxy.as_ref(), |out, rule| {
                out.table("accept_proxy", &rule.entries())
            })
            .table("keepalive", &keepalive::entries(keepalive))
            .given(user_timeout, |out, most| out.duration("user_timeout", most))
            .plain("fast_open", self.fast_open)
            .plain("defer_accept", self.defer_accept)
            .plain("mptcp", self.mptcp)
            .plain("freebind", self.freebind)
            .given((!bandwidth.is_empty()).then_some(bandwidth), |out, rates| {
                out.table("bandwidth", &rates)
            })
    }
}
