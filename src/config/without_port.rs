//! Backends without a port, which are connected at the port to which the client connected: what
//! the listeners of their pool have to be for that.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;

use crate::policy::address_range::AddressRange;
use crate::policy::terms::{Address, HostAddress};

use super::address::reaches;
use super::backend::Member;
use super::bind::Bind;
use super::file::{Section, shown};
use super::listener::ListenerConfig;
use super::pool::PoolConfig;
use super::report::{Finding, Report};

/// What is compared with the backends of a pool.
pub(super) struct Surroundings<'a> {
    /// Every `bind`.
    pub(super) binds: &'a [Bind],
    /// Those whose clients go to the pool.
    pub(super) used: Vec<&'a Bind>,
    /// Where the admin page is.
    pub(super) page: Option<AddressRange>,
}

impl<'a> Surroundings<'a> {
    /// Of the pool with this index.
    pub(super) fn of_pool(
        index: usize,
        listeners: &[ListenerConfig],
        binds: &'a [Bind],
        page: Option<SocketAddr>,
    ) -> Self {
        let leads_there = |listener: &&ListenerConfig| listener.pools().any(|pool| pool == index);
        let users = listeners.iter().filter(leads_there);
        let users: HashSet<&str> = users.map(|listener| listener.name.as_str()).collect();
        let used = binds.iter().filter(|bind| users.contains(bind.listener.as_str())).collect();
        Self { binds, used, page: page.map(|page| Address::Ip(page).into()) }
    }

    /// The port to which all clients of the pool connect, if it is one and known.
    fn only_port(&self) -> Option<u16> {
        let ports: BTreeSet<u16> = self.ports().take(2).collect();
        ports.first().copied().filter(|port| ports.len() == 1 && *port > 0)
    }

    /// Every port to which a client of the pool may connect; 0 where the kernel chooses.
    fn ports(&self) -> impl Iterator<Item = u16> {
        self.used.iter().filter_map(|bind| bind.addresses.ports()).flatten()
    }
}

/// Checks the backends of a pool that have no port; `section` is the pool's table.
pub(super) fn compare_without_port(
    pool: &mut PoolConfig,
    section: &Section<'_>,
    members: &[Member],
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) {
    let host_of = |member: &Member| match member.backend.address {
        Address::Host(host) => Some(host),
        _ => None,
    };
    let hosts = || members.iter().filter_map(|member| Some((member, host_of(member)?)));
    let Some((first, _)) = hosts().next() else { return };
    if let Some(bind) = around.used.iter().find(|bind| bind.addresses.first().is_unix()) {
        let name = shown(&first.backend.address.to_string());
        let socket = shown(&bind.addresses.to_string());
        let finding = Finding::new(format!(
            "backend `{name}` has no port, and clients of `{socket}` connect to none"
        ));
        let finding = finding
            .expected(format!("a port of its own, such as {}", sample(&first.backend.address)))
            .hint("give it one, or send the clients of the Unix socket to another pool")
            .beside(&bind.place, "a Unix socket");
        report.error(&first.place, finding);
    }
    for (member, host) in hosts() {
        compare_with_own(member, host, around, report);
    }
    compare_probes(pool, section, first, around, report);
}

/// A backend with a port, as an example.
fn sample(address: &Address) -> String {
    match address {
        Address::Host(host) => format!("\"{}\"", host.at(5432)),
        _ => "\"10.0.0.11:5432\"".to_owned(),
    }
}

/// Checks that a backend is, at none of the ports to which its clients connect, this process.
fn compare_with_own(
    member: &Member,
    host: HostAddress,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) {
    let meets = |used: &Bind, other: &AddressRange| {
        let port = used.addresses.first_common_port(other)?;
        let there = Address::Ip(host.at(port));
        reaches(&there, other).then_some(there)
    };
    for used in &around.used {
        let other =
            around.binds.iter().find_map(|bind| Some((meets(used, &bind.addresses)?, bind)));
        if let Some((there, bind)) = other {
            let owner = shown(&bind.listener);
            let finding = Finding::new(format!(
                "backend `{host}` is our own listener `{owner}` at `{there}`"
            ))
            .expected("the address of another server, or another port")
            .hint("every session would connect back to this process, over and over")
            .beside(&bind.place, "accepts there");
            report.error(&member.place, finding);
            return;
        }
        if let Some(there) = around.page.as_ref().and_then(|page| meets(used, page)) {
            let finding =
                Finding::new(format!("backend `{host}` is our own admin page at `{there}`"))
                    .expected("the address of another server, or another port")
                    .hint("every client of a listener could watch this process");
            report.error(&member.place, finding);
            return;
        }
    }
}

/// Finds the port that probes ask of backends without one.
fn compare_probes(
    pool: &mut PoolConfig,
    section: &Section<'_>,
    first: &Member,
    around: &Surroundings<'_>,
    report: &mut Report<'_>,
) {
    let Some(health) = pool.health.as_mut().filter(|health| health.port.is_none()) else { return };
    health.listener_port = around.only_port();
    let Some(place) = section.get("health").map(|value| value.place) else { return };
    if health.listener_port.is_some() {
        return;
    }
    let backend = shown(&first.backend.address.to_string());
    let ports: BTreeSet<u16> = around.ports().collect();
    let why = match (ports.len(), ports.contains(&0)) {
        (0, _) => "no listener uses the pool".to_owned(),
        (_, true) => "the kernel chooses a port of its listeners".to_owned(),
        (count, false) => format!("clients of the pool connect to {count} ports"),
    };
    let finding = Finding::new(format!("no port is known at which to probe backend `{backend}`"))
        .expected("`port` in this table")
        .hint(format!(
            "{why}: write the one that tells whether the host serves; its verdict counts for all"
        ))
        .beside(&first.place, "has no port");
    report.error(&place, finding);
}
