//! Many sessions at once, each with its own lengths and its own way to end, drawn from a seed: what
//! arrives is always a beginning of what was sent, and only the whole of it ends cleanly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use parking_lot::Mutex;
use support::stream::{self, is_reset};
use support::{Backend, PATIENCE, Setup, connect, eventually, reset_when_dropped};

/// Sessions of one run, and how many go on at once.
const SESSIONS: u64 = 240;
const AT_ONCE: u64 = 12;

/// What one side does. One that resets sends all it has and reads nothing.
#[derive(Debug, Clone, Copy)]
struct Part {
    key: u64,
    length: u64,
    resets: bool,
}

/// How one side saw the session.
#[derive(Debug)]
struct Seen {
    sent: io::Result<()>,
    received: u64,
    end: io::Result<()>,
}

impl Seen {
    /// It learned that the stream was broken off, reading or writing: the kernel says it once.
    fn was_told(&self) -> bool {
        is_reset(&self.end) || self.sent.is_err()
    }
}

/// The parts of client and backend in session `seed`.
fn parts(seed: u64) -> [Part; 2] {
    let mut draws = fastrand::Rng::with_seed(seed);
    let lengths = [0, 1, 500, 33_000, 66_000, 300_000];
    [0, 1].map(|side| {
        let most = lengths[draws.usize(..lengths.len())];
        Part { key: seed * 2 + side, length: draws.u64(0..=most), resets: draws.u8(0..4) == 0 }
    })
}

/// Sends and receives at once, each to its end.
fn play(stream: TcpStream, own: Part, other: Part) -> Seen {
    let mut sending = stream.try_clone().unwrap();
    let mut reading = stream;
    if own.resets {
        let sent = stream::send(&mut sending, own.key, own.length);
        reset_when_dropped(&sending);
        return Seen { sent, received: 0, end: Ok(()) };
    }
    let sender = std::thread::spawn(move || {
        stream::send(&mut sending, own.key, own.length)?;
        sending.shutdown(Shutdown::Write)
    });
    let (received, end) = stream::receive(&mut reading, other.key);
    Seen { sent: sender.join().unwrap(), received, end }
}

fn check(seed: u64, side: &str, seen: &Seen, [own, other]: [Part; 2]) {
    if own.resets {
        return;
    }
    let told = format!("seed {seed}, {side}: {seen:?}, own {own:?}, other {other:?}");
    if other.resets {
        assert!(seen.received <= other.length, "too much: {told}");
        assert!(seen.was_told(), "a reset was taken for a clean end: {told}");
    } else {
        assert!(seen.end.is_ok(), "a clean end became a failure: {told}");
        assert_eq!(seen.received, other.length, "{told}");
        assert!(seen.sent.is_ok(), "{told}");
    }
}

fn visit(address: SocketAddr, seed: u64) {
    let [own, other] = parts(seed);
    let mut client = connect(address);
    client.write_all(&seed.to_be_bytes()).unwrap();
    // A client that breaks off at once might otherwise be gone before it has a backend.
    client.read_exact(&mut [0]).unwrap();
    let seen = play(client, own, other);
    check(seed, "client", &seen, [own, other]);
}

fn run(splice: &str) {
    let told = Arc::new(Mutex::new(HashMap::new()));
    let telling = Arc::clone(&told);
    let backend = Backend::serving(move |mut stream, _| {
        let mut seed = [0; 8];
        stream.read_exact(&mut seed)?;
        stream.write_all(b"+")?;
        let seed = u64::from_be_bytes(seed);
        let [other, own] = parts(seed);
        stream.set_read_timeout(Some(PATIENCE))?;
        let seen = play(stream, own, other);
        telling.lock().insert(seed, seen);
        Ok(())
    });
    let setup = Setup::of(&[&backend]).global(&format!("workers = 2\nsplice = \"{splice}\""));
    let proxy = setup.start();
    let address = proxy.address();
    let clients: Vec<_> = (0..AT_ONCE)
        .map(|first| {
            std::thread::spawn(move || {
                for turn in 0..SESSIONS / AT_ONCE {
                    visit(address, first + turn * AT_ONCE);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    eventually("the backend has seen the end of all", PATIENCE, || {
        (told.lock().len() as u64 == SESSIONS).then_some(())
    });
    for (seed, seen) in told.lock().iter() {
        let [client, own] = parts(*seed);
        check(*seed, "backend", seen, [own, client]);
    }
    proxy.wait_for_sessions(0);
}

// If this fails, some mixture of ends loses bytes, invents an end or leaves a session behind.
#[test]
fn whatever_the_ends_what_arrives_is_right_with_splice_by_size() {
    run("auto");
}

// If this fails, some mixture of ends loses bytes, invents an end or leaves a session behind.
#[test]
fn whatever_the_ends_what_arrives_is_right_with_copying() {
    run("never");
}

// If this fails, some mixture of ends loses bytes, invents an end or leaves a session behind.
#[test]
fn whatever_the_ends_what_arrives_is_right_with_splicing() {
    run("always");
}
