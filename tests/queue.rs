//! Clients that wait for a place while every backend is full.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use support::admin::is_same;
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, read_line, served_by, try_connect,
};

const WAITING: &str = "evenkeel_pool_waiting";
const REFUSED: (&str, &[(&str, &str)]) =
    ("evenkeel_listener_refused_total", &[("reason", "no_backend")]);

/// One backend with this many places.
fn full_with(places: u32, queue: &str) -> (Setup, Backend) {
    let backend = Backend::named("b1");
    let setup = Setup::of(&[&backend])
        .backend(1, &format!("max_sessions = {places}"))
        .pool(&format!("queue = {{ {queue} }}"));
    (setup, backend)
}

fn served(proxy: &Proxy) -> TcpStream {
    let mut client = connect(proxy.address());
    assert_eq!(read_line(&mut client).unwrap(), "b1");
    client
}

/// Clients that come one after the other and find no place.
fn waiting(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let before = proxy.metric(WAITING, &[]);
    let join = |wanted| {
        let client = connect(proxy.address());
        proxy.wait_for_metric(WAITING, &[], wanted);
        client
    };
    (1..=count).map(|joined| join(before + f64::from(u32::try_from(joined).unwrap()))).collect()
}

/// Whether nothing has come yet.
fn waits(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = client.peek(&mut [0]);
    client.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Whether a new client is turned away, at once or after a while.
fn is_turned_away(proxy: &Proxy) -> bool {
    match try_connect(proxy.address()).and_then(|mut client| client.read(&mut [0])) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

// If this fails, a client is turned away although it may wait, is overtaken by one that came later
// to another worker, or waits although there is a place.
#[test]
fn places_go_to_those_who_have_waited_longest() {
    for workers in [1, 3] {
        let (setup, _backend) = full_with(2, "max = 10, timeout = \"1h\"");
        let proxy = setup.global(&format!("workers = {workers}")).start();
        let mut holders = vec![served(&proxy), served(&proxy)];
        let mut line = waiting(&proxy, 6);
        while !line.is_empty() {
            assert!(line.iter_mut().all(waits));
            drop(holders.remove(0));
            let mut first = line.remove(0);
            assert_eq!(read_line(&mut first).unwrap(), "b1");
            holders.push(first);
        }
        proxy.wait_for_metric(WAITING, &[], 0.0);
        assert_eq!(proxy.backend("back", "b1").sessions, 2);
    }
}

// If this fails, places that become free together serve one client, and the others wait on.
#[test]
fn all_places_that_become_free_are_used() {
    let (setup, _backend) = full_with(5, "max = 10, timeout = \"1h\"");
    let proxy = setup.global("workers = 2").start();
    let holders: Vec<_> = (0..5).map(|_| served(&proxy)).collect();
    let mut line = waiting(&proxy, 8);
    drop(holders);
    for client in &mut line[..5] {
        assert_eq!(read_line(client).unwrap(), "b1");
    }
    proxy.wait_for_metric(WAITING, &[], 3.0);
    assert!(line[5..].iter_mut().all(waits));
}

// If this fails, clients wait for ever, or the log does not say how long they did.
#[test]
fn who_has_waited_too_long_is_turned_away() {
    let (setup, _backend) = full_with(1, "max = 10, timeout = \"200ms\"");
    let proxy = setup.start();
    let holder = served(&proxy);
    assert!(is_turned_away(&proxy));
    proxy.wait_for_metric(REFUSED.0, REFUSED.1, 1.0);
    let lines = proxy.wait_for_session_lines(1);
    assert_eq!(lines[0]["term"], "sQ");
    assert_eq!(lines[0]["reason"], "no place at a backend in time");
    assert!(lines[0]["queue_ms"].as_i64().unwrap() >= 200, "{}", lines[0]);
    proxy.wait_for_metric(WAITING, &[], 0.0);
    let metrics = proxy.metrics();
    assert!(is_same(metrics.sum("evenkeel_pool_waiting_max", &[]), 10.0));
    assert!(is_same(metrics.sum("evenkeel_pool_queue_seconds_count", &[]), 1.0));
    let waited = metrics.sum("evenkeel_pool_queue_seconds_sum", &[]);
    assert!((0.2..10.0).contains(&waited), "{waited}");
    drop(holder);
    proxy.wait_for_sessions(0);
    drop(served(&proxy));
    assert!(proxy.wait_for_session_lines(2)[1]["queue_ms"].is_null());
}

// If this fails, the line grows without a bound, or `queue_ms` is missing for clients that are
// served.
#[test]
fn a_line_has_an_end() {
    let (setup, _backend) = full_with(1, "max = 2, timeout = \"1h\"");
    let proxy = setup.global("workers = 2").start();
    let holder = served(&proxy);
    let mut line = waiting(&proxy, 2);
    assert!(is_turned_away(&proxy));
    proxy.wait_for_metric(REFUSED.0, REFUSED.1, 1.0);
    drop(holder);
    let mut first = line.remove(0);
    assert_eq!(read_line(&mut first).unwrap(), "b1");
    drop(first);
    let lines = proxy.wait_for_session_lines(3);
    assert!(lines.iter().any(|line| !line["queue_ms"].is_null()), "{lines:?}");
}

// If this fails, a place goes to a client that has left, or one that has left is counted for ever.
#[test]
fn a_client_that_goes_away_leaves_the_line() {
    let (setup, backend) = full_with(1, "max = 10, timeout = \"1h\"");
    let proxy = setup.global("workers = 2").start();
    let holder = served(&proxy);
    let mut line = waiting(&proxy, 3);
    let reset = line.remove(0);
    support::reset_when_dropped(&reset);
    drop(reset);
    proxy.wait_for_metric(WAITING, &[], 2.0);
    drop(line.remove(0));
    proxy.wait_for_metric(WAITING, &[], 1.0);
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "client_gone")], 2.0);
    drop(holder);
    assert_eq!(read_line(&mut line[0]).unwrap(), "b1");
    assert_eq!(backend.accepted(), 2);
}

