//! Which backend a client gets where more than its address or its turn counts: latency, load, age.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use support::{
    Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually, read_line, served_by,
};

fn named(count: usize) -> Vec<Backend> {
    (1..=count).map(|number| Backend::named(&format!("b{number}"))).collect()
}

fn pool_of(backends: &[Backend]) -> Setup {
    Setup::of(&backends.iter().collect::<Vec<_>>())
}

/// How many of `clients`, one after the other, each backend serves.
fn shares(proxy: &Proxy, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(served_by(proxy.address()).unwrap()).or_default() += 1;
    }
    shares
}

fn share(shares: &BTreeMap<String, usize>, backend: &str) -> usize {
    shares.get(backend).copied().unwrap_or(0)
}

/// Which backend serves each of many clients.
fn homes(address: SocketAddr) -> BTreeMap<IpAddr, String> {
    let clients = (1..=60).map(|host| IpAddr::from(Ipv4Addr::new(127, 11, host / 3, host)));
    let served = |client| read_line(&mut connect_from((client, 0), address).unwrap()).unwrap();
    clients.map(|client| (client, served(client))).collect()
}

// If this fails, clients go on waiting for a backend that takes long, or that refuses.
#[test]
fn least_latency_avoids_backends_that_make_clients_wait() {
    for silent in [Backend::unanswering(), Backend::refusing()] {
        let backends = [silent, Backend::named("b2")];
        let proxy = Setup::of(&[&backends[0], &backends[1]])
            .global("workers = 2")
            .pool("balance = \"least-latency\"\nconnect_timeout = \"1s\"")
            .start();
        for _ in 0..60 {
            assert_eq!(served_by(proxy.address()).unwrap(), "b2");
        }
        // Sixty draws that never try the first: once in 2^60 runs.
        let failures = proxy.metric("evenkeel_backend_connect_failures_total", &[]);
        assert!((0.5..1.5).contains(&failures), "{failures} clients were sent there");
        let latency =
            |backend| proxy.metric("evenkeel_backend_latency_seconds", &[("backend", backend)]);
        assert!(latency("b1") > latency("b2") && latency("b2") > 0.0);
    }
}

// If this fails, one large client fills one backend although the others have room, or a bound turns
// clients away.
#[test]
fn load_factor_bounds_what_one_backend_gets() {
    let backends = named(3);
    let setup = pool_of(&backends).global("workers = 2");
    let hold = |proxy: &Proxy, count: usize| -> Vec<(String, TcpStream)> {
        let open = || {
            let mut client = connect(proxy.address());
            (read_line(&mut client).unwrap(), client)
        };
        (0..count).map(|_| open()).collect()
    };
    let count = |held: &[(String, TcpStream)], name: &str| {
        held.iter().filter(|(served, _)| served == name).count()
    };
    let unbounded = setup.start();
    let home = served_by(unbounded.address()).unwrap();
    assert_eq!(count(&hold(&unbounded, 12), &home), 12);
    let proxy = setup.pool("load_factor = 1.5").start();
    let held = hold(&proxy, 12);
    let most = ["b1", "b2", "b3"].map(|name| count(&held, name));
    // Of twelve a third is four, and half as much again is six.
    assert_eq!(most.iter().max(), Some(&6), "{most:?}");
    assert_eq!(count(&held, &home), 6, "its own backend first");
    // The mean is that of those that can serve.
    for name in ["b1", "b2", "b3"].into_iter().filter(|name| *name != home) {
        proxy.tell(&format!("back/{name}"), "drain");
    }
    assert_eq!(count(&hold(&proxy, 10), &home), 10);
}

// If this fails, a backend that a reload adds is hit by its whole share while it is cold, or never
// gets it.
#[test]
fn a_backend_that_is_added_grows() {
    for balance in ["round-robin", "random", "least-connections", "random-two", "least-latency"] {
        let backends = named(3);
        let pool = format!("balance = \"{balance}\"");
        let two = pool_of(&backends[..2]).pool(&pool);
        let three = pool_of(&backends).pool(&pool);
        let proxy = two.clone().pool("slow_start = \"1d\"").start();
        let begun = shares(&proxy, 20);
        assert!(begun.values().all(|share| *share > 0) && begun.len() == 2, "{balance}: {begun:?}");
        proxy.reload_with(&three.clone().pool("slow_start = \"1d\"").text());
        let slow = shares(&proxy, 60);
        // One in 513 draws on average: ten of sixty are out of reach.
        assert!(share(&slow, "b3") <= 10, "{balance}: {slow:?}");
        proxy.reload_with(&three.pool("slow_start = \"1ms\"").text());
        let grown = shares(&proxy, 60);
        let wanted = if balance == "round-robin" { 19 } else { 1 };
        assert!(
            share(&grown, "b3") >= wanted || balance == "least-latency",
            "{balance}: {grown:?}"
        );
    }
}

// If this fails, a backend that comes back takes more than its own clients, or all of them at once.
#[test]
fn a_maglev_backend_that_is_added_takes_its_clients_one_by_one() {
    let backends = named(4);
    let proxy = pool_of(&backends[..3]).pool("slow_start = \"1d\"").start();
    assert_eq!(homes(proxy.address()).len(), 60);
    proxy.reload_with(&pool_of(&backends).pool("slow_start = \"1d\"").text());
    let slow = homes(proxy.address());
    let newcomers = slow.values().filter(|home| *home == "b4").count();
    assert!(newcomers <= 3, "{newcomers} at once");
    proxy.reload_with(&pool_of(&backends).text());
    let grown = homes(proxy.address());
    assert!(grown.values().filter(|home| *home == "b4").count() > newcomers);
    for (client, home) in &grown {
        assert!(slow[client] == *home || home == "b4", "{client} moved from {}", slow[client]);
    }
}

// If this fails, a backend that has just come up is given its whole share at once.
#[test]
fn a_backend_that_comes_up_grows() {
    // An address of its own: a port of 127.0.0.1 may be taken while no server listens there.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = |last| SocketAddr::from((Ipv4Addr::new(127, 32 | high >> 4, low, last), 0));
    let mut backends: Vec<_> =
        (1..=2).map(|last| Backend::named_at(&format!("b{last}"), own(last))).collect();
    let proxy = pool_of(&backends)
        .pool("balance = \"round-robin\"\nslow_start = \"1d\"")
        .also(
            "[pool.back.health]\ninterval = \"50ms\"\nfast_interval = \"20ms\"\n\
             down_backoff = \"50ms\"",
        )
        .start();
    assert_eq!(share(&shares(&proxy, 20), "b1"), 10);
    let address = backends[0].address();
    let is = |state| (proxy.backend("back", "b1").state == state).then_some(());
    drop(backends.remove(0));
    eventually("it is down", PATIENCE, || is("down"));
    backends.push(Backend::named_at("b1", address));
    eventually("it is up again", PATIENCE, || is("up"));
    let slow = share(&shares(&proxy, 60), "b1");
    assert!(slow <= 2, "{slow} of 60");
}
