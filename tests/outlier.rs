//! Outlier ejection as clients and operators meet it: the real binary, backends with bad habits.
//!
//! The absence of an ejection has no event. A second pool, in which one failure ejects, is the
//! clock: once its backend is out, all failures before that have been judged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel::policy::first_bytes::proxy_header::{
    Ends, ProxyVersion, Statement, TLVS_BYTES_SAFE, V1_BYTES_MAX, V2_BYTES_MAX, encode,
};
use socket2::SockRef;
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, read_all, reset_when_dropped,
    try_connect, visit,
};

const OUTLIER: &str = "[pool.back.outlier]\neject = \"5m\"\n";

/// A pool that balances by turns, in which a session gets one attempt.
fn pool_of(backends: &[&Backend], outlier: &str) -> Setup {
    Setup::of(backends).pool("balance = \"round-robin\"\nretries = 0").also(outlier)
}

/// Sends a byte and ignores the outcome.
fn poke(address: SocketAddr) {
    // The other side may be gone as early as the connect; a failure is wanted.
    let Ok(mut client) = try_connect(address) else { return };
    let _sent = client.write_all(b"x");
    let _closed = client.shutdown(Shutdown::Write);
    let _answer = read_all(&mut client);
}

/// Lets clients come until a backend is in this state.
#[track_caller]
fn poke_until(proxy: &Proxy, backend: &str, state: &str) {
    eventually(&format!("{backend} is {state}"), PATIENCE, || {
        poke(proxy.address());
        (proxy.backend("back", backend).state == state).then_some(())
    });
}

fn ejections(proxy: &Proxy, backend: &str) -> f64 {
    let labels = [("pool", "back"), ("backend", backend)];
    proxy.metric("evenkeel_backend_ejections_total", &labels)
}

/// The second listener and its pool.
fn with_clock(setup: Setup, failing: &Backend, other: &Backend) -> Setup {
    setup.also(&format!(
        "[listener.clock]\nbind = [\"127.0.0.1:0\"]\npool = \"clock\"\n\
         [pool.clock]\nbalance = \"first\"\nretries = 0\nbackends = [\"{}\", \"{}\"]\n\
         [pool.clock.outlier]\nconsecutive_failures = 1\n",
        failing.address(),
        other.address(),
    ))
}

/// Waits until all failures so far have been judged; once for each proxy.
#[track_caller]
fn let_it_look(proxy: &Proxy) {
    poke(proxy.addresses()[1]);
    proxy.wait_for_metric("evenkeel_backend_ejected", &[("pool", "clock")], 1.0);
}

// If this fails, clients of a pool without probes meet a dead backend again and again, or its
// operator is not told.
#[test]
fn a_backend_that_refuses_is_ejected_and_avoided() {
    let (good, bad) = (Backend::named("b1"), Backend::refusing());
    let proxy = pool_of(&[&good, &bad], OUTLIER).start();
    poke_until(&proxy, "b2", "ejected");
    let labels = [("pool", "back"), ("backend", "b2")];
    let failures = proxy.metric("evenkeel_backend_connect_failures_total", &labels);
    assert!(failures >= 5.0, "ejected after {failures} failures");
    for _ in 0..10 {
        assert_eq!(visit(proxy.address()), "b1");
    }
    let later = proxy.metric("evenkeel_backend_connect_failures_total", &labels);
    assert!(support::admin::is_same(failures, later), "{failures} became {later}");
    let line = proxy.wait_for_line("backend back/b2 ejected for 5m: connect refused (");
    assert!(line.contains("failures in a row), 1 of 2 left"), "{line}");
    assert!(support::admin::is_same(ejections(&proxy, "b2"), 1.0));
    assert!(support::admin::is_same(proxy.metric("evenkeel_backend_ejected", &labels), 1.0));
    let b2 = proxy.backend("back", "b2");
    assert!(b2.reason.starts_with("for 5m: connect refused") && b2.since.is_some(), "{b2:?}");
    assert_eq!(proxy.status().pools["back"].healthy, 1);
}

// If this fails, a backend that accepts and hangs up attracts every client: it has the fewest
// sessions.
#[test]
fn a_backend_that_hangs_up_before_its_first_byte_is_ejected() {
    for (bad, words) in [
        (Backend::resetting(), "reset before its first byte"),
        (Backend::half_closing(b""), "closed before its first byte"),
    ] {
        let good = Backend::echo();
        let proxy = pool_of(&[&good, &bad], OUTLIER).start();
        eventually("b2 is ejected", PATIENCE, || {
            let mut client = connect(proxy.address());
            let _sent = client.write_all(b"x");
            let _answer = client.read(&mut [0]);
            (proxy.backend("back", "b2").state == "ejected").then_some(())
        });
        proxy.wait_for_line(&format!("backend back/b2 ejected for 5m: {words} ("));
        assert_eq!(proxy.backend("back", "b1").state, "up");
    }
}

