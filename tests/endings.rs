//! Sessions that evenkeel ends by itself: too old, or left behind by a backend that went down.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::switched::{PROBES, clients, echoes, switchable, wait_until};
use support::{Backend, PATIENCE, Setup, connect, eventually, within};

/// A pool of which the first backend, which can be switched off, gets all clients.
fn pair(on_down: &str) -> (Setup, [Backend; 2], Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(true));
    let backends = [switchable(&is_well), switchable(&Arc::new(AtomicBool::new(true)))];
    let setup = Setup::of(&backends.iter().collect::<Vec<_>>())
        .global("workers = 2")
        .pool(&format!("balance = \"first\"\non_down = \"{on_down}\""))
        .also(PROBES);
    (setup, backends, is_well)
}

// If this fails, a session outlives `max_lifetime` by going on, ends too early, or ends as if it
// had been complete.
#[test]
fn a_session_lasts_no_longer_than_its_lifetime() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener("max_lifetime = \"300ms\"").start();
    let mut client = connect(proxy.address());
    eventually("it is reset", PATIENCE, || (!echoes(&mut client)).then_some(()));
    let lines = proxy.wait_for_session_lines(1);
    assert_eq!(lines[0]["reason"], "max_lifetime reached");
    assert_eq!(lines[0]["term"], "KD");
    let lasted = lines[0]["total_ms"].as_u64().unwrap();
    assert!(lasted >= 270, "ended after {lasted} ms");
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "max_lifetime")], 1.0);
    proxy.wait_for_sessions(0);
}

// If this fails, a bound on life ends sessions that are quiet and young, or is forgotten while
// nothing moves.
#[test]
fn a_quiet_session_ends_by_its_lifetime_too() {
    let backend = Backend::echo();
    let setup = Setup::of(&[&backend]).listener("idle_timeout = \"1h\"");
    let proxy = setup.clone().listener("max_lifetime = \"200ms\"").start();
    let mut client = connect(proxy.address());
    let end = client.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    let patient = setup.listener("max_lifetime = \"1h\"").start();
    let mut client = connect(patient.address());
    assert!(echoes(&mut client));
    assert_eq!(patient.sessions(), 1);
}

/// Requests by their number: those that the server has read, and those whose answer came back.
#[derive(Default)]
struct Requests {
    read: Mutex<BTreeSet<u32>>,
    answered: Mutex<BTreeSet<u32>>,
}

/// Answers each request of a connection after a while, in two parts.
fn unhurried(requests: &Arc<Requests>) -> Backend {
    let requests = Arc::clone(requests);
    Backend::serving(move |mut stream, _| {
        loop {
            let mut number = [0; 4];
            stream.read_exact(&mut number)?;
            requests.read.lock().insert(u32::from_be_bytes(number));
            pass(Duration::from_millis(40));
            stream.write_all(b"an ")?;
            pass(Duration::from_millis(5));
            stream.write_all(b"answer")?;
        }
    })
}

/// Asks again and again on one connection, with a pause after each answer, until that is reset.
fn ask_until_reset(mut client: TcpStream, numbers: std::ops::Range<u32>, requests: &Requests) {
    for number in numbers {
        let asked = client.write_all(&number.to_be_bytes());
        let mut answer = [0; 9];
        match asked.and_then(|()| client.read_exact(&mut answer)) {
            Ok(()) => assert_eq!(&answer, b"an answer"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe));
                return;
            }
        }
        requests.answered.lock().insert(number);
        pass(Duration::from_millis(200));
    }
    panic!("its session is never reset");
}

/// Lets time pass.
fn pass(time: Duration) {
    let _never = within(time, || None::<()>);
}

