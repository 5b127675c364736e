//! Gates as configurations make them, before real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::policy::admit::access::AccessList;
use crate::policy::admit::ban_set::BanSet;
use crate::policy::nat64::SeenClient;
use crate::sys::process;

fn listening() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(1_024).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn is_let_in(from: Ipv4Addr, to: SocketAddr) -> bool {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    let met = client.connect(&to.into());
    let refused = met.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    assert!(met.is_ok() || refused, "{from}: {met:?}");
    met.is_ok()
}

/// An address of few bits, so that networks and addresses do meet.
fn any_address() -> Ipv4Addr {
    Ipv4Addr::new(127, fastrand::u8(0..4) << 6, 0, fastrand::u8(1..5))
}

fn any_networks(most: usize) -> Vec<IpNet> {
    let network = |_| IpNet::new(any_address().into(), fastrand::u8(8..=32)).unwrap().trunc();
    (0..fastrand::usize(0..=most)).map(network).collect()
}

fn configured(allow: &[IpNet], deny: &[IpNet]) -> Config {
    let shown = |list: &[IpNet]| list.iter().map(|net| format!("\"{net}\"")).collect::<Vec<_>>();
    let [allow, deny] = [allow, deny].map(|list| shown(list).join(", "));
    let text = format!(
        "[listener.a]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\nallow = [{allow}]\ndeny = [{deny}]\n\
         [pool.p]\nbackends = [\"127.0.0.1:9\"]\n"
    );
    let parsed = crate::config::parse(&text, Path::new("a.toml"));
    parsed.config.unwrap()
}

/// The gate of the only listener.
fn gate_of(gates: &Gates, config: &Config) -> ListenerGate {
    let now = InForce { config, snapshot: &Snapshot::nothing() };
    gates.of(Wanted { config, shared: &[None] }, now).unwrap().remove(0)
}

// If this fails, the kernel refuses a client that a worker would let in, or the other way round, or
// counts it for another reason.
#[test]
fn the_kernel_and_the_workers_give_one_verdict_of_lists_and_bans() {
    if !process::may_load_programs() {
        return;
    }
    let seed = fastrand::get_seed();
    let started = Instant::now();
    let gates = Gates::new(started);
    let (socket, to) = listening();
    let mut refused = [0, 0];
    for _ in 0..60 {
        let (allow, deny) = (any_networks(4), any_networks(4));
        let now_us = u64::try_from(started.elapsed().as_micros()).unwrap();
        let until = |network| (network, fastrand::choice([now_us, u64::MAX]).unwrap());
        let bans: Vec<(IpNet, u64)> = any_networks(3).into_iter().map(until).collect();
        let bans: std::collections::BTreeMap<IpNet, u64> = bans.into_iter().collect();
        gates.replace_bans(bans.clone());
        let gate = gate_of(&gates, &configured(&allow, &deny));
        let kernel = &gate.gate.as_ref().unwrap().kernel;
        kernel.put_before(socket.as_fd()).unwrap();
        let (list, bans) = (AccessList::new(&allow, &deny), BanSet::new(bans));
        let mut expected = [0, 0];
        for _ in 0..12 {
            let from = any_address();
            let client = SocketAddr::from((from, 1)).into();
            let seen = SeenClient { client, translated_from: None };
            let is_banned = bans.covering_seen(seen, now_us).is_some();
            let is_admitted = list.admits_seen(seen);
            let place = format!("{from}, allow {allow:?}, deny {deny:?}, seed {seed}");
            assert_eq!(is_let_in(from, to), !is_banned && is_admitted, "{place}");
            expected[0] += u64::from(is_banned);
            expected[1] += u64::from(!is_banned && !is_admitted);
        }
        let counts = gate.access_counts.as_ref().unwrap();
        assert_eq!([counts.ban.value(), counts.lists.value()], expected, "seed {seed}");
        refused = [refused[0] + expected[0], refused[1] + expected[1]];
    }
    assert!(refused.iter().all(|times| *times > 50), "{refused:?}, seed {seed}");
}

// If this fails, a list of half a million networks is stored anew at each reload of something else,
// and for each listener.
#[test]
fn lists_that_stay_are_kept() {
    if !process::may_load_programs() {
        return;
    }
    let gates = Gates::new(Instant::now());
    let deny: Vec<IpNet> = vec!["192.0.2.0/24".parse().unwrap()];
    let config = configured(&[], &deny);
    let list = |config: &Config| gates.0.lists.of(&config.listeners[0]).unwrap().unwrap();
    let first = list(&config);
    assert!(Arc::ptr_eq(&first, &list(&configured(&[], &deny))));
    assert!(!Arc::ptr_eq(&first, &list(&configured(&deny, &[]))));
    assert!(gates.0.lists.of(&configured(&[], &[]).listeners[0]).unwrap().is_none());
}
