//! A frontend of HAProxy, or the `bind` lines of `listen`, as a listener.

use std::time::Duration;

use crate::import::amounts::time;
use crate::import::draft::{BindLine, Draft, KeyLines, ListenerDraft, RouteDraft};
use crate::import::networks::{difference, everything, shown};
use crate::import::notes::Notes;

use super::bind::bind;
use super::conditions::{AclTest, Acls, Subject};
use super::rules::{RequestRules, RuleContext, possible, request_rules};
use super::sections::{ConfigLine, HaproxySection};
use super::settings::{ProxySettings, ProxyTimes};

/// Longest time for first bytes.
const PEEK_MAX: Duration = Duration::from_secs(3600);

/// A frontend, and what is known of the others.
pub(super) struct FrontendRead<'a> {
    pub(super) section: &'a HaproxySection,
    pub(super) settings: &'a ProxySettings,
    /// Times of every proxy that has servers, by its pool.
    pub(super) times: &'a [(String, ProxyTimes)],
    pub(super) context: RuleContext<'a>,
}

/// Adds the listeners of a frontend to the draft: two where only some addresses have a PROXY
/// header.
pub(super) fn add_listeners(front: &FrontendRead<'_>, draft: &mut Draft, notes: &mut Notes) {
    let settings = front.settings;
    let binds: Vec<BindLine> = settings.binds.iter().map(|line| bind(line, notes)).collect();
    let rules = request_rules(&settings.requests, &front.context, notes);
    let mut routes = routes(front, draft, notes);
    if binds.iter().all(|bind| bind.binds.is_empty()) {
        return;
    }
    let Some(pool) = default_pool(front, &mut routes, draft, notes) else { return };
    if rules.is_only_tls {
        let refusing = draft.refusing_pool(front.context.proxy);
        if refusing != pool {
            let mut keys = KeyLines::default();
            keys.set("tls", false);
            routes.insert(0, RouteDraft { keys, pool: refusing });
        }
    }
    let mut keys = KeyLines::default();
    if settings.is_http {
        keys.set_text("protocol", "http");
    }
    set_times(&mut keys, front, &pool, &routes, notes);
    set_bounds(&mut keys, settings, notes);
    rules.access.set(&mut keys);
    let peek = peek(&rules, &routes);
    let limits = limits(&rules, settings, notes);
    let template = ListenerDraft {
        name: front.section.name().to_owned(),
        place: front.section.head.place.clone(),
        binds: Vec::new(),
        pool,
        keys,
        peek,
        routes,
        limits,
    };
    let any_peer = ["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    draft.add_listener(&template, &binds, &any_peer);
    tell_of_binds(settings, &binds, notes);
}

fn tell_of_binds(settings: &ProxySettings, binds: &[BindLine], notes: &mut Notes) {
    let has_both = [false, true].iter().all(|takes| {
        binds.iter().any(|bind| bind.takes_header == *takes && !bind.binds.is_empty())
    });
    for (line, bind) in settings.binds.iter().zip(binds).filter(|(_, bind)| !bind.binds.is_empty())
    {
        if bind.takes_header {
            let reason = "every peer is believed, as HAProxy does: list your proxies in `from` of \
                          `accept_proxy`";
            notes.differs(line, reason);
            if has_both {
                notes
                    .differs(line, "it is a listener of its own, whose limits count by themselves");
            }
        }
        let is_for_all = |other: &BindLine| {
            other.binds.is_empty()
                || other.takes_header != bind.takes_header
                || other.keys == bind.keys
        };
        if !bind.keys.is_empty() && !binds.iter().all(is_for_all) {
            notes.differs(line, "its options are those of the whole listener");
        }
    }
}

/// The pool of a section that is named, if it exists.
fn named_pool(draft: &Draft, line: &ConfigLine, notes: &mut Notes) -> Option<String> {
    let name = line.word(1);
    let found = draft.has_pool(name).then(|| name.to_owned());
    if found.is_none() {
        let reason = if name.contains('%') {
            "a pool is named by the file, not by what a client says: write a route for each".into()
        } else {
            format!("there is no backend {name} in this file")
        };
        notes.lost(line, reason);
    }
    found
}

fn default_pool(
    front: &FrontendRead<'_>,
    routes: &mut Vec<RouteDraft>,
    draft: &mut Draft,
    notes: &mut Notes,
) -> Option<String> {
    // A rule without a condition is for all that come to it.
    if let Some(at) = routes.iter().position(|route| route.keys.is_empty()) {
        let pool = routes.get(at).map(|route| route.pool.clone());
        routes.truncate(at);
        return pool;
    }
    let settings = front.settings;
    if let Some(line) = &settings.default_backend
        && let Some(pool) = named_pool(draft, line, notes)
    {
        return Some(pool);
    }
    if !settings.servers.is_empty() && draft.has_pool(front.section.name()) {
        return Some(front.section.name().to_owned());
    }
    if routes.is_empty() {
        let reason = match &settings.stats {
            Some(_) => "it serves the page of statistics; evenkeel's is `http` of [admin]",
            None => "it leads to no server",
        };
        notes.lost(&front.section.head, reason);
        return None;
    }
    Some(draft.refusing_pool(front.section.name()))
}

fn routes(front: &FrontendRead<'_>, draft: &Draft, notes: &mut Notes) -> Vec<RouteDraft> {
    let mut found = Vec::new();
    for line in &front.settings.switches {
        let Some(pool) = named_pool(draft, line, notes) else { continue };
        match keys_of_routes(front.context.acls, line.from(2)) {
            Ok(all) => {
                let routes = all.into_iter();
                found.extend(routes.map(|keys| RouteDraft { keys, pool: pool.clone() }));
            }
            Err(why) => notes.lost(line, why),
        }
    }
    found
}

/// What routes ask for, one for each alternative of a condition.
fn keys_of_routes(acls: &Acls, condition: &[String]) -> Result<Vec<KeyLines>, String> {
    let alternatives = possible(acls, condition)?;
    alternatives.iter().map(|term| keys_of_route(term)).collect()
}

fn keys_of_route(term: &[AclTest]) -> Result<KeyLines, String> {
    let mut keys = KeyLines::default();
    for test in term {
        let (key, value) = match (&test.subject, test.is_negated) {
            (Subject::Unknown(why), _) => return Err(why.clone()),
            (Subject::Sni(names), false) => ("sni", names.clone()),
            (Subject::Alpn(protocols), false)
                if protocols.iter().all(|name| (1..=255).contains(&name.len())) =>
            {
                ("alpn", protocols.clone())
            }
            (Subject::Networks(networks), false) => {
                ("client", networks.iter().map(shown).collect())
            }
            (Subject::Networks(networks), true) => {
                let rest = difference(&everything(), networks);
                let rest = rest.ok_or("it takes too many networks to write it as a route")?;
                ("client", rest.iter().map(shown).collect())
            }
            (Subject::Hello, is_negated) => {
                keys.set("tls", !is_negated);
                continue;
            }
            _ => return Err("a route cannot ask for that".to_owned()),
        };
        if keys.get(key).is_some() {
            return Err("a route asks for each thing once".to_owned());
        }
        keys.set_list(key, &value);
    }
    let asks_name = keys.get("sni").is_some() || keys.get("alpn").is_some();
    if keys.get("tls") == Some("false") && asks_name {
        return Err("there is no name without a TLS hello".to_owned());
    }
    Ok(keys)
}

fn set_times(
    keys: &mut KeyLines,
    front: &FrontendRead<'_>,
    pool: &str,
    routes: &[RouteDraft],
    notes: &mut Notes,
) {
    let own = front.settings.times;
    let is_reached = |name: &str| name == pool || routes.iter().any(|route| route.pool == name);
    let reached = front.times.iter().filter(|(name, _)| is_reached(name));
    // `timeout tunnel` takes the place of both once bytes go both ways.
    let idle: Vec<Option<Duration>> = reached
        .clone()
        .map(|(_, times)| times.tunnel.or_else(|| shorter(own.client, times.server)))
        .collect();
    let shortest = idle.iter().copied().fold(None, shorter);
    let shortest = if idle.is_empty() { own.client } else { shortest };
    match shortest {
        Some(idle) => keys.set("idle_timeout", time(idle)),
        None => notes.differs(
            &front.section.head,
            "without timeouts HAProxy keeps silent sessions for ever; evenkeel ends them after \
             10m: set `idle_timeout`",
        ),
    }
    if idle.iter().any(|other| *other != shortest) {
        let reason = "its backends have different timeouts; a listener has one `idle_timeout`, the \
                      shortest of them";
        notes.differs(&front.section.head, reason);
    }
    let fins = reached.map(|(_, times)| shorter(own.client_fin, times.server_fin));
    // Without times of their own HAProxy waits as long as for any session.
    let half_closed = fins.fold(own.client_fin, shorter).or(shortest);
    if let Some(half_closed) = half_closed {
        keys.set("half_closed_timeout", time(half_closed));
    }
}

fn shorter(left: Option<Duration>, right: Option<Duration>) -> Option<Duration> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

fn set_bounds(keys: &mut KeyLines, settings: &ProxySettings, notes: &mut Notes) {
    if let Some((maxconn, line)) = &settings.maxconn {
        keys.set("max_sessions", (*maxconn).min(100_000_000));
        notes.differs(
            line,
            "HAProxy leaves what is above it in the kernel's queue; evenkeel resets it",
        );
    }
    if let Some(backlog) = settings.backlog {
        keys.set("backlog", backlog);
    }
    if !settings.keepalive.is_empty() {
        keys.set("keepalive", settings.keepalive.inline());
    }
}

fn peek(rules: &RequestRules, routes: &[RouteDraft]) -> KeyLines {
    let mut keys = KeyLines::default();
    let asks =
        |route: &RouteDraft| ["sni", "alpn", "tls"].iter().any(|key| route.keys.get(key).is_some());
    if routes.iter().any(asks) {
        if let Some(delay) = rules.inspect_delay {
            keys.set("timeout", time(delay.min(PEEK_MAX)));
        }
        if !rules.is_only_tls {
            keys.set_text("on_timeout", "default");
        }
    }
    keys
}

fn limits(rules: &RequestRules, settings: &ProxySettings, notes: &mut Notes) -> Vec<KeyLines> {
    let mut limits = rules.limits.clone();
    if let Some((rate, line)) = &settings.session_rate {
        let mut limit = KeyLines::default();
        limit.set_text("listener_rate", &format!("{}/s", (*rate).min(1_000_000)));
        limits.push(limit);
        notes.differs(
            line,
            "HAProxy leaves what is above it in the kernel's queue; evenkeel resets it",
        );
    }
    if limits.len() > 1 {
        for (number, limit) in limits.iter_mut().enumerate() {
            limit.set_text("name", &format!("limit-{}", number + 1));
        }
    }
    limits
}
