//! A [`Config`] as TOML: the effective configuration, defaults filled in.
//!
//! What is written here parses again to an equal `Config`. Optional keys that are unset are left
//! out; the default control socket is shown as a comment, because naming it makes it required.

use std::fmt::{self, Write};

use ipnet::IpNet;

use crate::policy::terms::Word;

use super::file::{bare_or_quoted, quoted};
use super::payload::escaped;
use super::units::{show_duration, show_rate, show_size, show_thousandths};
use super::unix::PREFIX;
use super::*;

impl Config {
    /// The configuration as a file that says everything.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a `String` cannot fail.
        let _ = write_config(self, &mut out);
        out
    }
}

fn write_config(config: &Config, out: &mut String) -> fmt::Result {
    write_global(&config.global, out)?;
    write_admin(&config.admin, out)?;
    for listener in &config.listeners {
        let pool = config.pools.get(listener.pool).map_or("", |pool| pool.name.as_str());
        write_listener(listener, pool, out)?;
        write_routes(listener, &config.pools, out)?;
    }
    for pool in &config.pools {
        write_pool(pool, out)?;
    }
    Ok(())
}

fn write_global(global: &Global, out: &mut String) -> fmt::Result {
    writeln!(out, "[global]")?;
    writeln!(out, "workers = {}", auto(global.workers))?;
    writeln!(out, "max_sessions = {}", auto(global.max_sessions))?;
    writeln!(out, "pin_workers = {}", global.pin_workers)?;
    writeln!(out, "drain_timeout = \"{}\"", show_duration(global.drain_timeout))?;
    writeln!(out, "shutdown_delay = \"{}\"", show_duration(global.shutdown_delay))?;
    writeln!(out, "splice = \"{}\"", global.splice.word())?;
    writeln!(out, "spin = \"{}\"", show_duration(global.spin))?;
    writeln!(out, "hash_seed = {}", global.hash_seed)?;
    let Log { level, format, sessions } = &global.log;
    let (level, format) = (level.word(), format.word());
    writeln!(out, "log = {{ level = \"{level}\", format = \"{format}\", sessions = {sessions} }}")
}

fn write_admin(admin: &Admin, out: &mut String) -> fmt::Result {
    let socket = quoted(&admin.socket.to_string_lossy());
    writeln!(out, "\n[admin]")?;
    if admin.socket_required {
        writeln!(out, "socket = {socket}")?;
    } else {
        writeln!(out, "# socket = {socket}")?;
    }
    match admin.http {
        Some(http) => writeln!(out, "http = \"{http}\""),
        None => Ok(()),
    }
}

fn write_listener(listener: &ListenerConfig, pool: &str, out: &mut String) -> fmt::Result {
    let name = bare_or_quoted(&listener.name);
    writeln!(out, "\n[listener.{name}]")?;
    writeln!(out, "bind = {}", strings(&listener.bind))?;
    writeln!(out, "pool = {}", quoted(pool))?;
    writeln!(out, "protocol = \"{}\"", listener.protocol.word())?;
    writeln!(out, "idle_timeout = \"{}\"", show_duration(listener.idle_timeout))?;
    writeln!(out, "half_closed_timeout = \"{}\"", show_duration(listener.half_closed_timeout))?;
    if let Some(most) = listener.max_lifetime {
        writeln!(out, "max_lifetime = \"{}\"", show_duration(most))?;
    }
    if let Some(most) = listener.max_sessions {
        writeln!(out, "max_sessions = {most}")?;
    }
    writeln!(out, "backlog = {}", listener.backlog)?;
    writeln!(out, "allow = {}", strings::<IpNet>(&listener.allow))?;
    writeln!(out, "deny = {}", strings::<IpNet>(&listener.deny))?;
    write_accept_proxy(listener.accept_proxy.as_ref(), out)?;
    let Keepalive { idle, interval, count } = listener.keepalive;
    let (idle, interval) = (show_duration(idle), show_duration(interval));
    writeln!(
        out,
        "keepalive = {{ idle = \"{idle}\", interval = \"{interval}\", count = {count} }}"
    )?;
    if let Some(timeout) = listener.user_timeout {
        writeln!(out, "user_timeout = \"{}\"", show_duration(timeout))?;
    }
    writeln!(out, "fast_open = {}", listener.fast_open)?;
    writeln!(out, "defer_accept = {}", listener.defer_accept)?;
    writeln!(out, "mptcp = {}", listener.mptcp)?;
    write_bandwidth(listener.bandwidth, out)?;
    match &listener.limit {
        Some(limit) => write_limit(limit, &name, out),
        None => Ok(()),
    }
}

