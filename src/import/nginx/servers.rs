//! `server` blocks of nginx's stream, as listeners.

use crate::import::access::AccessRules;
use crate::import::draft::{
    BindLine, Draft, KeyLines, ListenerDraft, PoolDraft, RouteDraft, free_name,
};
use crate::import::endpoint::Endpoint;
use crate::import::networks::{everything, network};
use crate::import::notes::Notes;

use super::blocks::Directive;
use super::elsewhere::reason;
use super::listen::listen;
use super::maps::RoutingMap;
use super::settings::StreamSettings;
use super::upstream::server_address;

/// What servers refer to.
#[derive(Debug, Default)]
pub(super) struct StreamNames {
    /// Pools as their `upstream` says, without what a server adds.
    pub(super) upstreams: Vec<PoolDraft>,
    pub(super) maps: Vec<RoutingMap>,
    /// Zones of `limit_conn_zone`: name, and what they count.
    pub(super) zones: Vec<(String, String)>,
    /// Pools that are in the draft: what they were asked for, and with which keys.
    made: Vec<(String, KeyLines, String)>,
}

/// Adds the listener of a `server` block.
pub(super) fn add_server(
    server: &Directive,
    around: &StreamSettings,
    names: &mut StreamNames,
    draft: &mut Draft,
    notes: &mut Notes,
) {
    let mut settings = around.within(server.inside());
    let mut binds: Vec<BindLine> = Vec::new();
    let mut pass = None;
    for line in server.inside() {
        match line.name() {
            "listen" => binds.push(listen(line, notes)),
            "proxy_pass" => pass = Some(line),
            _ => settings.apply(line, notes),
        }
    }
    if binds.iter().all(|bind| bind.binds.is_empty()) {
        notes.lost(server, "it has no address that was carried over");
        return;
    }
    let Some(pass) = pass else {
        notes.lost(server, "it leads to no server");
        return;
    };
    if settings.encrypts {
        let reason = "`proxy_ssl`: evenkeel does not encrypt what it passes on: have clients speak \
                      TLS to the servers, or take it away where the network is trusted";
        notes.lost(server, reason);
        return;
    }
    let listener = listener_name(pass.word(1), &binds);
    let target = PassTarget { listener: &listener, pass, settings: &settings };
    let Some((pool, routes)) = target.pools(names, draft, notes) else {
        notes.lost(server, "it leads to no server that was carried over");
        return;
    };
    let mut keys = settings.listener.clone();
    settings.set_bandwidth(&mut keys);
    set_access(&settings.access, &mut keys, notes);
    let limits = limits(&settings, names, notes);
    let asks_hello =
        |route: &RouteDraft| ["sni", "tls"].iter().any(|key| route.keys.get(key).is_some());
    let hashes_name =
        |pool: &PoolDraft| pool.keys.get("hash_key").is_some_and(|key| key.contains("sni"));
    let is_reached = |name: &str| name == pool || routes.iter().any(|route| route.pool == name);
    let mut reached = draft.pools.iter().filter(|pool| is_reached(&pool.name));
    let needs_bytes = routes.iter().any(asks_hello) || reached.any(hashes_name);
    let peek = if needs_bytes { settings.peek.clone() } else { KeyLines::default() };
    let place = server.place.clone();
    let binds_empty = Vec::new();
    let template = ListenerDraft {
        name: listener,
        place,
        binds: binds_empty,
        pool,
        keys,
        peek,
        routes,
        limits,
    };
    let from = peers(server, &settings, &binds, notes);
    draft.add_listener(&template, &binds, &from);
}

/// Peers that have to begin with a PROXY header.
fn peers(
    server: &Directive,
    settings: &StreamSettings,
    binds: &[BindLine],
    notes: &mut Notes,
) -> Vec<String> {
    if !binds.iter().any(|bind| bind.takes_header) {
        return Vec::new();
    }
    let lines = server.inside().iter().filter(|line| line.name() == "listen");
    for line in lines.filter(|line| line.words.iter().any(|word| word == "proxy_protocol")) {
        let reason = if settings.proxies.is_empty() {
            "the client that a header names counts for lists and limits, and every peer is \
             believed: list your proxies in `from` of `accept_proxy`"
        } else {
            "peers outside of `set_real_ip_from` are refused, not served without being believed"
        };
        notes.differs(line, reason);
    }
    if settings.proxies.is_empty() {
        return vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
    }
    settings.proxies.clone()
}

/// What a listener is called: as its upstream, or by its first port.
fn listener_name(target: &str, binds: &[BindLine]) -> String {
    let is_name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
            && !text.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
    };
    let bare = target.trim_start_matches('$');
    if is_name(bare) {
        return bare.to_owned();
    }
    match binds.iter().flat_map(|bind| &bind.binds).map(|bind| &bind.endpoint).next() {
        Some(Endpoint::Ports { first, .. }) => format!("port-{first}"),
        Some(Endpoint::Unix(path)) => path.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => "server".to_owned(),
    }
}

/// Where a server passes to.
struct PassTarget<'a> {
    listener: &'a str,
    pass: &'a Directive,
    settings: &'a StreamSettings,
}

