//! Limits of the host that are met before the process's own: source ports, connection tracking.
//!
//! They are no settings of evenkeel, so they surprise. A maximum that the file asks for and that
//! cannot be reached is a warning of `check`; where the maximum is evenkeel's own, the log says at
//! start what will be met first.

use std::collections::HashSet;

use crate::config::{Config, KeyPath, PoolConfig};
use crate::policy::balance::source::ports_for_sessions;
use crate::shared::Address;
use crate::sys::process;

use crate::control::words::count;

/// What this host grants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Host {
    /// Source ports for connections to one address.
    ports: u32,
    /// Connections that netfilter tracks at once; `None` when it tracks none now.
    tracked: Option<u64>,
}

/// A limit that is lower than what the process would hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// The place in the file that it is about.
    pub(crate) key: KeyPath,
    pub(crate) message: String,
    pub(crate) hint: &'static str,
}

impl Host {
    /// Asks the kernel.
    pub(crate) fn this() -> Self {
        let ports = process::source_ports();
        let number = |name| process::sysctl_number(name).filter(|number| *number > 0);
        // The module may be there without a rule that makes it work.
        let tracks = number("net/netfilter/nf_conntrack_count").is_some();
        let tracked = number("net/netfilter/nf_conntrack_max").filter(|_| tracks);
        Self { ports, tracked }
    }

    /// What will be met before `sessions`.
    pub(crate) fn ceilings(&self, config: &Config, sessions: u64) -> Vec<Ceiling> {
        let of_ports = |index| self.of_ports(config, index, sessions);
        let pools = (0..config.pools.len()).filter_map(of_ports);
        pools.chain(self.of_tracking(sessions)).collect()
    }

    /// Each session of a pool needs a source port for its backend's address.
    fn of_ports(&self, config: &Config, index: usize, sessions: u64) -> Option<Ceiling> {
        let pool = config.pools.get(index)?;
        let wanted: u64 = config
            .listeners_of(index)
            .map(|listener| listener.max_sessions.unwrap_or(sessions))
            .fold(0, u64::saturating_add)
            .min(sessions);
        let backends: HashSet<_> = pool.backends.iter().map(|backend| &backend.address).collect();
        // A session that finds no port to one of the others may still go there. A transparent pool
        // has the addresses of all clients.
        if pool.transparent || backends.iter().any(|to| matches!(to, Address::Unix(_))) {
            return None;
        }
        let is_named = !pool.source.is_empty();
        let ports = if is_named { ports_for_sessions(self.ports) } else { self.ports };
        let has_hosts = backends.iter().any(|to| to.is_without_port());
        let reached = if has_hosts { config.ports_of(index).count().max(1) as u64 } else { 1 };
        let at_ports = |to: &Address| if to.is_without_port() { reached } else { 1 };
        let sources = backends.iter().map(|to| sources_towards(pool, to) * at_ports(to));
        let most = u64::from(ports).saturating_mul(sources.sum());
        let each = if is_named { "from a source to a backend" } else { "to a backend" };
        let at = if reached > 1 { format!(" at each of {reached} ports") } else { String::new() };
        (most < wanted).then(|| Ceiling {
            key: KeyPath::pool(&pool.name).key("backends"),
            message: format!(
                "pool {} can have {most} sessions, fewer than the {wanted} that are let in: there \
                 are {ports} source ports {each}{at}, and {}",
                pool.name,
                count(backends.len() as u64, "backend"),
            ),
            hint: "widen net.ipv4.ip_local_port_range, name more addresses of this host in \
                   `source`, let backends listen on more addresses, or set max_sessions",
        })
    }

    /// Both connections of a session are tracked.
    fn of_tracking(&self, sessions: u64) -> Option<Ceiling> {
        let tracked = self.tracked.filter(|most| *most < sessions.saturating_mul(2))?;
        Some(Ceiling {
            key: KeyPath::table("global"),
            message: format!(
                "netfilter tracks {tracked} connections, fewer than the {} of {sessions} sessions: \
                 packets of further ones are dropped",
                sessions.saturating_mul(2),
            ),
            hint: "raise net.netfilter.nf_conntrack_max, or leave these ports untracked",
        })
    }
}