fn write_bandwidth(bandwidth: Bandwidth, out: &mut String) -> fmt::Result {
    let sides = [("up", bandwidth.up), ("down", bandwidth.down)];
    let given: Vec<String> = sides
        .into_iter()
        .filter_map(|(name, rate)| Some(format!("{name} = \"{}/s\"", show_size(rate?.get()))))
        .collect();
    match given.is_empty() {
        true => Ok(()),
        false => writeln!(out, "bandwidth = {{ {} }}", given.join(", ")),
    }
}

fn write_routes(listener: &ListenerConfig, pools: &[PoolConfig], out: &mut String) -> fmt::Result {
    let name = bare_or_quoted(&listener.name);
    let Peek { timeout, max_bytes, is_default_else } = listener.peek;
    writeln!(out, "\n[listener.{name}.peek]")?;
    writeln!(out, "timeout = \"{}\"", show_duration(timeout))?;
    writeln!(out, "max_bytes = \"{}\"", show_size(max_bytes))?;
    writeln!(out, "on_timeout = \"{}\"", if is_default_else { "default" } else { "close" })?;
    for route in &listener.routes {
        let pool = pools.get(route.pool).map_or("", |pool| pool.name.as_str());
        writeln!(out, "\n[[listener.{name}.route]]")?;
        for (key, words) in [("sni", &route.sni), ("alpn", &route.alpn)] {
            if !words.is_empty() {
                let list: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                writeln!(out, "{key} = [{}]", list.join(", "))?;
            }
        }
        if !route.client.is_empty() {
            writeln!(out, "client = {}", strings::<IpNet>(&route.client))?;
        }
        writeln!(out, "pool = {}", quoted(pool))?;
    }
    Ok(())
}

fn write_accept_proxy(rule: Option<&AcceptProxyConfig>, out: &mut String) -> fmt::Result {
    let Some(AcceptProxyConfig { from, from_unix, is_direct_else, timeout }) = rule else {
        return Ok(());
    };
    let others = if *is_direct_else { "direct" } else { "refuse" };
    let mut from: Vec<String> = from.iter().map(IpNet::to_string).collect();
    from.extend(from_unix.then(|| PREFIX.to_owned()));
    let (from, timeout) = (strings(&from), show_duration(*timeout));
    writeln!(
        out,
        "accept_proxy = {{ from = {from}, others = \"{others}\", timeout = \"{timeout}\" }}"
    )
}

fn write_limit(limit: &LimitConfig, listener: &str, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[listener.{listener}.limit]")?;
    writeln!(out, "algorithm = \"{}\"", limit.algorithm.word())?;
    if let Some(rate) = limit.rate {
        writeln!(out, "rate = \"{}\"", show_rate(rate))?;
        if limit.algorithm == LimitAlgorithm::TokenBucket {
            writeln!(out, "burst = {}", limit.burst)?;
        }
    }
    if let Some(most) = limit.max_concurrent {
        writeln!(out, "max_concurrent = {most}")?;
    }
    writeln!(out, "key = {}", prefix(limit.key))?;
    writeln!(out, "action = \"{}\"", limit.action.word())?;
    writeln!(out, "mode = \"{}\"", if limit.observe { "observe" } else { "enforce" })?;
    writeln!(out, "exempt = {}", strings::<IpNet>(&limit.exempt))?;
    writeln!(out, "table_size = {}", limit.table_size)?;
    match limit.listener_rate {
        Some(rate) => writeln!(out, "listener_rate = \"{}\"", show_rate(rate)),
        None => Ok(()),
    }
}

fn write_pool(pool: &PoolConfig, out: &mut String) -> fmt::Result {
    let name = bare_or_quoted(&pool.name);
    writeln!(out, "\n[pool.{name}]")?;
    writeln!(out, "balance = \"{}\"", pool.balance.word())?;
    writeln!(out, "hash_key = {}", quoted(&pool.hash_key.to_string()))?;
    writeln!(out, "hash_prefix = {}", prefix(pool.hash_prefix))?;
    writeln!(out, "table_size = {}", pool.table_size)?;
    if let Some(factor) = pool.load_factor {
        writeln!(out, "load_factor = {}", show_thousandths(factor))?;
    }
    if let Some(StickyConfig { time, size }) = pool.sticky {
        writeln!(out, "sticky = {{ for = \"{}\", size = {size} }}", show_duration(time))?;
    }
    writeln!(out, "backends = [")?;
    for backend in &pool.backends {
        write_backend(backend, out)?;
    }
    writeln!(out, "]")?;
    writeln!(out, "connect_timeout = \"{}\"", show_duration(pool.connect_timeout))?;
    writeln!(out, "retries = {}", pool.retries)?;
    if let Some(version) = pool.send_proxy {
        writeln!(out, "send_proxy = \"{}\"", version.word())?;
    }
    if !pool.source.is_empty() {
        writeln!(out, "source = {}", strings(&pool.source))?;
    }
    writeln!(out, "transparent = {}", pool.transparent)?;
    if let Some(Queue { max, timeout }) = pool.queue {
        writeln!(out, "queue = {{ max = {max}, timeout = \"{}\" }}", show_duration(timeout))?;
    }
    if let Some(time) = pool.slow_start {
        writeln!(out, "slow_start = \"{}\"", show_duration(time))?;
    }
    writeln!(out, "panic_threshold = \"{}%\"", pool.panic_threshold)?;
    writeln!(out, "on_down = \"{}\"", pool.on_down)?;
    if let Some(health) = &pool.health {
        write_health(health, &name, out)?;
    }
    match &pool.outlier {
        Some(outlier) => write_outlier(outlier, &name, out),
        None => Ok(()),
    }
}

