//! Ends of streams: a FIN passes on only after the last byte and leaves the other direction usable,
//! a reset is passed on as a reset, and silence is bounded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use support::stream::{self, is_reset};
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, read_all, reset_when_dropped, within,
};

const MIB: u64 = 1024 * 1024;
/// How a receiver saw a stream end: bytes that came, and the error if it was no clean end.
type Seen = (u64, io::Result<()>);

/// A backend that calls `serve` and sends the test what it gives.
fn telling<T: Send + 'static>(
    serve: impl Fn(&mut TcpStream) -> T + Send + Sync + 'static,
) -> (Backend, Receiver<T>) {
    let (tell, told): (Sender<T>, _) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::serving(move |mut stream, _| {
        let seen = serve(&mut stream);
        let _test_is_over = tell.lock().send(seen);
        Ok(())
    });
    (backend, told)
}

fn closed(proxy: &Proxy, reason: &str, count: u32) {
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", reason)], count.into());
}

// If this fails, a client that says "that was all" loses the answer.
#[test]
fn the_whole_reply_comes_after_the_clients_end() {
    for splice in ["auto", "always"] {
        let (backend, told) = telling(|stream| {
            let seen = stream::receive(stream, 1);
            stream::send(stream, 2, 8 * MIB).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            seen
        });
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        let mut client = connect(proxy.address());
        stream::send(&mut client, 1, 100_000).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (received, end) = stream::receive(&mut client, 2);
        end.unwrap();
        assert_eq!(received, 8 * MIB);
        let (uploaded, end) = told.recv_timeout(PATIENCE).unwrap();
        end.unwrap();
        assert_eq!(uploaded, 100_000);
        closed(&proxy, "done", 1);
    }
}

// If this fails, an upload is cut off because the server has finished speaking.
#[test]
fn an_upload_goes_on_after_the_backends_end() {
    let backend = Backend::half_closing(b"go ahead");
    let proxy = Setup::of(&[&backend]).start();
    let mut client = connect(proxy.address());
    assert_eq!(read_all(&mut client).unwrap(), b"go ahead");
    stream::send(&mut client, 3, 4 * MIB).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    eventually("the upload arrives", PATIENCE, || {
        (backend.received() as u64 == 4 * MIB).then_some(())
    });
    closed(&proxy, "done", 1);
}

// If this fails, a session of which both sides end at once hangs or is counted as a failure.
#[test]
fn both_sides_may_end_at_once() {
    let backend = Backend::half_closing(b"bye");
    let proxy = Setup::of(&[&backend]).start();
    for _ in 0..100 {
        let mut client = connect(proxy.address());
        client.write_all(b"bye").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client).unwrap(), b"bye");
    }
    closed(&proxy, "done", 100);
    eventually("all is received", PATIENCE, || (backend.received() == 300).then_some(()));
}

// If this fails, the end of a client that never spoke does not reach the backend.
#[test]
fn an_end_before_any_byte_is_passed_on() {
    let (backend, told) = telling(|stream| {
        let seen = read_all(stream);
        stream.write_all(b"nothing said").unwrap();
        seen
    });
    let proxy = Setup::of(&[&backend]).start();
    let mut client = connect(proxy.address());
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"nothing said");
    assert!(told.recv_timeout(PATIENCE).unwrap().unwrap().is_empty());
    closed(&proxy, "done", 1);
}

// If this fails, a session of which one side is gone for good stays for the whole idle_timeout.
#[test]
fn a_half_closed_session_ends_by_its_own_timer() {
    // Says nothing and stays open until the test is over.
    let held = Mutex::new(Vec::new());
    let silent = Backend::serving(move |mut stream, _| {
        let end = read_all(&mut stream).map(drop);
        held.lock().push(stream.try_clone()?);
        end
    });
    let proxy = Setup::of(&[&silent]).listener("half_closed_timeout = \"150ms\"").start();
    let mut client = connect(proxy.address());
    client.write_all(b"any?").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let end = read_all(&mut client).unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    closed(&proxy, "half_closed_timeout", 1);
    assert_eq!(proxy.wait_for_session_lines(1)[0]["bytes_to_backend"], 4);
}

