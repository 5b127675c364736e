//! Which backend a client gets, by each balance, as backends come and go and fill up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use support::{
    Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually, free_address, read_line,
    served_by, try_connect,
};

/// Clients on addresses of their own.
fn clients(count: u8) -> impl Iterator<Item = IpAddr> {
    (1..=count).map(|host| IpAddr::from(Ipv4Addr::new(127, 9, host / 3, host)))
}

/// The backend that serves a client with this address.
fn served_from(client: IpAddr, address: SocketAddr) -> String {
    read_line(&mut connect_from((client, 0), address).unwrap()).unwrap()
}

/// Which backend serves each of many clients.
fn homes(address: SocketAddr) -> BTreeMap<IpAddr, String> {
    clients(60).map(|client| (client, served_from(client, address))).collect()
}

fn named(count: usize) -> Vec<Backend> {
    (1..=count).map(|number| Backend::named(&format!("b{number}"))).collect()
}

fn pool_of(backends: &[Backend]) -> Setup {
    Setup::of(&backends.iter().collect::<Vec<_>>())
}

fn turns(proxy: &Proxy, count: usize) -> Vec<String> {
    (0..count).map(|_| served_by(proxy.address()).unwrap()).collect()
}

/// Whether a new client is reset or closed without a byte.
fn is_turned_away(address: SocketAddr) -> bool {
    match try_connect(address).and_then(|mut client| client.read(&mut [0])) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

// If this fails, a client loses what its backend keeps for it: caches, logins.
#[test]
fn maglev_keeps_a_client_on_its_backend() {
    let backends = named(3);
    let proxy = pool_of(&backends).global("workers = 2").start();
    for client in clients(10) {
        let first = served_from(client, proxy.address());
        for _ in 0..4 {
            assert_eq!(served_from(client, proxy.address()), first);
        }
    }
}

// If this fails, a backend gets another share than its weight says.
#[test]
fn maglev_spreads_clients_by_weight() {
    let backends = named(2);
    let proxy =
        pool_of(&backends).pool("hash_key = \"client-ip-port\"").backend(1, "weight = 2").start();
    for port in 0..600_u16 {
        let client = (IpAddr::from(Ipv4Addr::LOCALHOST), 20_000 + port);
        // A port that is taken is as good as the next one the kernel chooses.
        let mut client =
            connect_from(client, proxy.address()).unwrap_or_else(|_| connect(proxy.address()));
        support::reset_when_dropped(&client);
        read_line(&mut client).unwrap();
    }
    let heavy = backends[0].accepted();
    assert_eq!(heavy + backends[1].accepted(), 600);
    assert!((360..=440).contains(&heavy), "{heavy} of 600, not about 400");
}

// If this fails, two nodes with the same file send one client to different backends.
#[test]
fn two_processes_with_the_same_file_agree() {
    let backends = named(4);
    let setup = pool_of(&backends);
    let (one, other) = (setup.start(), setup.global("workers = 2").start());
    let here = homes(one.address());
    assert_eq!(here, homes(other.address()));
    assert!(here.values().collect::<BTreeSet<_>>().len() == 4);
}

// If this fails, one server that is taken out moves the clients of all others.
#[test]
fn a_backend_that_is_out_moves_only_its_own_clients() {
    let backends = named(4);
    let proxy = pool_of(&backends).start();
    let before = homes(proxy.address());
    for verb in ["drain", "maint"] {
        proxy.tell("back/b2", verb);
        assert_eq!(proxy.backend("back", "b2").state, verb);
        for (client, home) in &homes(proxy.address()) {
            assert_ne!(home, "b2");
            assert!(before[client] == *home || before[client] == "b2", "{client} moved");
        }
        proxy.tell("back/b2", "ready");
        assert_eq!(homes(proxy.address()), before);
    }
}

// If this fails, one server that fails moves the clients of all others, or its own never come back.
#[test]
fn a_backend_that_fails_moves_only_its_own_clients() {
    // Addresses of their own: a port of 127.0.0.1 may be taken while no server listens there.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = |last| SocketAddr::from((Ipv4Addr::new(127, 16 | high >> 4, low, last), 0));
    let mut backends: Vec<_> =
        (1..=4).map(|last| Backend::named_at(&format!("b{last}"), own(last))).collect();
    let proxy = pool_of(&backends)
        .also(
            "[pool.back.health]\ninterval = \"50ms\"\nfast_interval = \"20ms\"\n\
             down_backoff = \"50ms\"",
        )
        .start();
    let before = homes(proxy.address());
    let address = backends[1].address();
    let is =
        |state| move |proxy: &Proxy| (proxy.backend("back", "b2").state == state).then_some(());
    drop(backends.remove(1));
    eventually("it is down", PATIENCE, || is("down")(&proxy));
    for (client, home) in &homes(proxy.address()) {
        assert!(before[client] == *home || before[client] == "b2", "{client} moved");
        assert_ne!(home, "b2");
    }
    backends.push(Backend::named_at("b2", address));
    eventually("it is up again", PATIENCE, || is("up")(&proxy));
    assert_eq!(homes(proxy.address()), before);
}

// If this fails, clients behind one network are not kept together as configured.
#[test]
fn a_hash_prefix_groups_clients() {
    let backends = named(4);
    let proxy = pool_of(&backends).pool("hash_prefix = { v4 = 24, v6 = 64 }").start();
    let home = |third, host| {
        served_from(IpAddr::from(Ipv4Addr::new(127, 10, third, host)), proxy.address())
    };
    let mut seen = BTreeSet::new();
    for third in 0..16 {
        let first = home(third, 1);
        assert_eq!(home(third, 77), first);
        assert_eq!(home(third, 254), first);
        seen.insert(first);
    }
    assert!(seen.len() > 1);
}

// If this fails, round-robin is not in turn, or weights are not kept within one cycle.
#[test]
fn round_robin_goes_in_turn() {
    let backends = named(3);
    let setup = pool_of(&backends).pool("balance = \"round-robin\"");
    assert_eq!(turns(&setup.start(), 7), ["b1", "b2", "b3", "b1", "b2", "b3", "b1"]);
    let weighted = setup.backend(1, "weight = 5").start();
    assert_eq!(turns(&weighted, 7), ["b1", "b1", "b2", "b1", "b3", "b1", "b1"]);
    weighted.weigh("back/b1", 0);
    // A generation later turns begin one further.
    assert_eq!(turns(&weighted, 4), ["b3", "b2", "b3", "b2"]);
    assert_eq!(weighted.backend("back", "b1").weight, 0);
}

/// Connections that are held open, and the backend of each.
fn hold(address: SocketAddr, count: usize) -> Vec<(String, TcpStream)> {
    let open = || {
        let mut client = connect(address);
        (read_line(&mut client).unwrap(), client)
    };
    (0..count).map(|_| open()).collect()
}

/// How many of the held connections one backend serves.
fn share(held: &[(String, TcpStream)], name: &str) -> usize {
    held.iter().filter(|(served, _)| served == name).count()
}

// If this fails, a busy backend gets more while others are idle.
#[test]
fn least_connections_fills_the_emptiest() {
    let backends = named(3);
    let proxy = pool_of(&backends)
        .global("workers = 2")
        .pool("balance = \"least-connections\"")
        .backend(3, "weight = 2")
        .start();
    let mut held = hold(proxy.address(), 12);
    assert_eq!(["b1", "b2", "b3"].map(|name| share(&held, name)), [3, 3, 6]);
    held.retain(|(served, _)| served != "b2");
    proxy.wait_for_sessions(9);
    for (served, _) in hold(proxy.address(), 1) {
        assert_eq!(served, "b2");
    }
}

// If this fails, `random-two` serves by the busier of two, or counts only one worker's sessions.
#[test]
fn random_two_serves_by_the_freer() {
    let backends = named(2);
    let proxy = pool_of(&backends)
        .global("workers = 2")
        .pool("balance = \"random-two\"")
        .backend(2, "weight = 2")
        .start();
    // Of two, both are always drawn: nothing is left to chance but ties.
    let held = hold(proxy.address(), 12);
    assert_eq!(["b1", "b2"].map(|name| share(&held, name)), [4, 8]);
}

// If this fails, `random` leaves a backend out, or ignores weights of 0.
#[test]
fn random_reaches_every_backend_with_a_weight() {
    let backends = named(3);
    let proxy = pool_of(&backends).pool("balance = \"random\"").backend(2, "weight = 0").start();
    let seen: BTreeSet<String> = turns(&proxy, 60).into_iter().collect();
    // Sixty draws that all miss one of two: once in 2^59 runs.
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), ["b1", "b3"]);
}

