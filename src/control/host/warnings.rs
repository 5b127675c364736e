//! Where a configuration asks for more than this host grants.
//!
//! A limit that is silently cut is found out at the worst moment, so `check` and `run` both warn of
//! it. Refused is only a file of certificates that cannot be read: probes would fail for a reason
//! that is ours.

use std::net::{IpAddr, SocketAddr};

use crate::config::{
    Address, AddressRange, Config, KernelRefusal, KeyPath, LimitConfig, ListenerConfig, Parsed,
    access_obstacle, gate_obstacle,
};
use crate::sys::{process, source};

use crate::control::host::gates::{NO_CAPABILITY, REMEDY, limit_key};
use crate::control::host::limits::Host;
use crate::control::host::listeners::{TakenAway, taken_away, to_listen_before_it_is_here};
use crate::control::host::sizing::{self, Sizes};
use crate::control::host::trust::TlsProbes;
use crate::control::words::count;

/// A process that holds fewer is hardly meant.
const FEW_SESSIONS: u64 = 100;

/// Adds warnings about this host to a configuration that was parsed on it. Returns what is worth
/// knowing and no warning, in a line each.
pub fn check(parsed: &mut Parsed) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(config) = parsed.config.clone() {
        // Only to know that it can be done.
        let _made = tls_probes(parsed, &config, &TlsProbes::default());
        let sizes = Sizes::of_this_process(sizing::workers(&config));
        warn(parsed, &config, &sizes);
        if !process::may_take_any_port() {
            warn_of_ports(parsed, &config, process::unprivileged_port_start());
        }
        warn_of_absent_addresses(parsed, &config, source::is_here);
        let has_capability = process::may_load_programs();
        warn_of_gates(parsed, &config, has_capability);
        notes = gate_notes(&config, has_capability);
    }
    notes
}

/// Listeners and limits that require what this process may not do: the start would fail.
fn warn_of_gates(parsed: &mut Parsed, config: &Config, has_capability: bool) {
    for listener in config.listeners.iter().filter(|_| !has_capability) {
        if listener.kernel_refusal == KernelRefusal::Require {
            let key = KeyPath::listener(&listener.name).key("kernel_refusal");
            let name = &listener.name;
            let message = format!(
                "the kernel cannot refuse clients of the listener `{name}`: {NO_CAPABILITY}, so \
                 the start fails"
            );
            parsed.warn(&key, message, REMEDY);
        }
        for (place, limit) in listener.limits.iter().enumerate() {
            if limit.kernel_refusal == KernelRefusal::Require {
                let key = limit_key(listener, place).key("kernel_refusal");
                let name = &limit.name;
                let message = format!(
                    "the kernel cannot refuse for the limit `{name}`: {NO_CAPABILITY}, so the \
                     start fails"
                );
                parsed.warn(&key, message, REMEDY);
            }
        }
    }
}

/// Of each listener with lists, and of each limit that refuses clients for their rate: who does,
/// the kernel or workers.
fn gate_notes(config: &Config, has_capability: bool) -> Vec<String> {
    let lacking = (!has_capability).then(|| NO_CAPABILITY.to_owned());
    let limits = config
        .listeners
        .iter()
        .flat_map(|listener| listener.limits.iter().map(move |limit| (listener, limit)));
    let is_asked = |limit: &LimitConfig| {
        limit.rate.is_some() && !limit.observe && limit.kernel_refusal != KernelRefusal::Off
    };
    let asked = limits.filter(|(_, limit)| is_asked(limit));
    let of_limits = asked.map(|(listener, limit)| {
        let who = match gate_obstacle(listener, limit).or(lacking.clone()) {
            None => "the kernel refuses clients over their rate".to_owned(),
            Some(why) => format!("workers refuse clients over their rate: {why}"),
        };
        format!("limit {} of listener {}: {who}", limit.name, listener.name)
    });
    let has_lists = |listener: &&ListenerConfig| {
        let lists = [&listener.allow, &listener.deny];
        listener.kernel_refusal != KernelRefusal::Off && lists.iter().any(|list| !list.is_empty())
    };
    let listed = config.listeners.iter().filter(has_lists);
    let of_lists = listed.map(|listener| {
        let who = match access_obstacle(listener).or(lacking.clone()) {
            None => "the kernel refuses clients that are not admitted".to_owned(),
            Some(why) => format!("workers refuse clients that are not admitted: {why}"),
        };
        format!("lists of listener {}: {who}", listener.name)
    });
    of_lists.chain(of_limits).collect()
}