impl PassTarget<'_> {
    /// The listener's pool and its routes.
    fn pools(
        &self,
        names: &mut StreamNames,
        draft: &mut Draft,
        notes: &mut Notes,
    ) -> Option<(String, Vec<RouteDraft>)> {
        let text = self.pass.word(1);
        if !text.starts_with('$') {
            return self.pool(text, names, draft, notes).map(|pool| (pool, Vec::new()));
        }
        let Some(map) = names.maps.iter().find(|map| map.variable == text).cloned() else {
            let reason = format!("`{text}` is not a `map` or `geo` that was carried over");
            notes.lost(self.pass, reason);
            return None;
        };
        let mut routes = Vec::new();
        for (keys, value) in map.cases {
            if let Some(pool) = self.pool(&value, names, draft, notes) {
                routes.push(RouteDraft { keys, pool });
            }
        }
        let default = map.default.filter(|value| !value.is_empty());
        let pool = default.and_then(|value| self.pool(&value, names, draft, notes));
        if pool.is_none() && routes.is_empty() {
            return None;
        }
        let pool = pool.unwrap_or_else(|| draft.refusing_pool(self.listener));
        Some((pool, routes))
    }

    /// The pool for an upstream or an address, with what this server says of connections to it.
    fn pool(
        &self,
        target: &str,
        names: &mut StreamNames,
        draft: &mut Draft,
        notes: &mut Notes,
    ) -> Option<String> {
        let line = self.pass;
        let mut pool = match names.upstreams.iter().find(|pool| pool.name == target) {
            Some(pool) => pool.clone(),
            None => match server_address(target) {
                Ok(endpoint) => single(target, endpoint, line),
                Err(why) => {
                    notes.lost(line, why);
                    return None;
                }
            },
        };
        let has_unix =
            pool.backends.iter().any(|backend| matches!(backend.endpoint, Endpoint::Unix(_)));
        let mut asked = KeyLines::default();
        for (key, value) in self.settings.pool.iter() {
            if has_unix && matches!(key, "source" | "transparent") {
                notes.differs(line, "a pool with a Unix socket has no source addresses");
            } else {
                asked.set(key, value);
            }
        }
        asked.set("retries", self.settings.retries(pool.backends.len()));
        let is_it = |made: &&(String, KeyLines, String)| made.0 == target && made.1 == asked;
        if let Some((_, _, name)) = names.made.iter().find(is_it) {
            return Some(name.clone());
        }
        let taken = draft.pools.iter().map(|pool| pool.name.as_str());
        let bare = target.trim_start_matches("unix:/").trim_end_matches(":$server_port");
        pool.name = free_name(bare, taken);
        asked.iter().for_each(|(key, value)| pool.keys.set(key, value));
        names.made.push((target.to_owned(), asked, pool.name.clone()));
        let name = pool.name.clone();
        draft.pools.push(pool);
        Some(name)
    }
}

/// A pool of one address, which a server passes to without an upstream.
fn single(target: &str, endpoint: Endpoint, line: &Directive) -> PoolDraft {
    use crate::import::draft::BackendDraft;
    let mut pool = PoolDraft::named(target);
    let name = endpoint.to_string();
    let (keys, place) = (KeyLines::default(), line.place.clone());
    pool.backends.push(BackendDraft { endpoint, name, keys, place });
    pool
}

fn set_access(lines: &[Directive], keys: &mut KeyLines, notes: &mut Notes) {
    let mut rules = AccessRules::default();
    for line in lines {
        let is_allow = line.name() == "allow";
        if rules.is_decided() {
            notes.lost(line, "no client comes to this rule: an earlier one is for all");
            continue;
        }
        let networks = match (line.word(1), network(line.word(1))) {
            ("all", _) if is_allow => {
                rules.accept_all();
                continue;
            }
            ("all", _) => {
                rules.reject_all();
                continue;
            }
            (_, Some(net)) if net.prefix_len() == 0 => {
                everything().into_iter().filter(|all| *all == net).collect::<Vec<_>>()
            }
            (_, Some(net)) => vec![net],
            ("unix:", None) => {
                notes.lost(line, "a peer on a Unix socket is in no network: guard its directory");
                continue;
            }
            _ => {
                notes.lost(line, "it is no network");
                continue;
            }
        };
        if is_allow {
            rules.accept(&networks);
        } else if rules.reject(&networks).is_err() {
            notes.lost(line, "it takes too many networks to write it as `allow` and `deny`");
        }
    }
    rules.set(keys);
}

/// Limits of sessions at once.
fn limits(settings: &StreamSettings, names: &StreamNames, notes: &mut Notes) -> Vec<KeyLines> {
    let mut limits = Vec::new();
    for line in &settings.limits {
        let zone = names.zones.iter().find(|(name, _)| name == line.word(1));
        let Some((_, key)) = zone else {
            notes.lost(line, format!("there is no limit_conn_zone {}", line.word(1)));
            continue;
        };
        let Some(most) = line.word(2).parse::<u32>().ok().filter(|most| *most > 0) else {
            notes.lost(line, "it is no number of connections");
            continue;
        };
        let mut limit = KeyLines::default();
        match key.as_str() {
            "$binary_remote_addr" | "$remote_addr" => {
                limit.set("max_concurrent", most);
                limit.set("key", "{ v4 = 32, v6 = 128 }");
            }
            other => {
                let reason = format!("a limit counts clients by address, not by `{other}`");
                notes.lost(line, reason);
                continue;
            }
        }
        if settings.only_observes {
            limit.set_text("mode", "observe");
        }
        notes.differs(
            line,
            "it counts the sessions of this listener, not those of a zone of several",
        );
        limits.push(limit);
    }
    if limits.len() > 1 {
        for (number, limit) in limits.iter_mut().enumerate() {
            limit.set_text("name", &format!("limit-{}", number + 1));
        }
    }
    limits
}

/// Reads `limit_conn_zone KEY zone=NAME:SIZE`.
pub(super) fn zone(line: &Directive, notes: &mut Notes) -> Option<(String, String)> {
    let zone = line.word(2).strip_prefix("zone=").and_then(|zone| zone.split(':').next());
    match zone {
        Some(name) if !name.is_empty() => Some((name.to_owned(), line.word(1).to_owned())),
        _ => {
            notes.lost(line, reason(line.name()));
            None
        }
    }
}