// If this fails, clients that leave take good backends out: a port scan would be enough.
#[test]
fn what_clients_do_is_no_evidence() {
    let (echo, silent, refusing) = (Backend::echo(), Backend::silent(), Backend::refusing());
    let setup =
        pool_of(&[&echo, &silent], &OUTLIER.replace("eject", "max_ejected = \"100%\"\neject"));
    let proxy = with_clock(setup, &refusing, &echo).start();
    for turn in 0..32 {
        let client = connect(proxy.address());
        match turn / 8 {
            // FIN without a word, a reset, a word and a reset, a word and FIN.
            0 => client.shutdown(Shutdown::Write).unwrap(),
            1 => reset_when_dropped(&client),
            2 => {
                (&client).write_all(b"x").unwrap();
                reset_when_dropped(&client);
            }
            _ => {
                (&client).write_all(b"x").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            }
        }
        if turn / 8 % 3 == 0 {
            assert!(read_all(&mut { client }).is_ok());
        }
    }
    proxy.wait_for_sessions(0);
    let_it_look(&proxy);
    for backend in ["b1", "b2"] {
        assert!(support::admin::is_same(ejections(&proxy, backend), 0.0), "{backend} was ejected");
    }
}

/// A header of version 2 whose client has asked for a name of this length.
fn naming(length: usize) -> Vec<u8> {
    let size = u16::try_from(length).unwrap().to_be_bytes();
    let tlvs = [&[2][..], &size, &vec![b'a'; length]].concat();
    let end = "192.0.2.1:4711".parse().unwrap();
    let ends = Some(Ends { source: end, destination: end });
    let statement = Statement { tlvs: &tlvs, bytes_max: V2_BYTES_MAX, ..Statement::new(ends, b"") };
    encode(ProxyVersion::V2, &statement)
}