// If this fails, an end that comes with a lot of data, so that the turn which sees it leaves work
// over, does not start the shorter bound: the session stays for the whole idle_timeout.
#[test]
fn an_end_after_much_data_starts_the_half_closed_bound() {
    const CLIENTS: u64 = 48;
    let held = Mutex::new(Vec::new());
    let silent = Backend::serving(move |mut stream, _| {
        let end = io::copy(&mut stream, &mut io::sink()).map(drop);
        held.lock().push(stream.try_clone()?);
        end
    });
    let proxy = Setup::of(&[&silent])
        .global("splice = \"never\"")
        .listener("half_closed_timeout = \"150ms\"")
        .start();
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let mut client = connect(proxy.address());
            stream::send(&mut client, 1, 65_536 * (number % 12) + 10_000 * (number % 7)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        })
        .collect();
    closed(&proxy, "half_closed_timeout", u32::try_from(CLIENTS).unwrap());
    drop(clients);
}

// If this fails, a client that did not get everything believes it did.
#[test]
fn a_timeout_with_bytes_left_is_seen_as_a_reset() {
    let backend = Backend::serving(|mut stream, _| {
        stream::send(&mut stream, 4, 64 * MIB)?;
        stream.shutdown(Shutdown::Write)
    });
    let proxy = Setup::of(&[&backend])
        .listener("idle_timeout = \"300ms\"\nhalf_closed_timeout = \"300ms\"")
        .start();
    let mut client = connect(proxy.address());
    client.shutdown(Shutdown::Write).unwrap();
    proxy.wait_for_sessions(1);
    proxy.wait_for_sessions(0);
    let (received, end) = stream::receive(&mut client, 4);
    assert!(is_reset(&end), "{received} bytes and {end:?}");
    assert!(received < 64 * MIB);
    closed(&proxy, "half_closed_timeout", 1);
}

// If this fails, dead clients keep their places for ever, or live ones are cut off.
#[test]
fn silence_ends_a_session_and_traffic_keeps_it() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener("idle_timeout = \"400ms\"").start();
    let mut silent = connect(proxy.address());
    let mut talking = connect(proxy.address());
    proxy.wait_for_sessions(2);
    eventually("only the silent one ends", PATIENCE, || {
        talking.write_all(b".").unwrap();
        talking.read_exact(&mut [0]).unwrap();
        (proxy.metric("evenkeel_sessions_closed_total", &[]) > 0.5).then_some(())
    });
    assert!(read_all(&mut silent).unwrap().is_empty());
    talking.write_all(b"!").unwrap();
    talking.read_exact(&mut [0]).unwrap();
    closed(&proxy, "idle_timeout", 1);
}

/// Offsets at which a side resets.
const OFFSETS: [u64; 8] = [0, 1, 4095, 32_768, 65_537, 262_144, MIB + 1, 3 * MIB];

// If this fails, a client takes a broken download for a complete one, or gets wrong bytes.
#[test]
fn a_backends_reset_is_a_reset_for_the_client() {
    for splice in ["auto", "never", "always"] {
        let turn = Mutex::new(OFFSETS.into_iter());
        let backend = Backend::serving(move |mut stream, _| {
            let offset = turn.lock().next().unwrap();
            // A reset that comes with the handshake is a refusal, and retried.
            stream.read_exact(&mut [0])?;
            stream::send(&mut stream, 5, offset)?;
            reset_when_dropped(&stream);
            Ok(())
        });
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        for (count, offset) in (1..).zip(OFFSETS) {
            let mut client = connect(proxy.address());
            client.write_all(b"?").unwrap();
            let (received, end) = stream::receive(&mut client, 5);
            assert!(is_reset(&end), "{received} of {offset} and {end:?}, splice {splice}");
            assert!(received <= offset);
            closed(&proxy, "backend_reset", count);
        }
    }
}

// If this fails, a backend takes a broken upload for a complete one, or gets wrong bytes.
#[test]
fn a_clients_reset_is_a_reset_for_the_backend() {
    for splice in ["auto", "never", "always"] {
        let (backend, told) = telling(|stream| -> Seen { stream::receive(stream, 6) });
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        for (count, offset) in (1..).zip(OFFSETS) {
            let mut client = connect(proxy.address());
            // One that is gone before it has a backend is another matter.
            eventually("it is connected", PATIENCE, || {
                let total = proxy.metric("evenkeel_backend_sessions_total", &[]);
                support::admin::is_same(total, count.into()).then_some(())
            });
            stream::send(&mut client, 6, offset).unwrap();
            reset_when_dropped(&client);
            drop(client);
            let (received, end) = told.recv_timeout(PATIENCE).unwrap();
            assert!(is_reset(&end), "{received} of {offset} and {end:?}, splice {splice}");
            assert!(received <= offset);
            closed(&proxy, "client_reset", count);
        }
    }
}