/// What TLS probes need that is not in the file itself; `None`, and errors at their places, when it
/// cannot be had. `previous` are those in force.
pub(crate) fn tls_probes(
    parsed: &mut Parsed,
    config: &Config,
    previous: &TlsProbes,
) -> Option<TlsProbes> {
    let failures = match TlsProbes::new(config, previous) {
        Ok(probes) => return Some(probes),
        Err(failures) => failures,
    };
    for failure in failures {
        parsed.refuse(&failure.key, failure.message, failure.hint);
    }
    None
}

/// Not at start, which fails on its own account if it must, and where systemd may have opened them.
fn warn_of_ports(parsed: &mut Parsed, config: &Config, first_free: u16) {
    for (key, address) in listening_addresses(config, |_| true) {
        if (1..first_free).contains(&address.port()) {
            parsed.warn(
                &key,
                format!("this user may not listen on {address}: ports below {first_free} are kept"),
                "run it as root or with CAP_NET_BIND_SERVICE, as the systemd unit does",
            );
        }
    }
}

/// Addresses to listen on that this host does not have: the start would fail until it has them.
fn warn_of_absent_addresses(
    parsed: &mut Parsed,
    config: &Config,
    is_here: impl Fn(IpAddr) -> bool,
) {
    let firm = |listener: &ListenerConfig| !listener.freebind;
    for (key, address) in listening_addresses(config, firm) {
        if !is_here(address.ip()) {
            parsed.warn(
                &key,
                format!(
                    "this host has no address {} now: the start fails without it",
                    address.ip()
                ),
                to_listen_before_it_is_here(address.ip()),
            );
        }
    }
}

/// The IP addresses that these listeners accept on, of a range the first, and the admin page.
fn listening_addresses(
    config: &Config,
    which: impl Fn(&ListenerConfig) -> bool,
) -> Vec<(KeyPath, SocketAddr)> {
    let mut addresses = Vec::new();
    for listener in config.listeners.iter().filter(|listener| which(listener)) {
        for (position, range) in listener.bind.iter().enumerate() {
            if let Address::Ip(address) = range.first() {
                let key = KeyPath::listener(&listener.name).key("bind").item(position);
                addresses.push((key, *address));
            }
        }
    }
    let admin_key = KeyPath::table("admin").key("http");
    addresses.extend(config.admin.http.map(|address| (admin_key, address)));
    addresses
}

/// Adds warnings about a host whose sizes are known.
pub(crate) fn warn(parsed: &mut Parsed, config: &Config, sizes: &Sizes) {
    warn_of_sessions(parsed, config, sizes);
    warn_of_ranges(parsed, config, sizes);
    warn_of_backlog(parsed, config, process::sysctl_number("net/core/somaxconn"));
    warn_of_switches(parsed, config, process::sysctl_number);
    let is_asked = config.pools.iter().any(|pool| pool.transparent);
    warn_of_sources(parsed, config, source::is_here, is_asked && source::may_be_anybody());
    warn_of_loops(parsed, config, |own| source::is_here(own) && !may_bind_what_is_elsewhere(own));
    if config.global.max_sessions.is_some() {
        for ceiling in Host::this().ceilings(config, sizes.sessions(config)) {
            parsed.warn(&ceiling.key, ceiling.message, ceiling.hint);
        }
    }
}

/// Whether programs of this host may bind addresses that are another's, as keepalived's do.
fn may_bind_what_is_elsewhere(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    process::sysctl_number(&format!("net/{family}/ip_nonlocal_bind")) == Some(1)
}

