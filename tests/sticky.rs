//! Clients that are sent where they were sent before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use support::{Backend, PATIENCE, Proxy, Setup, connect_from, eventually, read_line};

fn named(count: usize) -> Vec<Backend> {
    (1..=count).map(|number| Backend::named(&format!("b{number}"))).collect()
}

/// Round-robin, which alone would send each next session elsewhere.
fn pool_of(backends: &[Backend], sticky: &str) -> Setup {
    Setup::of(&backends.iter().collect::<Vec<_>>())
        .pool(&format!("balance = \"round-robin\"\nsticky = {{ {sticky} }}"))
}

fn client(number: u8) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(127, 12, 0, number))
}

fn open(proxy: &Proxy, number: u8) -> (String, TcpStream) {
    let mut stream = connect_from((client(number), 0), proxy.address()).unwrap();
    (read_line(&mut stream).unwrap(), stream)
}

fn served(proxy: &Proxy, number: u8) -> String {
    open(proxy, number).0
}

// If this fails, a client is sent elsewhere although its backend is there, or all clients go to one
// backend.
#[test]
fn a_client_goes_where_it_went_before() {
    let backends = named(3);
    let setup = pool_of(&backends[..2], "size = 1024");
    let proxy = setup.start();
    let homes: Vec<String> = (1..=8).map(|number| served(&proxy, number)).collect();
    assert_eq!(homes[..4], ["b1", "b2", "b1", "b2"]);
    for _ in 0..3 {
        for (number, home) in (1..).zip(&homes) {
            assert_eq!(served(&proxy, number), *home);
        }
    }
    // A new backend, and other weights, move no client; newcomers are sent there.
    let three = pool_of(&backends, "size = 1024").backend(1, "weight = 5");
    proxy.reload_with(&three.text());
    for (number, home) in (1..).zip(&homes) {
        assert_eq!(served(&proxy, number), *home);
    }
    assert!((20..40).any(|number| served(&proxy, number) == "b3"));
}

// If this fails, two workers remember different things.
#[test]
fn all_workers_remember_the_same() {
    let backends = named(3);
    let proxy = pool_of(&backends, "size = 1024").global("workers = 3").start();
    for number in 1..=10 {
        let home = served(&proxy, number);
        for _ in 0..6 {
            assert_eq!(served(&proxy, number), home);
        }
    }
}

// If this fails, clients of a backend that was removed stick to the next one with its id.
#[test]
fn a_new_backend_does_not_inherit_clients() {
    let backends = named(3);
    let of = |members: &[&Backend]| {
        Setup::of(members).pool("balance = \"first\"\nsticky = { size = 64 }")
    };
    let proxy = of(&[&backends[0]]).start();
    assert_eq!(served(&proxy, 1), "b1");
    proxy.wait_for_sessions(0);
    proxy.reload_with(&of(&[&backends[1]]).text());
    eventually("all workers have seen it", PATIENCE, || {
        let status = proxy.status();
        status.workers.iter().all(|worker| worker.generation == status.generation).then_some(())
    });
    // The id of the first is free now, so the third gets it.
    proxy.reload_with(&of(&[&backends[1], &backends[2]]).text());
    assert_eq!(served(&proxy, 1), "b2");
}

// If this fails, a client is held to a backend that cannot serve, or changes back and forth.
#[test]
fn a_choice_yields_when_the_backend_is_out() {
    let backends = [Backend::named("b1"), Backend::named("b2")];
    let proxy = pool_of(&backends, "size = 64").start();
    assert_eq!([served(&proxy, 1), served(&proxy, 2)], ["b1", "b2"]);
    proxy.tell("back/b1", "drain");
    assert_eq!([served(&proxy, 1), served(&proxy, 2)], ["b2", "b2"]);
    proxy.tell("back/b1", "ready");
    for _ in 0..3 {
        assert_eq!([served(&proxy, 1), served(&proxy, 2)], ["b2", "b2"]);
    }
}

// If this fails, a client waits for a dead backend with each of its sessions.
#[test]
fn a_choice_yields_when_the_backend_refuses() {
    let backends = [Backend::refusing(), Backend::named("b2")];
    let proxy = pool_of(&backends, "size = 64").start();
    for _ in 0..6 {
        assert_eq!(served(&proxy, 1), "b2");
    }
    let failures = proxy.metric("evenkeel_backend_connect_failures_total", &[]);
    assert!(failures < 1.5, "{failures} attempts at a backend that refused");
}

// If this fails, a moment of being full costs a client its backend, or it is turned away.
#[test]
fn a_full_backend_keeps_its_clients() {
    let backends = named(2);
    let proxy = pool_of(&backends, "size = 64").backend(1, "max_sessions = 1").start();
    let (home, held) = open(&proxy, 1);
    assert_eq!(home, "b1");
    assert_eq!(served(&proxy, 1), "b2");
    drop(held);
    eventually("the place is free", PATIENCE, || {
        (proxy.backend("back", "b1").sessions == 0).then_some(())
    });
    assert_eq!(served(&proxy, 1), "b1");
}