/// From how many addresses a backend is connected.
fn sources_towards(pool: &PoolConfig, backend: &Address) -> u64 {
    let Some(to) = backend.host_ip() else { return 0 };
    let is_v4 = to.to_canonical().is_ipv4();
    let fitting = pool.source.iter().filter(|own| own.is_ipv4() == is_v4).count();
    if pool.source.is_empty() { 1 } else { fitting as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    fn found(host: Host, sessions: u64, listener: &str) -> Vec<String> {
        found_from(host, sessions, listener, "")
    }

    fn found_from(host: Host, sessions: u64, listener: &str, pool: &str) -> Vec<String> {
        let text = format!(
            "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n{listener}\n\
             [pool.p]\nbackends = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n{pool}\n"
        );
        let config = crate::config::parse(&text, Path::new("a.toml")).config.unwrap();
        host.ceilings(&config, sessions).into_iter().map(|ceiling| ceiling.message).collect()
    }

    // If this fails, connects fail for want of a port at a load that evenkeel has let in, unsaid.
    #[test]
    fn too_few_source_ports_are_named() {
        let host = Host { ports: 28_232, tracked: None };
        let said = found(host, 100_000, "");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("56464 sessions") && said[0].contains("28232 source ports"));
        assert_eq!(found(host, 56_464, ""), [""; 0]);
        // What the listener lets in is what counts.
        assert_eq!(found(host, 100_000, "max_sessions = 50000"), [""; 0]);
    }

    // If this fails, an operator is told of too few source ports where each port of a range has its
    // own, or hears nothing where they are too few.
    #[test]
    fn a_backend_without_a_port_has_source_ports_at_each_port_of_the_listeners() {
        let host = Host { ports: 28_232, tracked: None };
        let said = |sessions, pool: &str| {
            let text = format!(
                "[listener.a]\nbind = [\"127.0.0.1:5000-5002\", \"127.0.0.2:5002-5003\"]\n\
                 pool = \"p\"\n[pool.p]\nbackends = [\"127.0.0.3\"]\n{pool}\n"
            );
            let config = crate::config::parse(&text, Path::new("a.toml")).config.unwrap();
            host.ceilings(&config, sessions).into_iter().map(|it| it.message).collect::<Vec<_>>()
        };
        assert_eq!(said(4 * 28_232, ""), [""; 0]);
        let few = said(4 * 28_232 + 1, "");
        assert!(few[0].contains("28232 source ports to a backend at each of 4 ports"), "{few:?}");
        assert_eq!(said(8 * 27_791, "source = [\"127.0.0.4\", \"127.0.0.5\"]"), [""; 0]);
    }

    // If this fails, a pool that only routes lead to runs out of ports, unsaid.
    #[test]
    fn routes_lead_to_a_pool_as_listeners_do() {
        let text = "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n\
                    [[listener.a.route]]\nsni = [\"x.test\"]\npool = \"q\"\n\
                    [pool.p]\nbackends = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n\
                    [pool.q]\nbackends = [\"127.0.0.1:4\"]\n";
        let config = crate::config::parse(text, Path::new("a.toml")).config.unwrap();
        let said = Host { ports: 28_232, tracked: None }.ceilings(&config, 50_000);
        let keys: Vec<&str> = said.iter().map(|ceiling| ceiling.key.as_str()).collect();
        assert_eq!(keys, ["pool.q.backends"], "{said:?}");
    }

    // If this fails, an operator who has added sources is still told to add some.
    #[test]
    fn each_source_has_ports_of_its_own() {
        let host = Host { ports: 28_232, tracked: None };
        let three = "source = [\"127.0.0.2\", \"127.0.0.3\", \"127.0.0.4\", \"::1\"]";
        assert_eq!(found_from(host, 166_746, "", three), [""; 0]);
        let said = found_from(host, 166_747, "", three);
        assert!(said[0].contains("27791 source ports from a source to a backend"), "{said:?}");
        assert_eq!(found_from(host, 1_000_000, "", "transparent = true"), [""; 0]);
    }

    // If this fails, a full table of the firewall drops packets, and no message says why.
    #[test]
    fn a_small_tracking_table_is_named() {
        let host = Host { ports: 60_000, tracked: Some(65_536) };
        let said = found(host, 40_000, "");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("65536") && said[0].contains("80000"), "{said:?}");
        assert_eq!(found(host, 32_768, ""), [""; 0]);
    }
}
