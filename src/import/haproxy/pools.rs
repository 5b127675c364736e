//! A backend of HAProxy, or the servers of `listen`, as a pool.

use std::time::Duration;

use crate::import::amounts::time;
use crate::import::draft::{BackendDraft, KeyLines, PoolDraft, free_name};
use crate::import::notes::Notes;

use super::sections::ConfigLine;
use super::server::{ServerOptions, server_address};
use super::settings::ProxySettings;
use super::tables::{ClientMask, StickTable};

/// Time between checks, and how long a stick table remembers, unless they are said.
const INTERVAL: Duration = Duration::from_secs(2);
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
/// Further attempts to connect, unless they are said.
const RETRIES: u8 = 3;
/// Failures in a row that `observe` takes for the end of a server.
const ERROR_LIMIT: u16 = 10;
/// Most clients that may wait; HAProxy has no bound.
const QUEUE_MAX: u16 = 65_535;

/// A server that is a backend.
struct ServerRead<'a> {
    line: &'a ConfigLine,
    options: &'a ServerOptions,
}

/// Makes the pool of a proxy.
pub(super) fn pool(name: &str, settings: &ProxySettings, notes: &mut Notes) -> PoolDraft {
    let mut pool = PoolDraft::named(name);
    let mut servers: Vec<ServerRead<'_>> = Vec::new();
    for (line, options) in &settings.servers {
        if let Some(server) = server(&mut pool, &servers, line, options, notes) {
            servers.push(server);
        }
    }
    if settings.balance.is_empty() {
        pool.keys.set_text("balance", "round-robin");
    }
    settings.balance.iter().for_each(|(key, value)| pool.keys.set(key, value));
    set_sticky(&mut pool, name, settings, notes);
    if let Some(connect) = settings.times.connect {
        pool.keys.set("connect_timeout", time(connect));
    }
    pool.keys.set("retries", settings.retries.unwrap_or(RETRIES));
    settings.pool.iter().for_each(|(key, value)| pool.keys.set(key, value));
    for server in &servers {
        server.options.pool.iter().for_each(|(key, value)| pool.keys.set(key, value));
    }
    if pool.keys.get("transparent").is_some() || pool.backends.iter().any(is_unix) {
        set_aside_source(&mut pool, &servers, notes);
    }
    if let Some(header) = servers.first().and_then(|server| server.options.header) {
        pool.keys.set_text("send_proxy", header);
    }
    set_queue(&mut pool, settings, &servers, notes);
    set_backups(settings, &servers, notes);
    set_health(&mut pool, settings, &servers, notes);
    set_outlier(&mut pool, &servers, notes);
    pool
}

fn is_unix(backend: &BackendDraft) -> bool {
    matches!(backend.endpoint, crate::import::endpoint::Endpoint::Unix(_))
}

/// `source` counts beside neither `transparent` nor a Unix socket, and `transparent` not beside
/// one.
fn set_aside_source(pool: &mut PoolDraft, servers: &[ServerRead<'_>], notes: &mut Notes) {
    let has_unix = pool.backends.iter().any(is_unix);
    let is_aside = |key: &str| key == "source" || key == "transparent" && has_unix;
    let set_aside: Vec<&str> =
        pool.keys.iter().map(|(key, _)| key).filter(|key| is_aside(key)).collect();
    if has_unix && !set_aside.is_empty() {
        for server in servers {
            notes.differs(server.line, "a pool with a Unix socket has no source addresses");
        }
    }
    let mut kept = KeyLines::default();
    pool.keys
        .iter()
        .filter(|(key, _)| !is_aside(key))
        .for_each(|(key, value)| kept.set(key, value));
    pool.keys = kept;
}

/// Adds a server to the pool, or tells why not.
fn server<'a>(
    pool: &mut PoolDraft,
    before: &[ServerRead<'a>],
    line: &'a ConfigLine,
    options: &'a ServerOptions,
    notes: &mut Notes,
) -> Option<ServerRead<'a>> {
    if options.speaks_tls {
        let reason = "`ssl`: evenkeel does not encrypt what it passes on: have clients speak TLS \
                      to the server, or take `ssl` away where the network is trusted";
        notes.lost(line, reason);
        pool.missing.push(line.words.join(" "));
        return None;
    }
    let header = before.first().map(|first| first.options.header);
    if header.is_some_and(|header| header != options.header) {
        let reason = "`send_proxy` is for a whole pool, and this server differs from the first \
                      one: make it a pool of its own";
        notes.lost(line, reason);
        pool.missing.push(line.words.join(" "));
        return None;
    }
    let endpoint = match server_address(line.word(2)) {
        Ok(endpoint) => endpoint,
        Err(why) => {
            notes.lost(line, why);
            pool.missing.push(line.words.join(" "));
            return None;
        }
    };
    let mut keys = KeyLines::default();
    match options.weight {
        Some(weight) if weight != 1 => keys.set("weight", weight),
        _ => {}
    }
    if options.is_backup {
        keys.set("backup", true);
    }
    if let Some(maxconn) = options.maxconn {
        keys.set("max_sessions", maxconn.min(100_000_000));
    }
    if options.is_disabled {
        keys.set("drain", true);
        notes.differs(line, "`disabled` becomes `drain`, which is probed and takes no new session");
    }
    let taken = pool.backends.iter().map(|backend| backend.name.as_str());
    let name = free_name(line.word(1), taken);
    pool.backends.push(BackendDraft { endpoint, name, keys, place: line.place.clone() });
    Some(ServerRead { line, options })
}