// If this fails, what a client sends while it waits is lost, or its FIN is.
#[test]
fn what_a_waiting_client_sends_arrives() {
    let (setup, _backend) = full_with(1, "max = 10, timeout = \"1h\"");
    let proxy = setup.start();
    for finishes in [false, true] {
        let holder = served(&proxy);
        let mut client = waiting(&proxy, 1).remove(0);
        client.write_all(b"one ").unwrap();
        client.write_all(b"two").unwrap();
        if finishes {
            client.shutdown(Shutdown::Write).unwrap();
        }
        // A turn of the worker later it still waits.
        assert!(waits(&mut client));
        assert_eq!(proxy.sessions(), 2);
        drop(holder);
        assert_eq!(read_line(&mut client).unwrap(), "b1");
        let mut echo = [0; 7];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"one two");
        if finishes {
            assert_eq!(client.read(&mut echo).unwrap(), 0);
        }
        drop(client);
        proxy.wait_for_sessions(0);
    }
}

// If this fails, clients wait for backends that cannot serve at all, or do not see that one can.
#[test]
fn only_full_backends_are_waited_for() {
    let (setup, backend) = full_with(1, "max = 10, timeout = \"1h\"");
    let proxy = setup.start();
    proxy.tell("back/b1", "drain");
    assert!(is_turned_away(&proxy));
    proxy.tell("back/b1", "ready");
    let _holder = served(&proxy);
    let mut line = waiting(&proxy, 2);
    // A reload that makes room calls no client.
    proxy.reload_with(&setup.backend(1, "max_sessions = 2").text());
    assert_eq!(read_line(&mut line[0]).unwrap(), "b1");
    // One that removes the queue refuses the clients in it.
    let without = Setup::of(&[&backend]).backend(1, "max_sessions = 2");
    proxy.reload_with(&without.text());
    assert_eq!(line[1].read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually("no client waits", PATIENCE, || (proxy.sessions() == 2).then_some(()));
    assert!(served_by(proxy.address()).is_err());
}

// If this fails, a stop hangs on clients that wait.
#[test]
fn a_stop_ends_the_line() {
    let (setup, _backend) = full_with(1, "max = 10, timeout = \"1h\"");
    let mut proxy = setup.global("drain_timeout = \"100ms\"").start();
    let _holder = served(&proxy);
    let mut line = waiting(&proxy, 2);
    proxy.signal(rustix::process::Signal::TERM);
    assert!(proxy.wait_for_exit().success());
    for client in &mut line {
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

// If this fails, a reload that gives a pool another name turns away the clients in its line, or
// serves one before another that came earlier.
#[test]
fn a_line_follows_a_pool_that_is_renamed() {
    for (workers, places) in [(1, 1), (2, 8)] {
        let (setup, _backend) = full_with(1, "max = 8, timeout = \"1h\"");
        let setup = setup.global(&format!("workers = {workers}"));
        let proxy = setup.start();
        let _holder = served(&proxy);
        let line = waiting(&proxy, 8);
        let renamed = setup.backend(1, &format!("max_sessions = {places}")).text();
        proxy.reload_with(
            &renamed.replace("\"back\"", "\"new\"").replace("[pool.back]", "[pool.new]"),
        );
        for mut client in line {
            assert_eq!(read_line(&mut client).unwrap(), "b1");
        }
    }
}

// If this fails, one dead backend ends the waiting for the others: clients are turned away at once.
#[test]
fn clients_wait_for_a_full_backend_beside_a_dead_one() {
    let (dead, alive) = (Backend::refusing(), Backend::named("alive"));
    let proxy = Setup::of(&[&dead, &alive])
        .backend(2, "max_sessions = 1")
        .pool("balance = \"round-robin\"\nqueue = { max = 20, timeout = \"1h\" }")
        .start();
    let mut holder = connect(proxy.address());
    assert_eq!(read_line(&mut holder).unwrap(), "alive");
    let line = waiting(&proxy, 12);
    drop(holder);
    for mut client in line {
        assert_eq!(read_line(&mut client).unwrap(), "alive");
    }
    assert!(is_same(proxy.metric(REFUSED.0, REFUSED.1), 0.0));
}

// If this fails, a server whose accept queue is full for a moment loses clients that could wait, or
// is taken for dead.
#[test]
fn a_full_accept_queue_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b.sock");
    let server = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    server.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    // A queue of length 0 holds one.
    server.listen(0).unwrap();
    let first = UnixStream::connect(&path).unwrap();
    let backends = format!("[{{ address = \"unix:{}\", name = \"b1\" }}]", path.display());
    let proxy = Proxy::start(&format!(
        "[global]\nworkers = 1\n[listener.front]\nbind = [\"127.0.0.1:0\"]\npool = \"back\"\n\
         [pool.back]\nbackends = {backends}\nretries = 0\n\
         queue = {{ max = 5, timeout = \"1h\" }}\n[pool.back.outlier]\nconsecutive_failures = 1\n"
    ));
    let mut client = waiting(&proxy, 1).remove(0);
    drop(server.accept().unwrap());
    drop(first);
    let (served, _) = server.accept().unwrap();
    (&served).write_all(b"welcome\n").unwrap();
    assert_eq!(read_line(&mut client).unwrap(), "welcome");
    assert!(is_same(proxy.metric(REFUSED.0, REFUSED.1), 0.0));
    assert!(is_same(proxy.metric("evenkeel_backend_ejections_total", &[]), 0.0));
}

// If this fails, a client that waits for a place learns of a backend that can serve again only when
// it looks by itself, half a second later.
#[test]
fn a_backend_that_serves_again_is_a_place_at_once() {
    let [full, back] = ["full", "back"].map(Backend::named);
    let proxy = Setup::of(&[&full, &back])
        .backend(1, "max_sessions = 1")
        .pool("queue = { max = 10, timeout = \"1h\" }")
        .start();
    proxy.tell("back/b2", "drain");
    let _holder = connect(proxy.address());
    proxy.wait_for_sessions(1);
    let waits: Vec<Duration> = (0..5)
        .map(|_| {
            let mut client = waiting(&proxy, 1).remove(0);
            proxy.tell("back/b2", "ready");
            let since = Instant::now();
            assert_eq!(read_line(&mut client).unwrap(), "back");
            proxy.tell("back/b2", "drain");
            since.elapsed()
        })
        .collect();
    let shortest = waits.iter().min().unwrap();
    assert!(*shortest < Duration::from_millis(200), "{waits:?}");
}