// If this fails, a choice is for ever, or a backup keeps clients when primaries are back.
#[test]
fn choices_end() {
    let backends = named(3);
    let proxy = pool_of(&backends, "for = \"1s\", size = 64").backend(3, "backup = true").start();
    assert_eq!([served(&proxy, 1), served(&proxy, 2), served(&proxy, 3)], ["b1", "b2", "b1"]);
    let since = Instant::now();
    eventually("choices are over", PATIENCE, || {
        (since.elapsed() > Duration::from_millis(2_200)).then_some(())
    });
    assert_eq!(served(&proxy, 1), "b2", "the backend whose turn it is");
    for backend in ["back/b1", "back/b2"] {
        proxy.tell(backend, "drain");
    }
    assert_eq!([served(&proxy, 1), served(&proxy, 5)], ["b3", "b3"]);
    for backend in ["back/b1", "back/b2"] {
        proxy.tell(backend, "ready");
    }
    assert!(served(&proxy, 5) != "b3" && served(&proxy, 1) != "b3");
}

// If this fails, `check` says of a `hash_key` beside `sticky` that it counts, and users behind one
// address share a backend all the same.
#[test]
fn clients_are_known_by_what_they_say() {
    let backends = named(2);
    let setup = pool_of(&backends, "size = 1024").pool("hash_key = \"http-header X-User\"");
    let proxy = setup.start();
    let served_as = |user: &str| {
        let mut stream = connect_from((client(1), 0), proxy.address()).unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nX-User: {user}\r\n\r\n").as_bytes()).unwrap();
        read_line(&mut stream).unwrap()
    };
    let homes = ["ann", "bob", "cat", "dan"].map(served_as);
    assert_eq!(homes, ["b1", "b2", "b1", "b2"]);
    assert_eq!(["dan", "cat", "bob", "ann"].map(served_as), ["b2", "b1", "b2", "b1"]);
}

/// One client whose address a proxy in front claims, and the backend that serves it.
fn claimed(proxy: &Proxy, addresses: &str) -> String {
    let mut stream = connect_from((client(1), 0), proxy.address()).unwrap();
    stream.write_all(format!("PROXY {addresses} 1000 5432\r\n").as_bytes()).unwrap();
    read_line(&mut stream).unwrap()
}

// If this fails, users that a pool tells apart by what they say change their backend, with one
// balance or another.
#[test]
fn what_clients_say_is_remembered_under_every_balance() {
    let balances =
        ["maglev", "round-robin", "least-connections", "least-latency", "random-two", "random"];
    for balance in balances {
        let backends = named(3);
        let pool = format!(
            "balance = \"{balance}\"\nhash_key = \"http-cookie user\"\nsticky = {{ size = 1024 }}"
        );
        let setup = Setup::of(&backends.iter().collect::<Vec<_>>()).pool(&pool);
        let proxy = setup.start();
        let served_as = |user: usize| {
            let mut stream = connect_from((client(1), 0), proxy.address()).unwrap();
            let head = format!("GET / HTTP/1.1\r\nCookie: user={user}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            read_line(&mut stream).unwrap()
        };
        let homes: Vec<String> = (0..30).map(served_as).collect();
        // Thirty draws of one of three: once in 3^29 runs.
        assert!(homes.iter().any(|home| *home != homes[0]), "{balance}: all on {}", homes[0]);
        // Other weights, and so another table, move no user.
        proxy.reload_with(&setup.backend(1, "weight = 50").text());
        for _ in 0..2 {
            assert_eq!((0..30).map(served_as).collect::<Vec<_>>(), homes, "{balance}");
        }
    }
}

// If this fails, two clients of a single writer reach two servers, or one does not follow.
#[test]
fn without_a_hash_key_all_clients_are_one() {
    let clients = [
        "TCP4 192.0.2.1 192.0.2.9",
        "TCP4 198.51.100.7 192.0.2.9",
        "TCP6 2001:db8::1 2001:db8::9",
        "TCP6 2001:db8:1::7 2001:db8::9",
        "TCP4 203.0.113.4 192.0.2.9",
    ];
    for choice in ["balance = \"maglev\"", "balance = \"round-robin\"\nsticky = { size = 8 }"] {
        let backends = named(3);
        let proxy = Setup::of(&backends.iter().collect::<Vec<_>>())
            .pool(&format!("{choice}\nhash_key = \"none\""))
            .listener("accept_proxy = { from = [\"127.0.0.0/8\"] }")
            .start();
        let all = || clients.map(|client| claimed(&proxy, client));
        let before = all();
        assert!(before.iter().all(|home| *home == before[0]), "{choice}: {before:?}");
        proxy.tell(&format!("back/{}", before[0]), "drain");
        let after = all();
        assert!(after.iter().all(|home| *home == after[0]), "{choice}: {after:?}");
        assert_ne!(before[0], after[0]);
        proxy.tell(&format!("back/{}", before[0]), "ready");
        let returns = choice.contains("maglev");
        assert_eq!(all()[0], if returns { &before[0] } else { &after[0] }.as_str(), "{choice}");
    }
}