// If this fails, a server further down is used while one before it has room.
#[test]
fn first_fills_one_server_before_the_next() {
    let backends = named(3);
    let proxy = pool_of(&backends)
        .pool("balance = \"first\"")
        .backend(1, "max_sessions = 2")
        .backend(2, "max_sessions = 1")
        .start();
    let mut held = hold(proxy.address(), 4);
    let served: Vec<&str> = held.iter().map(|(served, _)| served.as_str()).collect();
    assert_eq!(served, ["b1", "b1", "b2", "b3"]);
    held.remove(0);
    proxy.wait_for_sessions(3);
    assert_eq!(turns(&proxy, 1), ["b1"], "the first has room again");
}

// If this fails, a backup serves while it should not, or does not when it must.
#[test]
fn a_backup_serves_only_when_no_primary_can() {
    let backends = [Backend::named("b1"), Backend::refusing(), Backend::named("spare")];
    let proxy = pool_of(&backends)
        .pool("balance = \"round-robin\"")
        .backend(1, "max_sessions = 1")
        .backend(3, "backup = true")
        .start();
    for _ in 0..4 {
        assert_eq!(turns(&proxy, 1), ["b1"]);
        // Its only place is free again.
        proxy.wait_for_sessions(0);
    }
    let held = hold(proxy.address(), 1);
    // The first is full and the second refuses: a retry reaches the backup.
    assert_eq!(turns(&proxy, 2), ["spare"; 2]);
    drop(held);
    proxy.wait_for_sessions(0);
    proxy.tell("back/b1", "drain");
    proxy.tell("back/b2", "maint");
    assert_eq!(turns(&proxy, 2), ["spare"; 2]);
    proxy.tell("back/b1", "ready");
    assert_eq!(turns(&proxy, 1), ["b1"]);
}

