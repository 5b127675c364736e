//! From where backends are connected: the sources of a pool, in turn and counted.
//!
//! Every address of 127.0.0.0/8 is one of this host. What needs more than that, ports that run out
//! and clients' own addresses, is in `netns/origins.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use support::admin::is_same;
use support::unix::{connect_unix, try_connect_unix};
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, read_all, read_line, reset_when_dropped,
    served_by, try_connect, visit,
};

/// Kept for documentation (RFC 5737): no host has it.
const ELSEWHERE: &str = "192.0.2.77";

/// A session that is open, and the address that its backend saw.
fn open(proxy: &Proxy) -> (TcpStream, String) {
    let mut client = connect(proxy.address());
    let seen = read_line(&mut client).unwrap();
    (client, seen)
}

/// Ends a session as a client does that has heard all.
fn end(mut client: TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&mut client).unwrap();
}

fn ports(proxy: &Proxy, source: &str) -> f64 {
    proxy.metric("evenkeel_source_ports_in_use", &[("source", source)])
}

fn spills(proxy: &Proxy, source: &str, reason: &str) -> f64 {
    proxy.metric("evenkeel_source_spills_total", &[("source", source), ("reason", reason)])
}

#[track_caller]
fn wait_for_ports(proxy: &Proxy, source: &str, wanted: f64) {
    proxy.wait_for_metric("evenkeel_source_ports_in_use", &[("source", source)], wanted);
}

// If this fails, one source is used up while others are idle, or the metrics tell of other ports
// than backends see.
#[test]
fn sources_have_their_turns_and_are_counted() {
    let backend = Backend::telling();
    let sources = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
    let proxy = Setup::of(&[&backend]).pool(&format!("source = {sources:?}")).start();
    let series = ["evenkeel_source_ports_in_use", "evenkeel_source_spills_total"];
    for name in series {
        assert!(proxy.metrics().count(name, &[]) >= 3, "{name} begins with the first session");
        assert!(is_same(proxy.metric(name, &[]), 0.0), "{name}");
    }
    let mut clients: Vec<_> = (0..9).map(|_| open(&proxy)).collect();
    let seen: Vec<&str> = clients.iter().map(|(_, seen)| seen.as_str()).collect();
    assert_eq!(seen, sources.repeat(3));
    for source in sources {
        assert!(is_same(ports(&proxy, source), 3.0), "{source}: {}", ports(&proxy, source));
    }
    let shown = proxy.backend("back", "b1").sources;
    let shown: Vec<u64> = shown.values().map(|source| source.ports_in_use).collect();
    assert_eq!(shown, [3, 3, 3]);
    let (first, seen) = clients.remove(0);
    end(first);
    wait_for_ports(&proxy, &seen, 2.0);
    clients.into_iter().for_each(|(client, _)| end(client));
    for source in sources {
        wait_for_ports(&proxy, source, 0.0);
    }
    assert!(is_same(proxy.metric(series[1], &[]), 0.0), "nothing was spilled");
}

/// A client that ends in one of several ways; it may be reset before.
fn come_and_go(address: SocketAddr, turn: usize) {
    let Ok(mut client) = try_connect(address) else { return };
    if turn.is_multiple_of(3) {
        reset_when_dropped(&client);
    }
    let _reset = client.write_all(b"x");
    if turn.is_multiple_of(2) {
        let _heard = read_line(&mut client);
    }
}

// If this fails, a port is lost, or given back twice, with each session that ends in some other way
// than a good one.
#[test]
fn every_end_gives_its_port_back() {
    let (telling, resetting) = (Backend::telling(), Backend::resetting());
    let (refusing, unanswering) = (Backend::refusing(), Backend::unanswering());
    let backends = [&telling, &resetting, &refusing, &unanswering];
    let pool = "source = [\"127.0.0.2\", \"127.0.0.3\"]\nbalance = \"random\"\n\
                connect_timeout = \"50ms\"\nretries = 1";
    let proxy = Setup::of(&backends).global("workers = 2").pool(pool).start();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let address = proxy.address();
            scope.spawn(move || (0..40).for_each(|turn| come_and_go(address, turn + number)));
        }
    });
    proxy.wait_for_sessions(0);
    for source in ["127.0.0.2", "127.0.0.3"] {
        wait_for_ports(&proxy, source, 0.0);
    }
    let failures = proxy.metric("evenkeel_backend_connect_failures_total", &[]);
    let served = proxy.metric("evenkeel_backend_sessions_total", &[]);
    assert!(failures > 10.0 && served > 10.0, "{failures} failures, {served} served");
}

