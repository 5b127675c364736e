//! What systemd is told and what it hands over, with a socket of the test's own in its place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::process::Signal;
use support::systemd::{activated, notifying};
use support::unix::{connect_unix, line_of, visit_unix};
use support::{Backend, PATIENCE, Proxy, connect, eventually, read_line};
use tempfile::TempDir;

fn has_status(lines: &[String]) -> bool {
    lines.iter().any(|line| line.len() > 7 && line.starts_with("STATUS="))
}

fn config(bind: SocketAddr, backend: &Backend) -> String {
    format!(
        "[listener.web]\nbind = [\"{bind}\"]\npool = \"p\"\n[pool.p]\nbackends = [\"{}\"]\n",
        backend.address()
    )
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// If it fails, `systemctl start` returns before connections are accepted, or never.
#[test]
fn ready_comes_once_connections_are_accepted() {
    let backend = Backend::named("one");
    let (mut proxy, notifications) = notifying(&config(any_port(), &backend), &[]);
    let lines = notifications.next();
    assert!(lines.contains(&"READY=1".into()), "first of all: {lines:?}");
    assert!(has_status(&lines), "{lines:?}");
    proxy.wait_until_serving();
    assert_eq!(read_line(&mut connect(proxy.address())).unwrap(), "one");
}

/// If it fails, systemd believes in a service that could not listen, or does not try again.
#[test]
fn no_ready_when_the_address_is_taken() {
    let taken = TcpListener::bind(any_port()).unwrap();
    let backend = Backend::named("one");
    let config = config(taken.local_addr().unwrap(), &backend);
    let (mut proxy, notifications) = notifying(&config, &[]);
    assert_eq!(proxy.wait_for_exit().code(), Some(1), "{}", proxy.said());
    notifications.0.set_nonblocking(true).unwrap();
    assert!(notifications.0.recv(&mut [0; 64]).is_err(), "something was notified");
}

/// If it fails, `systemctl reload` of a `Type=notify-reload` unit hangs or returns too early.
#[test]
fn a_reload_is_bracketed() {
    let backend = Backend::named("one");
    let (proxy, notifications) = notifying(&config(any_port(), &backend), &[]);
    notifications.wait_for("READY=1");
    proxy.signal(Signal::HUP);
    let lines = notifications.wait_for("RELOADING=1");
    let stamp = lines.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(stamp.is_some_and(|stamp| stamp.parse::<u64>().unwrap() > 0), "{lines:?}");
    assert!(has_status(&notifications.wait_for("READY=1")));
    // A file that is refused ends the reload as well.
    proxy.rewrite("nonsense = 1");
    proxy.signal(Signal::HUP);
    notifications.wait_for("RELOADING=1");
    notifications.wait_for("READY=1");
}

/// If it fails, systemd shows a stopping service as running.
#[test]
fn stopping_is_told() {
    let backend = Backend::named("one");
    let (mut proxy, notifications) = notifying(&config(any_port(), &backend), &[]);
    notifications.wait_for("READY=1");
    proxy.signal(Signal::TERM);
    assert!(has_status(&notifications.wait_for("STOPPING=1")));
    assert!(proxy.wait_for_exit().success());
}

/// If it fails, systemd kills a healthy process, or one that hangs goes unnoticed.
#[test]
fn the_watchdog_is_fed() {
    let backend = Backend::named("one");
    // Without WATCHDOG_PID it is meant for any process.
    let watchdog = [("WATCHDOG_USEC", "400000")];
    let (_proxy, notifications) = notifying(&config(any_port(), &backend), &watchdog);
    notifications.wait_for("READY=1");
    let first = std::time::Instant::now();
    for _ in 0..5 {
        notifications.wait_for("WATCHDOG=1");
    }
    // Five in 0.8 to 1.0 s on a quiet machine; each may be a little late on a busy one.
    assert!(first.elapsed() < 5 * std::time::Duration::from_millis(400), "{:?}", first.elapsed());
}

/// If it fails, a child of another service feeds that service's watchdog.
#[test]
fn a_watchdog_for_another_process_is_left_alone() {
    let backend = Backend::named("one");
    let watchdog = [("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    let (proxy, notifications) = notifying(&config(any_port(), &backend), &watchdog);
    notifications.wait_for("READY=1");
    // Some turns of the loop later, each a chance to feed it.
    for _ in 0..3 {
        proxy.signal(Signal::HUP);
        loop {
            let lines = notifications.next();
            assert!(!lines.contains(&"WATCHDOG=1".into()), "{lines:?}");
            if lines.contains(&"READY=1".into()) {
                break;
            }
        }
    }
}

/// If it fails, connections made before the start are refused, or the address is in use.
#[test]
fn an_inherited_socket_is_served() {
    let listener = TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Backend::named("one");
    // In the queue before the process exists.
    let mut early = connect(address);
    let mut proxy = activated(&config(address, &backend), listener.into(), "listener.web");
    proxy.wait_until_serving();
    assert_eq!(proxy.addresses(), [address]);
    assert_eq!(read_line(&mut early).unwrap(), "one");
    for _ in 0..20 {
        assert_eq!(read_line(&mut connect(address)).unwrap(), "one");
    }
    drop(early);
    assert!(proxy.stop().success(), "{}", proxy.said());
}

/// If it fails, a Unix socket of a socket unit is taken for another's, or taken away from it.
#[test]
fn an_inherited_unix_socket_is_served_and_left() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("front.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let backend = Backend::named("one");
    let text = format!(
        "[global]\nworkers = 3\n[listener.web]\nbind = [\"unix:{}\"]\npool = \"p\"\n\
         [pool.p]\nbackends = [\"{}\"]\n",
        path.display(),
        backend.address()
    );
    let mut early = connect_unix(&path);
    let systemds = listener.try_clone().unwrap();
    let mut proxy = activated(&text, listener.into(), "listener.web");
    proxy.wait_until_serving();
    assert_eq!(line_of(&mut early).unwrap(), "one");
    (0..20).for_each(|_| assert_eq!(visit_unix(&path), "one"));
    drop(early);
    assert!(proxy.stop().success(), "{}", proxy.said());
    // systemd still has the socket: clients wait there for the next start.
    let mut waiting = connect_unix(&path);
    drop(proxy);
    let mut proxy = activated(&text, systemds.into(), "listener.web");
    proxy.wait_until_serving();
    assert_eq!(line_of(&mut waiting).unwrap(), "one");
}

/// If it fails, a socket unit that does not match the configuration goes unnoticed.
#[test]
fn an_inherited_socket_that_no_listener_wants_is_named() {
    let listener = TcpListener::bind(any_port()).unwrap();
    let unwanted = listener.local_addr().unwrap();
    let backend = Backend::named("one");
    let mut proxy = activated(&config(any_port(), &backend), listener.into(), "listener.other");
    proxy.wait_until_serving();
    let line = proxy.wait_for_line("no listener wants it");
    assert!(line.contains("listener.other") && line.contains(&unwanted.to_string()), "{line}");
    assert_eq!(read_line(&mut connect(proxy.address())).unwrap(), "one");
    // Closed, not kept: no worker would ever accept from it.
    eventually("the unwanted socket is closed", PATIENCE, || TcpStream::connect(unwanted).err());
}

/// If it fails, a descriptor meant for the parent is taken from whatever is open as 3.
#[test]
fn sockets_for_another_process_are_left_alone() {
    let backend = Backend::named("one");
    let (directory, mut command): (TempDir, Command) =
        Proxy::command(&config(any_port(), &backend));
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let mut proxy = Proxy::spawn(directory, command);
    proxy.wait_until_serving();
    let mut stream = connect(proxy.address());
    assert_eq!(read_line(&mut stream).unwrap(), "one");
    stream.write_all(b"ping\n").unwrap();
    assert_eq!(read_line(&mut stream).unwrap(), "ping");
}

/// If it fails, a socket from which accept(2) fails keeps a worker busy, or others from being
/// accepted, or the log is full of it.
#[test]
fn a_socket_that_cannot_accept_is_left_alone_and_told_once() {
    let listener = TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    let systemds = listener.try_clone().unwrap();
    let backend = Backend::named("one");
    let other = "[listener.other]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n";
    let config = format!("{}{other}", config(address, &backend));
    let mut proxy = activated(&config, listener.into(), "listener.web");
    proxy.wait_until_serving();
    assert_eq!(read_line(&mut connect(address)).unwrap(), "one");
    let errors = || proxy.metric("evenkeel_accept_errors_total", &[("listener", "web")]);
    // The socket listens no more, and accept(2) says EINVAL.
    rustix::net::shutdown(&systemds, rustix::net::Shutdown::Read).unwrap();
    let line = proxy.wait_for_line("cannot accept");
    assert!(line.contains("listener web") && line.contains("Invalid argument"), "{line}");
    let (before, ticks) = (errors(), proxy.cpu_ticks());
    eventually("it is tried again", PATIENCE, || (errors() > before + 2.5).then_some(()));
    assert_eq!(read_line(&mut connect(proxy.addresses()[1])).unwrap(), "one");
    let tried = errors() - before;
    let used = proxy.cpu_ticks() - ticks;
    assert!(tried < 50.0 && used < 100, "{tried} times, {used} hundredths of a second");
    rustix::net::listen(&systemds, 16).unwrap();
    proxy.wait_for_line("listener web: all of its sockets accept again");
    // The kernel has chosen a port anew.
    let address = systemds.local_addr().unwrap();
    assert_eq!(read_line(&mut connect(address)).unwrap(), "one");
    assert_eq!(proxy.said().matches("cannot accept").count(), 1, "{}", proxy.said());
}