fn write_outlier(outlier: &Outlier, pool: &str, out: &mut String) -> fmt::Result {
    let Outlier { consecutive_failures, eject, max_ejected } = outlier;
    writeln!(out, "\n[pool.{pool}.outlier]")?;
    writeln!(out, "consecutive_failures = {consecutive_failures}")?;
    writeln!(out, "eject = \"{}\"", show_duration(*eject))?;
    writeln!(out, "max_ejected = \"{max_ejected}%\"")
}

fn write_backend(backend: &BackendConfig, out: &mut String) -> fmt::Result {
    let BackendConfig { name, address, weight, backup, max_sessions, drain } = backend;
    let (address, name) = (quoted(&address.to_string()), quoted(name));
    write!(out, "  {{ address = {address}, name = {name}, weight = {weight}")?;
    write!(out, ", backup = {backup}")?;
    if let Some(most) = max_sessions {
        write!(out, ", max_sessions = {most}")?;
    }
    writeln!(out, ", drain = {drain} }},")
}

fn write_health(health: &Health, pool: &str, out: &mut String) -> fmt::Result {
    writeln!(out, "\n[pool.{pool}.health]")?;
    match &health.probe {
        Probe::Tcp => writeln!(out, "probe = \"tcp\"")?,
        Probe::Http { method, path, host, status } => {
            writeln!(out, "probe = \"http\"")?;
            writeln!(out, "path = {}", quoted(path))?;
            if let Some(host) = host {
                writeln!(out, "host = {}", quoted(host))?;
            }
            writeln!(out, "method = {}", quoted(method))?;
            writeln!(out, "status = {}", statuses(status))?;
        }
        Probe::Tls { host, trust } => {
            writeln!(out, "probe = \"tls\"")?;
            if let Some(host) = host {
                writeln!(out, "host = {}", quoted(host))?;
            }
            writeln!(out, "verify = {}", *trust != Trust::Anybody)?;
            if let Trust::File(ca) = trust {
                writeln!(out, "ca = {}", quoted(&ca.to_string_lossy()))?;
            }
        }
        Probe::SendExpect { send, expect } => {
            writeln!(out, "probe = \"send-expect\"")?;
            writeln!(out, "send = '{}'", escaped(send))?;
            writeln!(out, "expect = '{}'", escaped(expect))?;
        }
    }
    if let Some(port) = health.port {
        writeln!(out, "port = {port}")?;
    }
    writeln!(out, "interval = \"{}\"", show_duration(health.interval))?;
    writeln!(out, "fast_interval = \"{}\"", show_duration(health.fast_interval))?;
    writeln!(out, "timeout = \"{}\"", show_duration(health.timeout))?;
    writeln!(out, "rise = {}", health.rise)?;
    writeln!(out, "fall = {}", health.fall)?;
    writeln!(out, "down_backoff = \"{}\"", show_duration(health.down_backoff))?;
    writeln!(out, "initial = \"{}\"", if health.initial_up { "up" } else { "down" })
}

/// A number, or "auto".
fn auto<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or("\"auto\"".to_owned(), |value| value.to_string())
}

/// An array of strings.
fn strings<T: fmt::Display>(values: &[T]) -> String {
    let list: Vec<String> = values.iter().map(|value| quoted(&value.to_string())).collect();
    format!("[{}]", list.join(", "))
}

/// Status codes and ranges.
fn statuses(ranges: &[(u16, u16)]) -> String {
    let list: Vec<String> = ranges
        .iter()
        .map(|(low, high)| if low == high { format!("{low}") } else { format!("{low}-{high}") })
        .collect();
    strings(&list)
}

/// Prefix lengths.
fn prefix(prefix: Prefix) -> String {
    format!("{{ v4 = {}, v6 = {} }}", prefix.v4, prefix.v6)
}

impl fmt::Display for OnDownConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => out.write_str("keep"),
            Self::Reset => out.write_str("reset"),
            Self::Pace(rate) => write!(out, "pace {}", show_rate(*rate)),
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ClientIp => "client-ip",
            Self::ClientIpPort => "client-ip-port",
            Self::Sni => "sni",
            Self::HttpHeader(name) => return write!(out, "http-header {name}"),
            Self::HttpCookie(name) => return write!(out, "http-cookie {name}"),
        })
    }
}