/// Backends at an address of this host where a listener on every address accepts.
fn warn_of_loops(parsed: &mut Parsed, config: &Config, is_here: impl Fn(IpAddr) -> bool) {
    let wildcards: Vec<(&str, &AddressRange)> = config
        .listeners
        .iter()
        .flat_map(|listener| listener.bind.iter().map(|bind| (listener.name.as_str(), bind)))
        .filter_map(|(name, bind)| match bind.first() {
            Address::Ip(first) if first.ip().is_unspecified() => Some((name, bind)),
            _ => None,
        })
        .collect();
    for (index, pool) in config.pools.iter().enumerate() {
        let used: Vec<&AddressRange> =
            config.listeners_of(index).flat_map(|listener| &listener.bind).collect();
        for (position, backend) in pool.backends.iter().enumerate() {
            let Some(ip) = backend.address.host_ip() else { continue };
            let own = AddressRange::from(backend.address.clone());
            let meets = |bind: &AddressRange| match backend.address.is_without_port() {
                true => used.iter().any(|used| used.first_common_port(bind).is_some()),
                false => own.first_common_port(bind).is_some(),
            };
            let takes = |bind: &&(&str, &AddressRange)| {
                let first = bind.1.first().ip();
                meets(bind.1) && first.is_some_and(|first| first.is_ipv4() == ip.is_ipv4())
            };
            let Some((listener, bind)) = wildcards.iter().find(takes) else { continue };
            if is_here(ip) {
                let address = &backend.address;
                parsed.warn(
                    &KeyPath::pool(&pool.name).key("backends").item(position),
                    format!(
                        "backend {address} is this host, and listener {listener} accepts on \
                         {bind}: its sessions come back, over and over"
                    ),
                    "name another server, or bind the listener to the address that it is for",
                );
            }
        }
    }
}

/// Addresses to connect from that this process does not have, or may not use.
fn warn_of_sources(
    parsed: &mut Parsed,
    config: &Config,
    is_here: impl Fn(IpAddr) -> bool,
    may_be_anybody: bool,
) {
    for pool in &config.pools {
        for (position, own) in pool.source.iter().enumerate() {
            if !is_here(*own) {
                parsed.warn(
                    &KeyPath::pool(&pool.name).key("source").item(position),
                    format!("source {own} is no address of this host"),
                    "sessions come from the others of the pool; add it to a device (`ip address \
                     add`), or remove it here",
                );
            }
        }
        if pool.transparent && !may_be_anybody {
            parsed.warn(
                &KeyPath::pool(&pool.name).key("transparent"),
                format!(
                    "this process may not connect from its clients' addresses: every session \
                         of pool {} will fail",
                    pool.name
                ),
                "run it as root or with CAP_NET_ADMIN; the documentation has a drop-in for the \
                 systemd unit",
            );
        }
    }
}

/// What will be met before the maximum that evenkeel has chosen itself, for the log.
pub(crate) fn met_first(config: &Config, sizes: &Sizes) -> Vec<String> {
    if config.global.max_sessions.is_some() {
        return Vec::new();
    }
    let ceilings = Host::this().ceilings(config, sizes.sessions(config));
    ceilings.into_iter().map(|one| format!("{}; {}", one.message, one.hint)).collect()
}

fn warn_of_sessions(parsed: &mut Parsed, config: &Config, sizes: &Sizes) {
    let descriptors = sizes.descriptors;
    let fits = sizes.by_descriptors(config);
    let hint = "raise the descriptor limit (LimitNOFILE= of the systemd unit, `ulimit -n`), or ask \
                for fewer";
    if let Some(wanted) = config.global.max_sessions.filter(|wanted| *wanted > fits) {
        let message = format!(
            "max_sessions = {wanted} is cut to {fits}: the process may open {descriptors} \
             descriptors"
        );
        parsed.warn(&KeyPath::table("global").key("max_sessions"), message, hint);
    }
    let most = sizes.sessions(config);
    if most < FEW_SESSIONS && config.global.max_sessions.is_none() {
        let message = match sizes.memory_bytes {
            Some(bytes) if fits > most => {
                format!("only {most} sessions fit into the {bytes} bytes of the control group")
            }
            _ => {
                format!("only {most} sessions fit: the process may open {descriptors} descriptors")
            }
        };
        let hint = "raise the limit (LimitNOFILE= or MemoryMax= of the systemd unit, `ulimit -n`)";
        parsed.warn(&KeyPath::table("global"), message, hint);
    }
    let mut sum = 0_u64;
    let mut each_fits = true;
    for listener in &config.listeners {
        let Some(wanted) = listener.max_sessions else { continue };
        sum = sum.saturating_add(wanted);
        if wanted > most {
            each_fits = false;
            let message = format!(
                "max_sessions = {wanted} cannot be reached: the process holds at most {most} \
                 sessions"
            );
            parsed.warn(&KeyPath::listener(&listener.name).key("max_sessions"), message, hint);
        }
    }
    if each_fits && sum > most {
        let message = format!(
            "the listeners' max_sessions add up to {sum}, the process holds at most {most} \
             sessions: one listener can starve another"
        );
        parsed.warn(&KeyPath::table("global").key("max_sessions"), message, hint);
    }
}