// If this fails, a session that is too old is reset in the middle of a request although it would
// have been at rest a moment later.
#[test]
fn no_request_is_lost_to_a_lifetime() {
    const CLIENTS: u32 = 100;
    const EACH: u32 = 1000;
    let requests = Arc::<Requests>::default();
    let backend = unhurried(&requests);
    let proxy = Setup::of(&[&backend]).listener("max_lifetime = \"4s\"").start();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (client, requests) = (connect(proxy.address()), &requests);
            let numbers = number * EACH..(number + 1) * EACH;
            scope.spawn(move || ask_until_reset(client, numbers, requests));
        }
    });
    let labels = [("reason", "max_lifetime")];
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &labels, CLIENTS.into());
    let (read, answered) = (requests.read.lock(), requests.answered.lock());
    let lost: Vec<_> = read.difference(&answered).collect();
    assert!(lost.is_empty() && answered.len() > 500, "{lost:?} of {}", read.len());
}

// If this fails, clients hang on a backend that is gone although they should be told, or clients of
// others are cut off with them.
#[test]
fn sessions_of_a_backend_that_goes_down_are_reset() {
    let (setup, _backends, is_well) = pair("reset");
    let proxy = setup.start();
    proxy.tell("back/b1", "drain");
    let mut others = clients(&proxy, 3);
    proxy.tell("back/b1", "ready");
    let mut lost = clients(&proxy, 5);
    is_well.store(false, Ordering::SeqCst);
    for client in &mut lost {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "backend_down")], 5.0);
    for line in proxy.wait_for_session_lines(5) {
        assert_eq!(line["reason"], "backend went down");
        assert_eq!((&line["term"], &line["backend"]), (&"DD".into(), &"b1".into()));
    }
    assert!(others.iter_mut().all(echoes));
    others.extend(clients(&proxy, 2));
    assert_eq!(proxy.backend("back", "b2").sessions, 5);
}

// If this fails, a wrong verdict costs sessions that were well.
#[test]
fn sessions_of_a_backend_that_goes_down_are_kept() {
    let (setup, _backends, is_well) = pair("keep");
    let proxy = setup.start();
    let mut kept = clients(&proxy, 3);
    is_well.store(false, Ordering::SeqCst);
    wait_until(&proxy, "b1", "down");
    assert!(kept.iter_mut().all(echoes));
}

// If this fails, a pace is kept by each worker and not by all of them together, or not at all.
#[test]
fn sessions_are_reset_at_the_pace_of_the_pool() {
    let (setup, _backends, is_well) = pair("pace 10/s");
    let proxy = setup.start();
    let _lost = clients(&proxy, 8);
    let since = Instant::now();
    is_well.store(false, Ordering::SeqCst);
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &[("reason", "backend_down")], 8.0);
    // The first at once, seven more a tenth of a second apart.
    assert!(since.elapsed() >= Duration::from_millis(690), "after {:?}", since.elapsed());
}

// If this fails, sessions are reset although their backend is well again.
#[test]
fn a_backend_that_comes_up_keeps_what_is_left() {
    let (setup, _backends, is_well) = pair("pace 1/min");
    let proxy = setup.start();
    let mut clients = clients(&proxy, 4);
    is_well.store(false, Ordering::SeqCst);
    let labels = [("reason", "backend_down")];
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &labels, 1.0);
    is_well.store(true, Ordering::SeqCst);
    wait_until(&proxy, "b1", "up");
    assert_eq!(clients.iter_mut().filter_map(|client| echoes(client).then_some(())).count(), 3);
    is_well.store(false, Ordering::SeqCst);
    proxy.wait_for_metric("evenkeel_sessions_closed_total", &labels, 2.0);
}

// If this fails, probes that cannot be right cut off every client at once.
#[test]
fn a_pool_that_doubts_its_probes_resets_no_session() {
    let (setup, _backends, is_well) = pair("reset");
    let proxy = setup.pool("panic_threshold = \"50%\"").start();
    let mut kept = clients(&proxy, 3);
    is_well.store(false, Ordering::SeqCst);
    wait_until(&proxy, "b1", "down");
    assert!(kept.iter_mut().all(echoes));
    assert_eq!(proxy.sessions(), 3);
}
