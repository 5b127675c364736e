//! A hundred reloads, and a stop, while clients come as fast as they can: none is refused, reset
//! or left waiting, long sessions go on, and nothing is left open.
//!
//! A reload comes after a number of further clients, so the test is as strict on a slow machine:
//! about a hundred connections meet each. The negative control, `tests/controls/bind_anew.patch`,
//! opens the listening sockets anew at each reload.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::Signal;
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, stream, try_connect, within};

const RELOADS: u64 = 100;
/// Clients between two reloads, at least.
const CLIENTS_A_RELOAD: u64 = 100;
/// Clients at once.
const AT_ONCE: usize = 32;
/// Connections a client opens before it says a word on any: so some wait to be accepted, however
/// few cores the clients have.
const BURST: usize = 8;
const WORD_BYTES: usize = 500;
/// What the long session says at once: enough to be spliced now and then.
const LONG_WORD_BYTES: usize = 64 * 1024;
const GLOBAL: &str = "workers = 2\nlog = { sessions = 'none' }";

/// Ends the clients, even when the test has failed: the scope waits for them.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What became of the clients.
#[derive(Debug, Default)]
struct Tally {
    stopping: AtomicBool,
    served: AtomicU64,
    failures: Mutex<Vec<Error>>,
}

impl Tally {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Clients that have come and gone, served or not.
    fn visits(&self) -> u64 {
        self.served.load(Ordering::SeqCst) + self.failures.lock().len() as u64
    }

    /// New clients, one after the other, until told to stop.
    fn visit(&self, address: SocketAddr, first_key: u64) {
        for key in (first_key..).step_by(AT_ONCE) {
            if self.is_stopping() {
                return;
            }
            let burst: Vec<_> = (0..BURST).map(|_| try_connect(address)).collect();
            for client in burst {
                match client.and_then(|client| converse(client, key)) {
                    Ok(()) => drop(self.served.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => self.failures.lock().push(error),
                }
            }
        }
    }

    /// New clients, one after the other, until one is not served.
    fn visit_while_served(&self, address: SocketAddr) {
        let failure = (0..).find_map(|key| {
            let outcome = exchange(address, key);
            self.served.fetch_add(u64::from(outcome.is_ok()), Ordering::SeqCst);
            outcome.err()
        });
        self.failures.lock().extend(failure);
    }

    /// One session that says something now and then, and ends when told to stop.
    fn stay(&self, address: SocketAddr) {
        let mut client = connect(address);
        let word = stream::bytes(u64::MAX, LONG_WORD_BYTES);
        let mut heard = vec![0; LONG_WORD_BYTES];
        while !self.is_stopping() {
            client.write_all(&word).unwrap();
            client.read_exact(&mut heard).unwrap();
            assert!(heard == word, "wrong bytes");
            // It is there to be cut, not to take a core.
            within(Duration::from_millis(10), || self.is_stopping().then_some(()));
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut heard).unwrap(), 0);
    }
}

/// One client, from its connect to its end.
fn exchange(address: SocketAddr, key: u64) -> std::io::Result<()> {
    converse(try_connect(address)?, key)
}

/// One client, from its first word to its end.
fn converse(mut client: TcpStream, key: u64) -> std::io::Result<()> {
    let word = stream::bytes(key, WORD_BYTES);
    client.write_all(&word)?;
    client.shutdown(Shutdown::Write)?;
    let mut heard = Vec::new();
    client.read_to_end(&mut heard)?;
    if heard == word { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

/// What is reloaded in turn: another pool, another listener beside, other options of the one that
/// stays, and a file with a mistake.
fn texts(backends: &[Backend; 2]) -> Vec<(String, u16)> {
    let one = Setup::of(&[&backends[0]]).global(GLOBAL);
    let two = Setup::of(&[&backends[1], &backends[0]]).global(GLOBAL);
    let beside =
        format!("{}[listener.side]\nbind = [\"127.0.0.2:0\"]\npool = \"back\"\n", two.text());
    let retuned = two.clone().listener("backlog = 1000\nidle_timeout = \"5m\"");
    let mistaken = one.text().replace("workers", "wrokers");
    vec![(beside, 200), (one.text(), 200), (mistaken, 422), (retuned.text(), 200)]
}

/// Reloads under load; failures, after everything is given back.
fn reload_under_load(backends: &[Backend; 2], proxy: &Proxy) -> Vec<Error> {
    let address = proxy.address();
    exchange(address, u64::MAX).unwrap();
    let before = proxy.descriptors();
    let tally = Tally::default();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let stopper = Stopper(&tally.stopping);
        let long = scope.spawn(|| tally.stay(address));
        for first_key in (0..).take(AT_ONCE) {
            let tally = &tally;
            scope.spawn(move || tally.visit(address, first_key));
        }
        let texts = texts(backends);
        for (turn, (text, code)) in (1..=RELOADS).zip(texts.iter().cycle()) {
            eventually("clients come", PATIENCE, || {
                (tally.visits() >= turn * CLIENTS_A_RELOAD).then_some(())
            });
            proxy.rewrite(text);
            let answer = proxy.ask("POST", "/v1/reload", "");
            assert_eq!(answer.code, *code, "{}", answer.body);
        }
        drop(stopper);
        long.join().unwrap();
    });
    let served = tally.served.load(Ordering::SeqCst);
    let rate = served as f64 / started.elapsed().as_secs_f64();
    let failures = tally.failures.into_inner();
    println!(
        "{RELOADS} reloads under {rate:.0} new connections a second; {served} served, {} failures",
        failures.len()
    );
    proxy.wait_for_sessions(0);
    // An idle pipe or two may be kept.
    eventually("descriptors are given back", PATIENCE, || {
        (proxy.descriptors() <= before + 4).then_some(())
    });
    failures
}

// If this fails, clients are refused or cut off while an operator reloads, or descriptors leak.
#[test]
fn a_hundred_reloads_lose_no_client() {
    let backends = [Backend::echo(), Backend::echo()];
    let proxy = Setup::of(&[&backends[0]]).global(GLOBAL).start();
    let failures = reload_under_load(&backends, &proxy);
    assert!(failures.is_empty(), "{failures:#?}");
    for (name, labels) in [
        ("evenkeel_listener_refused_total", &[][..]),
        ("evenkeel_sessions_closed_total", &[("reason", "internal")][..]),
    ] {
        let counted = proxy.metrics().sum(name, labels);
        assert!(support::admin::is_same(counted, 0.0), "{name} is {counted}");
    }
}

// If this fails, a stop cuts clients off that evenkeel has accepted, or leaves them waiting.
#[test]
fn a_stop_under_load_cuts_no_session() {
    let backend = Backend::echo();
    let mut proxy = Setup::of(&[&backend]).global("workers = 2").start();
    let (address, tally) = (proxy.address(), Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| tally.visit_while_served(address));
        }
        eventually("clients come", PATIENCE, || (tally.visits() > 1000).then_some(()));
        proxy.signal(Signal::TERM);
    });
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
    // A client that came as the port was closed is refused, or reset without having been accepted;
    // a shutdown after such a reset finds nothing connected.
    let told = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::NotConnected];
    let failures = tally.failures.into_inner();
    let is_told = |kind| told.contains(&kind);
    assert!(failures.iter().all(|error| is_told(error.kind())), "{failures:#?}");
    let lines = proxy.session_lines();
    let whole = lines.iter().filter(|line| line["bytes_to_client"] == WORD_BYTES);
    assert_eq!(whole.count(), lines.len(), "{:#?}", lines.last());
    assert_eq!(lines.len() as u64, tally.served.into_inner());
}