/// Ranges of ports whose sockets take more than half of the descriptors.
fn warn_of_ranges(parsed: &mut Parsed, config: &Config, sizes: &Sizes) {
    let (listening, descriptors) = (sizes.listening(config), sizes.descriptors);
    if listening <= descriptors / 2 {
        return;
    }
    let binds = config.listeners.iter().flat_map(|listener| {
        let ranges = listener.bind.iter().enumerate();
        ranges.map(move |(position, range)| (range, listener, position))
    });
    let Some((range, listener, position)) = binds.max_by_key(|(range, ..)| range.count()) else {
        return;
    };
    let all = match range.count() as u64 * sizes.workers as u64 {
        own if own == listening => String::new(),
        _ => format!(", with those of the other addresses {listening}"),
    };
    let message = format!(
        "{} are {} for {}{all}: the process may open {descriptors} descriptors, which leave room \
         for {}",
        count(range.count() as u64, "port"),
        count(range.count() as u64 * sizes.workers as u64, "socket"),
        count(sizes.workers as u64, "worker"),
        count(sizes.by_descriptors(config), "session"),
    );
    let key = KeyPath::listener(&listener.name).key("bind").item(position);
    let hint = "raise the descriptor limit (LimitNOFILE= of the systemd unit, `ulimit -n`), name \
                fewer ports, or set fewer `workers`";
    parsed.warn(&key, message, hint);
}

fn warn_of_backlog(parsed: &mut Parsed, config: &Config, somaxconn: Option<u64>) {
    let Some(most) = somaxconn else { return };
    for listener in &config.listeners {
        if u64::from(listener.backlog) > most {
            parsed.warn(
                &KeyPath::listener(&listener.name).key("backlog"),
                format!("backlog = {} is cut to {most} by the kernel", listener.backlog),
                format!("raise net.core.somaxconn, or set backlog = {most}"),
            );
        }
    }
}