fn set_sticky(pool: &mut PoolDraft, name: &str, settings: &ProxySettings, notes: &mut Notes) {
    for line in &settings.sticks {
        let is_client = matches!(line.word(1), "on" | "match" | "store-request")
            && ClientMask::of(line.word(2)).is_some();
        if !is_client || line.words.iter().any(|word| word == "if" || word == "unless") {
            notes.lost(line, "`sticky` remembers clients by their address, or by `hash_key`");
            continue;
        }
        if line.word(3) == "table" && line.word(4) != name {
            notes.differs(line, "the pool has a memory of its own: none is shared between pools");
        }
        let mut sticky = KeyLines::default();
        let table = settings.stick_table.as_ref().map(|line| StickTable::read(name, line).0);
        let expire = table.as_ref().and_then(|table| table.expire).unwrap_or(FOR_EVER);
        let expire = Duration::from_secs(expire.as_secs().max(1));
        sticky.set("for", time(expire));
        if let Some(entries) = table.and_then(|table| table.entries()) {
            sticky.set("size", entries);
        }
        pool.keys.set("sticky", sticky.inline());
        if line.word(2) != "src" {
            notes.differs(line, "`hash_prefix` says how much of an address is one client");
        }
    }
}

fn set_queue(
    pool: &mut PoolDraft,
    settings: &ProxySettings,
    servers: &[ServerRead<'_>],
    notes: &mut Notes,
) {
    let Some(bounded) = servers.iter().find(|server| server.options.maxconn.is_some()) else {
        return;
    };
    // HAProxy waits for `timeout connect` where there is no time for the queue.
    let Some(patience) = settings.times.queue.or(settings.times.connect) else {
        let reason = "without `timeout queue` HAProxy has clients wait for ever; here they are \
                      refused while all servers are full: set `queue` of the pool";
        notes.differs(bounded.line, reason);
        return;
    };
    pool.keys.set("queue", format!("{{ max = {QUEUE_MAX}, timeout = {} }}", time(patience)));
}

fn set_backups(settings: &ProxySettings, servers: &[ServerRead<'_>], notes: &mut Notes) {
    let mut backups = servers.iter().filter(|server| server.options.is_backup);
    if let Some(second) = backups.nth(1)
        && !settings.is_any_backup
    {
        let reason = "HAProxy uses the first backup that is up; here all backups share the \
                      clients: give this one `drain = true`, or see `balance = \"first\"`";
        notes.differs(second.line, reason);
    }
}

fn set_health(
    pool: &mut PoolDraft,
    settings: &ProxySettings,
    servers: &[ServerRead<'_>],
    notes: &mut Notes,
) {
    let Some(first) = servers.iter().find(|server| server.options.is_checked) else { return };
    let checks = |server: &ServerRead<'_>| {
        let options = server.options;
        let times = [options.interval, options.fast_interval, options.down_interval];
        (options.is_checked, times, options.check.clone(), options.is_check_tls)
    };
    for server in servers.iter().filter(|server| checks(server) != checks(first)) {
        let line = first.line.place.line;
        let reason =
            format!("a pool has one way to probe for all its backends: that of line {line}");
        notes.differs(server.line, reason);
    }
    let options = first.options;
    let mut health = settings.check.health(options.is_check_tls, options.check_name.as_deref());
    let interval = options.interval.unwrap_or(INTERVAL);
    health.set("interval", time(interval));
    health.set("fast_interval", time(options.fast_interval.unwrap_or(interval).min(interval)));
    health.set("timeout", time(settings.times.check.unwrap_or(interval)));
    health.set("down_backoff", time(options.down_interval.unwrap_or(interval)));
    let has_unix = pool.backends.iter().any(is_unix);
    for (key, value) in options.check.iter() {
        if key == "port" && has_unix {
            notes.lost(first.line, "`port`: a Unix socket has none");
        } else {
            health.set(key, value);
        }
    }
    let is_hosts = pool
        .backends
        .iter()
        .any(|backend| matches!(backend.endpoint, crate::import::endpoint::Endpoint::Host(_)));
    if is_hosts && health.get("port").is_none() {
        notes.differs(
            first.line,
            "HAProxy asks no port here; set `port` of the health table if \
                                   clients come to several",
        );
    }
    if settings.check.has_steps() {
        notes.differs(
            first.line,
            "each `expect` of the probe is looked for at the start of an answer or of a line of it",
        );
    }
    // HAProxy uses no server that is down, even if all are.
    pool.keys.set_text("panic_threshold", "never");
    pool.health = Some(health);
}

fn set_outlier(pool: &mut PoolDraft, servers: &[ServerRead<'_>], notes: &mut Notes) {
    let Some(first) = servers.iter().find(|server| server.options.observes) else { return };
    let mut outlier = KeyLines::default();
    outlier.set("consecutive_failures", first.options.error_limit.unwrap_or(ERROR_LIMIT));
    pool.outlier = Some(outlier);
    notes.differs(
        first.line,
        "`observe layer4` becomes `outlier`: a backend that fails sessions is left out for a time",
    );
}