// If this fails, an address that a host has lost, or does not have yet, takes sessions down that
// another one could carry.
#[test]
fn a_source_that_is_not_there_is_passed_over() {
    let backend = Backend::telling();
    let pool = format!("source = [\"{ELSEWHERE}\", \"127.0.0.2\"]");
    let proxy = Setup::of(&[&backend]).pool(&pool).start();
    proxy.wait_for_line(&format!("source {ELSEWHERE} is no address of this host"));
    for _ in 0..10 {
        assert_eq!(served_by(proxy.address()).unwrap(), "127.0.0.2");
    }
    assert!(spills(&proxy, ELSEWHERE, "no_address") > 0.5);
    assert!(is_same(ports(&proxy, ELSEWHERE), 0.0));
    assert!(is_same(proxy.metric("evenkeel_backend_connect_failures_total", &[]), 0.0));
    proxy.wait_for_line("is connected from others");
}

// If this fails, backends are blamed, and left out, for an address that evenkeel's own host lacks.
#[test]
fn a_host_without_any_source_blames_no_backend() {
    let backend = Backend::telling();
    let proxy = Setup::of(&[&backend])
        .pool(&format!("source = [\"{ELSEWHERE}\"]\nretries = 0"))
        .also("[pool.back.outlier]\nconsecutive_failures = 1\nmax_ejected = \"100%\"")
        .start();
    for _ in 0..3 {
        assert_eq!(visit(proxy.address()), "");
    }
    let labels = [("reason", "no_source")];
    proxy.wait_for_metric("evenkeel_backend_connect_failures_total", &labels, 3.0);
    proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", "no_backend")], 3.0);
    // A word of the watcher, which looks less often than the outlier detector.
    proxy.wait_for_line("is connected from others");
    assert!(is_same(proxy.metric("evenkeel_backend_ejections_total", &[]), 0.0));
    assert_eq!(backend.accepted(), 0);
    // Once the file names one that is there, all is well.
    proxy.reload_with(&Setup::of(&[&backend]).pool("source = [\"127.0.0.2\"]").text());
    assert_eq!(served_by(proxy.address()).unwrap(), "127.0.0.2");
}

// If this fails, a reload forgets ports of sessions that go on, or counts them for ever.
#[test]
fn sources_come_and_go_under_sessions() {
    let backend = Backend::telling();
    let with =
        |sources: &[&str]| Setup::of(&[&backend]).pool(&format!("source = {sources:?}")).text();
    let proxy = Proxy::start(&with(&["127.0.0.2"]));
    let (first, seen) = open(&proxy);
    assert_eq!(seen, "127.0.0.2");
    proxy.reload_with(&with(&["127.0.0.2", "127.0.0.3"]));
    assert!(is_same(ports(&proxy, "127.0.0.2"), 1.0));
    let (second, seen) = open(&proxy);
    let (third, other) = open(&proxy);
    let mut both = [seen, other];
    both.sort();
    assert_eq!(both, ["127.0.0.2", "127.0.0.3"]);
    // Out of the file it is shown no more; its sessions go on, counted.
    let said = proxy.reload_with(&with(&["127.0.0.3"]));
    assert!(said.contains("pool back: source = "), "{said}");
    let name = "evenkeel_source_ports_in_use";
    assert_eq!(proxy.metrics().count(name, &[("source", "127.0.0.2")]), 0);
    for _ in 0..3 {
        assert_eq!(served_by(proxy.address()).unwrap(), "127.0.0.3");
    }
    // Without any the kernel chooses.
    proxy.reload_with(&Setup::of(&[&backend]).text());
    assert_eq!(served_by(proxy.address()).unwrap(), "127.0.0.1");
    proxy.reload_with(&with(&["127.0.0.2", "127.0.0.3"]));
    wait_for_ports(&proxy, "127.0.0.2", 2.0);
    wait_for_ports(&proxy, "127.0.0.3", 1.0);
    for client in [first, second, third] {
        end(client);
    }
    wait_for_ports(&proxy, "127.0.0.2", 0.0);
    wait_for_ports(&proxy, "127.0.0.3", 0.0);
}