/// What listeners ask for and a switch of the kernel takes away; `sysctl` reads one.
fn warn_of_switches(parsed: &mut Parsed, config: &Config, sysctl: impl Fn(&str) -> Option<u64>) {
    for listener in &config.listeners {
        for TakenAway { key, message, hint } in taken_away(listener, &sysctl) {
            parsed.warn(&KeyPath::listener(&listener.name).key(key), message, hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    fn warnings(global: &str, listener: &str) -> Vec<(String, String)> {
        warnings_with(1024, global, listener)
    }

    fn warnings_with(descriptors: u64, global: &str, listener: &str) -> Vec<(String, String)> {
        let text = format!(
            "[global]\n{global}\n[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n{listener}\n\
             [pool.p]\nbackends = [\"127.0.0.1:2\"]\n"
        );
        let mut parsed = crate::config::parse(&text, Path::new("a.toml"));
        let config = parsed.config.clone().unwrap();
        let sizes =
            Sizes { descriptors, memory_bytes: None, workers: 1, pipe_bytes: Some(1 << 26) };
        warn_of_sessions(&mut parsed, &config, &sizes);
        warn_of_backlog(&mut parsed, &config, Some(128));
        warn_of_ports(&mut parsed, &config, 1);
        parsed.problems.into_iter().map(|problem| (problem.key, problem.message)).collect()
    }

    // If this fails, an operator learns of a limit that was cut only when it is reached.
    #[test]
    fn what_cannot_be_had_is_said() {
        let found = warnings("max_sessions = 100000", "max_sessions = 90000\nbacklog = 4096");
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            ["global.max_sessions", "listener.a.max_sessions", "listener.a.backlog"],
            "{found:?}"
        );
        assert!(found[0].1.contains("1024 descriptors"), "{found:?}");
    }

    // If this fails, `check --strict` refuses files that ask for nothing special.
    #[test]
    fn what_fits_is_not_mentioned() {
        assert_eq!(warnings("", "max_sessions = 100\nbacklog = 128"), []);
    }

    // If this fails, a process that can hold hardly a session starts as if all were well.
    #[test]
    fn hardly_any_descriptors_are_worth_a_word() {
        let found = warnings_with(200, "", "backlog = 128");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.contains("only 34 sessions fit: the process may open 200"), "{found:?}");
        assert_eq!(warnings_with(200, "max_sessions = 20", "backlog = 128"), []);
        assert_eq!(warnings_with(400, "", "backlog = 128"), []);
    }

    // If this fails, the sockets of a range leave no descriptor for sessions, and `check` says
    // nothing.
    #[test]
    fn a_range_that_takes_the_descriptors_is_named() {
        let text = "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[listener.b]\n\
                    bind = [\"127.0.0.1:2\", \"127.0.0.1:5000-5299\"]\npool = \"p\"\n\
                    [pool.p]\nbackends = [\"127.0.0.1:9\"]\n";
        for (descriptors, expected) in [(1024, true), (1208, false)] {
            let mut parsed = crate::config::parse(text, Path::new("a.toml"));
            parsed.problems.clear();
            let config = parsed.config.clone().unwrap();
            let pipe_bytes = Some(1 << 26);
            let sizes = Sizes { descriptors, memory_bytes: None, workers: 2, pipe_bytes };
            assert_eq!(sizes.listening(&config), 604);
            warn_of_ranges(&mut parsed, &config, &sizes);
            let found: Vec<_> = parsed.problems.iter().map(|it| (&*it.key, &*it.message)).collect();
            if !expected {
                assert_eq!(found, []);
                continue;
            }
            let [(key, message)] = found[..] else { panic!("{found:?}") };
            assert_eq!(key, "listener.b.bind[1]");
            let said = "300 ports are 600 sockets for 2 workers, with those of the other addresses \
                        604: the process may open 1024 descriptors, which leave room for ";
            assert!(message.starts_with(said), "{message}");
        }
    }

    // If this fails, an operator learns from failed sessions what `check` could have told.
    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        let text = "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n\
                    [pool.p]\nbackends = [\"127.0.0.1:2\"]\n\
                    source = [\"127.0.0.2\", \"192.0.2.77\"]\n\
                    [pool.q]\nbackends = [\"127.0.0.1:2\"]\ntransparent = true\n";
        for (may_be_anybody, expected) in [(true, 1), (false, 2)] {
            let mut parsed = crate::config::parse(text, Path::new("a.toml"));
            parsed.problems.clear();
            let config = parsed.config.clone().unwrap();
            warn_of_sources(&mut parsed, &config, |own| own.is_loopback(), may_be_anybody);
            let keys: Vec<&str> = parsed.problems.iter().map(|it| it.key.as_str()).collect();
            assert_eq!(keys, &["pool.p.source[1]", "pool.q.transparent"][..expected]);
        }
    }

    // If this fails, an operator learns only at start that a port needs a privilege.
    #[test]
    fn ports_that_need_a_privilege_are_named() {
        let text = "[admin]\nhttp = \"127.0.0.1:81\"\n[listener.a]\n\
                    bind = [\"127.0.0.1:0\", \"127.0.0.1:443\", \"127.0.0.1:1024\"]\n\
                    pool = \"p\"\n[pool.p]\nbackends = [\"127.0.0.1:2\"]\n";
        let mut parsed = crate::config::parse(text, Path::new("a.toml"));
        let config = parsed.config.clone().unwrap();
        warn_of_ports(&mut parsed, &config, 1024);
        let keys: Vec<&str> = parsed.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["listener.a.bind[1]", "admin.http"]);
        assert!(parsed.problems[0].message.contains("127.0.0.1:443"), "{:?}", parsed.problems);
    }

    // If this fails, an operator believes that floods cost the workers nothing, and they do.
    #[test]
    fn check_says_who_refuses() {
        let text = "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n\
                    deny = [\"192.0.2.0/24\"]\nkernel_refusal = \"require\"\n\
                    limit = { rate = \"5/s\", kernel_refusal = \"require\" }\n\
                    [listener.b]\nbind = [\"127.0.0.1:2\"]\npool = \"p\"\n\
                    limit = { rate = \"5/s\", action = \"close\" }\n\
                    [listener.c]\nbind = [\"127.0.0.1:3\"]\npool = \"p\"\n\
                    limit = { rate = \"5/s\", kernel_refusal = \"off\" }\n\
                    [pool.p]\nbackends = [\"127.0.0.1:9\"]\n";
        let parse = || crate::config::parse(text, Path::new("a.toml"));
        let config = parse().config.unwrap();
        let warned = ["listener.a.kernel_refusal", "listener.a.limit.kernel_refusal"];
        for (has_capability, who, why, warned) in [
            (true, "the kernel refuses", "", &[][..]),
            (false, "workers refuse", ": this process has no CAP_BPF", &warned),
        ] {
            let mut parsed = parse();
            warn_of_gates(&mut parsed, &config, has_capability);
            let keys: Vec<&str> = parsed.problems.iter().map(|it| it.key.as_str()).collect();
            assert_eq!(keys, warned);
            let over = "clients over their rate";
            let expected = [
                format!("lists of listener a: {who} clients that are not admitted{why}"),
                format!("limit default of listener a: {who} {over}{why}"),
                format!(
                    "limit default of listener b: workers refuse {over}: its `action` is \"close\""
                ),
            ];
            assert_eq!(gate_notes(&config, has_capability), expected);
        }
    }

    // If this fails, one connection becomes as many sessions as there may be, and no warning said
    // so.
    #[test]
    fn a_backend_that_is_this_host_is_named() {
        let text = "[listener.a]\nbind = [\"0.0.0.0:5432\", \"10.0.0.1:5433\"]\npool = \"p\"\n\
                    [pool.p]\nbackends = [\"10.0.0.2:5432\", \"10.0.0.1:5432\", \"10.0.0.1:80\", \
                    \"[fd00::1]:5432\"]\n";
        let mut parsed = crate::config::parse(text, Path::new("a.toml"));
        let config = parsed.config.clone().unwrap();
        let own = ["10.0.0.1", "fd00::1"];
        warn_of_loops(&mut parsed, &config, |ip| own.contains(&ip.to_string().as_str()));
        let keys: Vec<&str> = parsed.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["pool.p.backends[1]"], "{:?}", parsed.problems);
    }

    // If this fails, a service that starts before its address comes is found out at the next boot.
    #[test]
    fn addresses_that_are_not_here_are_named() {
        let text = "[admin]\nhttp = \"192.0.2.7:81\"\n[listener.a]\n\
                    bind = [\"127.0.0.1:1\", \"[2001:db8::7]:1\"]\n\
                    pool = \"p\"\n[listener.b]\nbind = [\"192.0.2.8:1\"]\npool = \"p\"\n\
                    freebind = true\n[pool.p]\nbackends = [\"127.0.0.1:2\"]\n";
        let mut parsed = crate::config::parse(text, Path::new("a.toml"));
        let config = parsed.config.clone().unwrap();
        warn_of_absent_addresses(&mut parsed, &config, |ip| ip.is_loopback());
        let found: Vec<(&str, bool)> = parsed
            .problems
            .iter()
            .map(|problem| (problem.key.as_str(), problem.hint.contains("ipv6.ip_nonlocal_bind")))
            .collect();
        assert_eq!(found, [("listener.a.bind[1]", true), ("admin.http", false)]);
    }
}
