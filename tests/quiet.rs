//! Sessions that wait cost no CPU time, whatever they wait for: a worker that goes round and round
//! serves all other clients late.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, reset_when_dropped, stream};

const SESSIONS: usize = 20;

/// Clients in the state that `prepare` brings them to.
fn clients(proxy: &Proxy, prepare: impl Fn(&mut TcpStream)) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let mut client = connect(proxy.address());
            prepare(&mut client);
            client
        })
        .collect();
    proxy.wait_for_sessions(SESSIONS as u64);
    clients
}

/// Waits for half a second in which the process uses no more than two per cent of a core. Buffers
/// fill for a while, on a busy machine for a long one; a loop that spins is never at rest.
#[track_caller]
fn assert_quiet(proxy: &Proxy) {
    // Asking for its CPU time costs the process nothing.
    let mut from = (Instant::now(), proxy.cpu_ticks());
    eventually("half a second passes at rest", PATIENCE, || {
        let used = proxy.cpu_ticks() - from.1;
        if used > 1 {
            from = (Instant::now(), from.1 + used);
        }
        (from.0.elapsed() > Duration::from_millis(500)).then_some(())
    });
}

/// Takes connections and does nothing with them.
fn deaf() -> Backend {
    let held = Mutex::new(Vec::new());
    Backend::serving(move |stream, _| {
        held.lock().push(stream);
        Ok(())
    })
}

/// Sends more than all buffers on the way hold.
fn flood(stream: &TcpStream) {
    let _cut_short_at_the_end = stream::send_aside(stream, 1, 64 * 1024 * 1024);
}

// If this fails, idle clients cost CPU time.
#[test]
fn idle_sessions() {
    let backend = Backend::silent();
    let proxy = Setup::of(&[&backend]).start();
    let _clients = clients(&proxy, |_| ());
    assert_quiet(&proxy);
}

// If this fails, a half-closed session is looked at again and again.
#[test]
fn half_closed_sessions() {
    let backend = deaf();
    let proxy = Setup::of(&[&backend]).start();
    let _clients = clients(&proxy, |client| {
        client.write_all(b"that was all").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    assert_quiet(&proxy);
}

// If this fails, a session whose backend has ended is looked at again and again.
#[test]
fn sessions_whose_backend_has_ended() {
    let backend = Backend::half_closing(b"bye");
    let proxy = Setup::of(&[&backend]).start();
    let _clients = clients(&proxy, |client| client.read_exact(&mut [0; 3]).unwrap());
    assert_quiet(&proxy);
}

// If this fails, a receiver that does not read makes its sender's bytes be tried for ever.
#[test]
fn sessions_that_are_held_up() {
    for splice in ["auto", "never"] {
        let backend = deaf();
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        let _clients = clients(&proxy, |client| flood(client));
        assert_quiet(&proxy);
    }
}

// If this fails, what a client sent before it broke off, and the backend does not take, is tried
// for ever.
#[test]
fn sessions_that_were_broken_off_while_held_up() {
    let backend = deaf();
    let proxy = Setup::of(&[&backend]).start();
    let clients = clients(&proxy, |client| flood(client));
    assert_quiet(&proxy);
    for client in clients {
        reset_when_dropped(&client);
        // The thread that floods has a clone: both ends of it.
        client.shutdown(Shutdown::Both).unwrap();
    }
    assert_quiet(&proxy);
}

// If this fails, waiting for a backend's handshake costs CPU time.
#[test]
fn sessions_that_are_being_connected() {
    let backend = Backend::unanswering();
    let proxy = Setup::of(&[&backend]).pool("connect_timeout = \"1m\"").start();
    let _clients = clients(&proxy, |client| {
        client.write_all(b"early").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    assert_quiet(&proxy);
}
