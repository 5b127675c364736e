//! Stopping in order: connected clients are served to the end, no new client is refused before the
//! listener is closed, and it does end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use rustix::process::Signal;
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, read_all, served_by, stream, try_connect,
};

#[track_caller]
fn assert_alive(client: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn echoing(backend: &Backend, global: &str) -> (Proxy, TcpStream) {
    let proxy = Setup::of(&[backend]).global(global).start();
    let mut client = connect(proxy.address());
    assert_alive(&mut client);
    (proxy, client)
}

// If this fails, a restart cuts long sessions, or the process does not end when they have.
#[test]
fn a_session_is_served_to_its_end() {
    let backend = Backend::echo();
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let (mut proxy, mut client) = echoing(&backend, "workers = 2");
        proxy.signal(signal);
        eventually("the port is closed", PATIENCE, || is_closed(proxy.address()).then_some(()));
        assert!(!proxy.status().ready);
        // Looking at the port has made sessions of its own.
        proxy.wait_for_sessions(1);
        stream::exchange(&mut client, (1, 500_000));
        assert_eq!(proxy.wait_for_exit().code(), Some(0));
        assert!(proxy.session_lines().iter().any(|line| line["bytes_to_client"] == 500_001));
    }
}

// If this fails, clients whose handshake was done when the stop came are reset.
#[test]
fn clients_that_had_connected_are_served() {
    let backend = Backend::echo();
    let mut proxy = Setup::of(&[&backend]).global("workers = 2").start();
    for turn in 0..10 {
        let mut clients: Vec<_> = (0..60).map(|_| connect(proxy.address())).collect();
        proxy.signal(Signal::TERM);
        for (key, client) in (0..).zip(&mut clients) {
            stream::exchange(client, (key, 3000));
        }
        assert_eq!(proxy.wait_for_exit().code(), Some(0), "turn {turn}");
        assert_eq!(proxy.session_lines().len(), 60);
        proxy = Setup::of(&[&backend]).global("workers = 2").start();
    }
}

// If this fails, a session that never ends keeps the process for ever.
#[test]
fn what_is_left_at_drain_timeout_is_reset() {
    let backend = Backend::echo();
    let (mut proxy, mut client) = echoing(&backend, "drain_timeout = \"300ms\"");
    let asked = Instant::now();
    proxy.signal(Signal::TERM);
    proxy.wait_for_line("stopping: 1 session, waiting up to 300ms");
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(asked.elapsed().as_millis() >= 300);
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
    let lines = proxy.session_lines();
    assert_eq!((lines.len(), &lines[0]["term"]), (1, &"KD".into()));
}

// If this fails, an operator in a hurry has to kill the process.
#[test]
fn a_second_signal_stops_at_once() {
    let backend = Backend::echo();
    for global in ["", "shutdown_delay = \"1h\""] {
        let (mut proxy, mut client) = echoing(&backend, global);
        proxy.signal(Signal::TERM);
        proxy.wait_for_line("stopping");
        proxy.signal(Signal::TERM);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(proxy.wait_for_exit().code(), Some(0));
    }
}

// If this fails, a router or Kubernetes is not told in time, and sends clients to a closed port.
#[test]
fn shutdown_delay_is_not_ready_and_still_accepting() {
    let backend = Backend::named("one");
    let mut proxy = Setup::of(&[&backend]).global("shutdown_delay = \"500ms\"").start();
    assert_eq!(proxy.ask("GET", "/readyz", "").code, 200);
    let asked = Instant::now();
    proxy.signal(Signal::TERM);
    let line = proxy.wait_for_line("stopping: ");
    let words = "0 sessions, accepting for 500ms (shutdown_delay), then waiting up to 5m";
    assert!(line.contains(words), "{line}");
    assert_eq!(proxy.ask("GET", "/readyz", "").code, 503);
    assert_eq!(proxy.ask("GET", "/livez", "").code, 200);
    assert_eq!(served_by(proxy.address()).unwrap(), "one");
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
    assert!(asked.elapsed().as_millis() >= 500);
}

// If this fails, a reload during a stop opens the port again, and the process never ends.
#[test]
fn a_stop_is_not_undone_by_a_reload() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]);
    let (mut proxy, mut client) = echoing(&backend, "");
    proxy.signal(Signal::TERM);
    eventually("the port is closed", PATIENCE, || is_closed(proxy.address()).then_some(()));
    proxy.rewrite(&setup.listener("bind = [\"127.0.0.1:0\", \"127.0.0.2:0\"]").text());
    let output = proxy.reload();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_alive(&mut client);
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client).unwrap().is_empty());
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}

// If this fails, clients that wait for a backend at the stop are forgotten.
#[test]
fn a_connect_under_way_is_awaited() {
    let backends = [Backend::unanswering(), Backend::named("b2")];
    let mut proxy = Setup::of(&[&backends[0], &backends[1]])
        .pool("balance = \"round-robin\"\nconnect_timeout = \"300ms\"")
        .start();
    let mut client = try_connect(proxy.address()).unwrap();
    proxy.wait_for_sessions(1);
    proxy.signal(Signal::TERM);
    assert_eq!(support::read_line(&mut client).unwrap(), "b2");
    drop(client);
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}