/// More than a socket's receive buffer holds at first, less than what all on the way hold.
const IN_FLIGHT: u64 = 150_000;

/// Waits until the proxy has handed all bytes of `direction` to the kernel.
fn handed_over(proxy: &Proxy, direction: &str, turn: u64) {
    let wanted = u32::try_from(turn * IN_FLIGHT).unwrap();
    proxy.wait_for_metric("evenkeel_bytes_total", &[("direction", direction)], wanted.into());
}

/// Gives the proxy time to do what it must not: end the session.
fn tempt(proxy: &Proxy) {
    let _ended = within(Duration::from_millis(100), || (proxy.sessions() == 0).then_some(()));
}

// If this fails, what a backend sent before it closed with unread bytes is lost on the way.
#[test]
fn a_reset_after_the_backends_end_loses_nothing() {
    for splice in ["auto", "always"] {
        let (go, wait) = channel::<()>();
        let wait = Mutex::new(wait);
        let backend = Backend::serving(move |mut stream, _| {
            stream::send(&mut stream, 7, IN_FLIGHT)?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_exact(&mut [0; 10])?;
            // The rest of the upload stays unread, which makes the close a reset.
            let _test_is_over = wait.lock().recv();
            Ok(())
        });
        let proxy = Setup::of(&[&backend]).global(&format!("splice = \"{splice}\"")).start();
        for turn in 1..=5 {
            let mut client = connect(proxy.address());
            let upload = stream::send_aside(&client, 8, 2 * MIB);
            handed_over(&proxy, "to_client", turn);
            go.send(()).unwrap();
            tempt(&proxy);
            let (received, _) = stream::receive(&mut client, 7);
            assert_eq!(received, IN_FLIGHT, "splice {splice}");
            // May fail: the other side does not read it.
            let _cut_short = upload.join().unwrap();
            proxy.wait_for_sessions(0);
        }
    }
}

// If this fails, the end of an upload is lost because its client did not want the answer.
#[test]
fn a_reset_after_the_clients_end_loses_nothing() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let (backend, told) = telling(move |stream| {
        let answer = stream::send_aside(stream, 10, 2 * MIB);
        let _test_is_over = wait.lock().recv();
        let seen = stream::receive(stream, 9);
        let _cut_short = answer.join().unwrap();
        seen
    });
    let proxy = Setup::of(&[&backend]).start();
    for turn in 1..=5 {
        let mut client = connect(proxy.address());
        client.read_exact(&mut [0]).unwrap();
        stream::send(&mut client, 9, IN_FLIGHT).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        handed_over(&proxy, "to_backend", turn);
        drop(client);
        tempt(&proxy);
        go.send(()).unwrap();
        let (received, _) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(received, IN_FLIGHT);
        proxy.wait_for_sessions(0);
    }
}

// If this fails, clients that give up while a backend does not answer pile up.
#[test]
fn a_client_that_leaves_during_the_connect_frees_its_place() {
    let backend = Backend::unanswering();
    let proxy = Setup::of(&[&backend]).pool("connect_timeout = \"1m\"").start();
    let clients: Vec<_> = (0..10).map(|_| connect(proxy.address())).collect();
    proxy.wait_for_sessions(10);
    assert_eq!(proxy.backend("back", "b1").sessions, 10);
    for client in clients {
        reset_when_dropped(&client);
    }
    closed(&proxy, "client_gone", 10);
    proxy.wait_for_sessions(0);
    assert_eq!(proxy.backend("back", "b1").sessions, 0);
    assert_eq!(proxy.wait_for_session_lines(10)[0]["term"], "CC");
}

// If this fails, what a client said before its backend was connected is lost, or its end is.
#[test]
fn bytes_and_end_before_the_connect_are_kept() {
    let refusing = Backend::refusing();
    let echo = Backend::echo();
    let proxy = Setup::of(&[&refusing, &echo]).pool("balance = \"round-robin\"").start();
    for turn in 0..20 {
        let mut client = connect(proxy.address());
        client.write_all(&stream::bytes(turn, 50_000)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (received, end) = stream::receive(&mut client, turn);
        end.unwrap();
        assert_eq!(received, 50_000);
    }
}