// If this fails, two pools with the same backend and the same source both believe that they have
// all of its ports.
#[test]
fn pools_share_the_ports_between_the_same_two_addresses() {
    let backend = Backend::telling();
    let side = format!(
        "[listener.side]\nbind = [\"127.0.0.1:0\"]\npool = \"side\"\n[pool.side]\n\
         backends = [\"{}\"]\nsource = [\"127.0.0.2\"]",
        backend.address()
    );
    let proxy = Setup::of(&[&backend]).pool("source = [\"127.0.0.2\"]").also(&side).start();
    let clients: Vec<TcpStream> =
        proxy.addresses().iter().map(|address| connect(*address)).collect();
    for pool in ["back", "side"] {
        let labels = [("pool", pool), ("source", "127.0.0.2")];
        proxy.wait_for_metric("evenkeel_source_ports_in_use", &labels, 2.0);
    }
    drop(clients);
    wait_for_ports(&proxy, "127.0.0.2", 0.0);
}

// If this fails, a firewall that lets only the sources through has every backend found down, or
// probes take the turns of sessions.
#[test]
fn probes_come_from_the_first_source() {
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let kept = Arc::clone(&seen);
    let backend = Backend::serving(move |stream, _| {
        kept.lock().push(stream.peer_addr()?.ip().to_string());
        Ok(())
    });
    let proxy = Setup::of(&[&backend])
        .pool(&format!("source = [\"{ELSEWHERE}\", \"127.0.0.8\", \"127.0.0.9\"]"))
        .also("[pool.back.health]\ninterval = \"100ms\"\nfast_interval = \"100ms\"")
        .start();
    eventually("three probes", PATIENCE, || {
        (proxy.metric("evenkeel_backend_probes_total", &[("result", "pass")]) > 2.5).then_some(())
    });
    assert!(seen.lock().iter().all(|from| from == "127.0.0.8"), "{:?}", seen.lock());
    assert!(is_same(proxy.metric("evenkeel_backend_probes_total", &[("result", "fail")]), 0.0));
}

// If this fails, a backend that is promised its clients' addresses is shown another, or clients are
// refused without a reason that an operator could find.
#[test]
fn a_transparent_pool_takes_no_client_whose_address_it_cannot_take() {
    let backend = Backend::telling();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let bind = format!("bind = [\"[::1]:0\", \"unix:{}\"]", path.display());
    let proxy = Setup::of(&[&backend])
        .listener(&bind)
        .pool("transparent = true\nretries = 0")
        .also("[pool.back.outlier]\nconsecutive_failures = 1\nmax_ejected = \"100%\"")
        .start();
    let mut refused = connect_unix(&path);
    let _reset = std::io::Read::read(&mut refused, &mut [0]);
    let _gone = try_connect_unix(&path);
    assert_eq!(visit(proxy.address()), "");
    eventually("both families are counted", PATIENCE, || {
        let labels = [("reason", "no_source")];
        let counted = proxy.metric("evenkeel_backend_connect_failures_total", &labels);
        (counted > 1.5).then_some(())
    });
    assert_eq!(backend.accepted(), 0);
    assert!(is_same(proxy.metric("evenkeel_backend_ejections_total", &[]), 0.0));
}

// If this fails, `evenkeel check` lets an operator find out from failed sessions that a source is
// not there, or keeps silent about nothing.
#[test]
fn check_names_sources_that_this_host_does_not_have() {
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let with = |sources: &[&str]| {
        format!(
            "[listener.a]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n\
             [pool.p]\nbackends = [\"{to}\"]\nsource = {sources:?}\n"
        )
    };
    let said: BTreeMap<bool, String> = [false, true]
        .into_iter()
        .map(|is_there| {
            let sources = if is_there { ["127.0.0.2"] } else { [ELSEWHERE] };
            let (directory, _) = Proxy::command(&with(&sources));
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"))
                .arg("check")
                .arg("-c")
                .arg(directory.path().join("evenkeel.toml"))
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            (is_there, String::from_utf8_lossy(&output.stderr).into_owned())
        })
        .collect();
    assert!(said[&false].contains("is no address of this host"), "{}", said[&false]);
    assert!(!said[&true].contains("is no address"), "{}", said[&true]);
}