// If this fails, a backend is given more sessions than it can bear, or fewer than it may have.
#[test]
fn max_sessions_of_a_backend_is_exact() {
    let backends = named(1);
    let proxy = pool_of(&backends).global("workers = 2").backend(1, "max_sessions = 10").start();
    let (address, start) = (proxy.address(), Arc::new(Barrier::new(32)));
    let racing: Vec<_> = (0..32)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                let mut client = try_connect(address).ok()?;
                read_line(&mut client).ok().filter(|line| !line.is_empty()).map(|_| client)
            })
        })
        .collect();
    let served: Vec<_> = racing.into_iter().filter_map(|one| one.join().unwrap()).collect();
    assert_eq!(served.len(), 10);
    assert_eq!(proxy.backend("back", "b1").sessions, 10);
    assert!(is_turned_away(address));
    proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", "no_backend")], 23.0);
    drop(served);
    proxy.wait_for_sessions(0);
    assert_eq!(hold(address, 10).len(), 10);
}

// If this fails, a drained backend gets new sessions, or its old ones are cut.
#[test]
fn a_drained_backend_keeps_its_sessions() {
    let backends = [Backend::echo()];
    let proxy = pool_of(&backends).start();
    let mut client = connect(proxy.address());
    proxy.wait_for_sessions(1);
    for verb in ["drain", "maint"] {
        proxy.tell("back/b1", verb);
        assert!(is_turned_away(proxy.address()));
        std::io::Write::write_all(&mut client, b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(proxy.ask("POST", "/v1/backends/back/b9/drain", "").code, 404);
    assert_eq!(proxy.ask("POST", "/v1/backends/none/b1/drain", "").code, 404);
    assert_eq!(proxy.ask("POST", "/v1/backends/back/b1/weight", "{\"weight\": 70000}").code, 400);
}

// If this fails, a client is turned away though another backend would have served it.
#[test]
fn a_refused_connection_is_tried_elsewhere() {
    let backends = [Backend::refusing(), Backend::refusing(), Backend::named("b3")];
    let proxy = pool_of(&backends).start();
    for client in clients(20) {
        assert_eq!(served_from(client, proxy.address()), "b3");
    }
    assert_eq!(backends[2].accepted(), 20);
    let failures = [("backend", "b1"), ("reason", "refused")];
    assert!(proxy.metric("evenkeel_backend_connect_failures_total", &failures) > 0.5);
}

// If this fails, a client costs more attempts than configured, or is given up too early.
#[test]
fn retries_are_bounded() {
    for retries in 0..4_u8 {
        let backends = [Backend::refusing(), Backend::refusing()];
        let proxy = pool_of(&backends).pool(&format!("retries = {retries}")).start();
        assert!(is_turned_away(proxy.address()));
        let wanted = f64::from(retries) + 1.0;
        proxy.wait_for_metric("evenkeel_backend_connect_failures_total", &[], wanted);
        let metrics = proxy.metrics();
        for backend in ["b1", "b2"] {
            let labels = [("backend", backend)];
            let tried = metrics.sum("evenkeel_backend_connect_failures_total", &labels);
            assert!(retries == 0 || tried > 0.5, "{backend} was never tried");
        }
    }
}

// If this fails, a backend that does not answer costs its clients the session.
#[test]
fn a_connect_that_takes_too_long_is_tried_elsewhere() {
    let backends = [Backend::unanswering(), Backend::named("b2")];
    let proxy =
        pool_of(&backends).pool("balance = \"round-robin\"\nconnect_timeout = \"150ms\"").start();
    assert_eq!(turns(&proxy, 2), ["b2"; 2]);
    let labels = [("backend", "b1"), ("reason", "timeout")];
    assert!(proxy.metric("evenkeel_backend_connect_failures_total", &labels) > 0.5);
}

// If this fails, clients hang when no backend can serve them.
#[test]
fn a_pool_that_cannot_serve_says_so_at_once() {
    let backends = named(2);
    let proxy = pool_of(&backends).start();
    proxy.tell("back/b1", "maint");
    proxy.tell("back/b2", "drain");
    let asked = Instant::now();
    assert!(is_turned_away(proxy.address()));
    assert!(asked.elapsed() < PATIENCE);
    proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", "no_backend")], 1.0);
    assert!(!proxy.status().ready);
    proxy.tell("back/b2", "ready");
    eventually("it is ready again", PATIENCE, || proxy.status().ready.then_some(()));
    assert_eq!(served_by(proxy.address()).unwrap(), "b2");
}

// If this fails, every worker sends its first client after a reload to the same backend.
#[test]
fn round_robin_begins_elsewhere_after_each_reload() {
    let backends = [Backend::named("one"), Backend::named("two"), Backend::named("three")];
    let [one, two, three] = &backends;
    let setup = Setup::of(&[one, two, three]).pool("balance = \"round-robin\"");
    let proxy = setup.clone().global("workers = 1").start();
    let mut first: Vec<String> = (1..=3)
        .map(|minutes| {
            let idle = format!("idle_timeout = \"{minutes}m\"");
            proxy.reload_with(&setup.clone().global("workers = 1").listener(&idle).text());
            served_by(proxy.address()).unwrap()
        })
        .collect();
    first.sort();
    assert_eq!(first, ["one", "three", "two"]);
}

// If this fails, clients are turned away while their only server restarts.
#[test]
fn a_server_that_restarts_is_tried_again_later() {
    let address = free_address();
    let gone = Backend::refusing();
    let config = Setup::of(&[&gone]).pool("retry_delay = \"200ms\"\nretries = 100").text();
    let proxy = Proxy::start(&config.replace(&gone.address().to_string(), &address.to_string()));
    let mut client = connect(proxy.address());
    eventually("an attempt has failed", PATIENCE, || {
        let failed = proxy.metric("evenkeel_backend_connect_failures_total", &[]);
        (failed > 0.5).then_some(())
    });
    let _server = Backend::named_at("back again", address);
    assert_eq!(read_line(&mut client).unwrap(), "back again");
}

// If this fails, clients wait for a server that is down although another is up.
#[test]
fn another_server_is_tried_at_once() {
    let (down, up) = (Backend::refusing(), Backend::named("up"));
    let pool = "balance = \"first\"\nconnect_timeout = \"1m\"\nretry_delay = \"1m\"";
    let proxy = Setup::of(&[&down, &up]).pool(pool).start();
    assert_eq!(served_by(proxy.address()).unwrap(), "up");
}