// If this fails, a client takes every backend of nginx's stream module out by a long name.
#[test]
fn a_header_that_a_name_makes_too_long_is_no_evidence() {
    let short_sighted = || {
        Backend::serving(|mut stream, _| {
            let mut header = [0; 512];
            let length = stream.read(&mut header)?;
            if length > V1_BYTES_MAX {
                return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
            stream.write_all(b"served")
        })
    };
    let (one, two, refusing) = (short_sighted(), short_sighted(), Backend::refusing());
    let setup = pool_of(&[&one, &two], OUTLIER)
        .listener("accept_proxy = { from = [\"127.0.0.0/8\"] }")
        .pool("send_proxy = \"v2\"\nsend_proxy_max = \"4KiB\"");
    let proxy = with_clock(setup, &refusing, &one).start();
    let ask = |length| {
        let mut client = connect(proxy.address());
        client.write_all(&naming(length)).unwrap();
        read_all(&mut client).is_ok_and(|answer| answer == b"served")
    };
    assert!(ask(TLVS_BYTES_SAFE - 3));
    for _ in 0..20 {
        assert!(!ask(100));
    }
    let_it_look(&proxy);
    for backend in ["b1", "b2"] {
        assert!(support::admin::is_same(ejections(&proxy, backend), 0.0), "{backend} was ejected");
    }
}

// If this fails, further clients meet a backend after the failure that decides against it.
#[test]
fn the_deciding_failure_is_the_last() {
    let (bad, good) = (Backend::refusing(), Backend::named("b2"));
    let setup = Setup::of(&[&bad, &good]).pool("balance = \"first\"\nretries = 0").also(OUTLIER);
    let proxy = setup.start();
    for _ in 0..5 {
        let answer = try_connect(proxy.address()).and_then(|mut client| read_all(&mut client));
        assert!(answer.is_err(), "{answer:?}");
    }
    for _ in 0..20 {
        assert_eq!(visit(proxy.address()), "b2");
    }
    proxy.wait_for_line("backend back/b1 ejected for 5m: connect refused (5 failures in a row)");
    let labels = [("pool", "back"), ("backend", "b1")];
    let failures = proxy.metric("evenkeel_backend_connect_failures_total", &labels);
    assert!(support::admin::is_same(failures, 5.0), "{failures} failures");
}

// If this fails, failures that are days apart add up to an ejection.
#[test]
fn a_success_ends_the_row() {
    let asked = Arc::new(AtomicUsize::new(0));
    let moody = {
        let asked = Arc::clone(&asked);
        Backend::serving(move |mut stream, _| {
            // Every fifth one gets an answer; then none.
            let turn = asked.fetch_add(1, Ordering::SeqCst);
            if turn % 5 == 4 && turn < 40 {
                stream.write_all(b"served")?;
            }
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        })
    };
    let (spare, refusing) = (Backend::echo(), Backend::refusing());
    let setup = Setup::of(&[&moody, &spare]).pool("balance = \"first\"\nretries = 0").also(OUTLIER);
    let proxy = with_clock(setup, &refusing, &spare).start();
    let hear = || read_all(&mut connect(proxy.address())).unwrap();
    let heard = (0..40).filter(|_| hear() == b"served").count();
    let_it_look(&proxy);
    assert_eq!((heard, asked.load(Ordering::SeqCst)), (8, 40), "another server was asked");
    assert!(support::admin::is_same(ejections(&proxy, "b1"), 0.0));
    for _ in 0..5 {
        assert_eq!(hear(), b"");
    }
    proxy.wait_for_metric("evenkeel_backend_ejections_total", &[("backend", "b1")], 1.0);
    proxy.wait_for_line("closed before its first byte (5 failures in a row)");
}

// If this fails, an ejection has no end, or the next one is no longer.
#[test]
fn a_backend_that_is_well_again_comes_back() {
    let (good, mut bad) = (Backend::named("b1"), Backend::refusing());
    let outlier = OUTLIER.replace("5m", "200ms");
    let proxy = pool_of(&[&good, &bad], &outlier).start();
    poke_until(&proxy, "b2", "ejected");
    proxy.wait_for_line("backend back/b2 readmitted: its time out is over, 2 of 2 up");
    eventually("the second time out is longer", PATIENCE, || {
        poke(proxy.address());
        proxy.said().contains("backend back/b2 ejected for 400ms").then_some(())
    });
    let address = bad.address();
    drop(bad);
    bad = Backend::named_at("b2", address);
    eventually("b2 serves", PATIENCE, || (visit(proxy.address()) == "b2").then_some(()));
    assert_eq!(bad.address(), address);
}

// If this fails, a fault that is not the backends' empties the pool.
#[test]
fn the_share_counts_the_new_one_and_the_last_one_stays() {
    let (good, one, two) = (Backend::echo(), Backend::refusing(), Backend::refusing());
    for (backends, share) in [(vec![&good, &one, &two], "50%"), (vec![&one, &two], "100%")] {
        let outlier = format!("{OUTLIER}max_ejected = \"{share}\"\n");
        let setup = pool_of(&backends, &outlier).global("log = { level = \"debug\" }");
        let proxy = setup.start();
        eventually("the second one is spared", PATIENCE, || {
            poke(proxy.address());
            proxy.said().contains("its pool can spare no other").then_some(())
        });
        let out = proxy.metric("evenkeel_backend_ejected", &[]);
        assert!(support::admin::is_same(out, 1.0), "{out} are out at {share}");
        assert!(proxy.status().ready);
    }
}

// If this fails, panic mode leaves out a backend that was only suspected.
#[test]
fn panic_tries_ejected_backends() {
    let (good, bad) = (Backend::named("b1"), Backend::refusing());
    let proxy = pool_of(&[&good, &bad], OUTLIER).pool("panic_threshold = \"50%\"").start();
    poke_until(&proxy, "b2", "ejected");
    proxy.wait_for_line("pool back: 1 of 2 backends healthy, trying all of them");
    eventually("b2 is tried", PATIENCE, || visit(proxy.address()).is_empty().then_some(()));
    assert_eq!(proxy.backend("back", "b2").state, "ejected");
}

// If this fails, a reload brings a bad backend back, or an operator cannot.
#[test]
fn an_ejection_survives_a_reload_and_ends_by_an_operator() {
    let (good, bad) = (Backend::named("b1"), Backend::refusing());
    let setup = pool_of(&[&good, &bad], OUTLIER);
    let proxy = setup.start();
    poke_until(&proxy, "b2", "ejected");
    proxy.reload_with(&setup.clone().pool("connect_timeout = \"2s\"").text());
    assert_eq!(proxy.backend("back", "b2").state, "ejected");
    proxy.tell("back/b2", "ready");
    assert_eq!(proxy.backend("back", "b2").state, "up");
    poke_until(&proxy, "b2", "ejected");
    proxy.reload_with(&pool_of(&[&good, &bad], "").text());
    assert_eq!(proxy.backend("back", "b2").state, "up");
    proxy.wait_for_line("backend back/b2 readmitted by a reload");
    assert!(support::admin::is_same(ejections(&proxy, "b2"), 2.0));
}
