//! Long sessions are spread evenly over the workers; short ones do not pay for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Write;
use std::net::TcpStream;

use rustix::process::Signal;
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, read_line, served_by};

/// Sessions of each worker.
fn by_worker(proxy: &Proxy, workers: usize) -> Vec<u64> {
    let metrics = proxy.metrics();
    let of = |number: usize| {
        let number = number.to_string();
        metrics.sum("evenkeel_worker_sessions", &[("worker", number.as_str())])
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    (0..workers).map(|number| of(number) as u64).collect()
}

fn handed_over(proxy: &Proxy) -> f64 {
    proxy.metrics().sum("evenkeel_worker_handed_over_total", &[])
}

/// Sessions that stay, each of which was served.
fn hold(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let open = |_| {
        let mut client = connect(proxy.address());
        read_line(&mut client).unwrap();
        client
    };
    (0..count).map(open).collect()
}

/// If this fails, one worker is busy with most of the long sessions while others idle.
#[test]
fn long_sessions_are_spread_over_the_workers() {
    for (workers, sessions) in [(2, 16), (4, 16), (4, 100), (8, 100)] {
        let backend = Backend::named("b");
        let proxy = Setup::of(&[&backend]).global(&format!("workers = {workers}")).start();
        let held = hold(&proxy, sessions);
        let spread = eventually("all are counted", PATIENCE, || {
            let spread = by_worker(&proxy, workers);
            (spread.iter().sum::<u64>() == sessions as u64).then_some(spread)
        });
        let most = spread.iter().max().copied().unwrap();
        let mean = sessions.div_ceil(workers) as u64;
        assert!(most <= mean + 2 + mean / 8, "{sessions} over {workers}: {spread:?}");
        drop(held);
        proxy.wait_for_sessions(0);
    }
}

/// If this fails, sessions that come through another proxy all stay on one worker.
#[test]
fn sessions_behind_a_header_are_spread_too() {
    let backend = Backend::named("b");
    let rule = "accept_proxy = { from = [\"127.0.0.0/8\"] }";
    let proxy = Setup::of(&[&backend]).global("workers = 4").listener(rule).start();
    let open = |_| {
        let mut client = connect(proxy.address());
        client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        read_line(&mut client).unwrap();
        client
    };
    let held: Vec<TcpStream> = (0..64).map(open).collect();
    let spread = eventually("all are counted", PATIENCE, || {
        let spread = by_worker(&proxy, 4);
        (spread.iter().sum::<u64>() == 64).then_some(spread)
    });
    assert!(spread.iter().all(|sessions| *sessions <= 20), "{spread:?}");
    assert!(handed_over(&proxy) > 0.5);
    drop(held);
}

/// If this fails, every short connection costs the wake-up of another worker.
#[test]
fn short_sessions_stay_where_they_arrive() {
    let backend = Backend::named("b");
    let proxy = Setup::of(&[&backend]).global("workers = 4").start();
    for _ in 0..400 {
        served_by(proxy.address()).unwrap();
    }
    let learned = handed_over(&proxy);
    let held = hold(&proxy, 8);
    for _ in 0..400 {
        served_by(proxy.address()).unwrap();
    }
    assert!((handed_over(&proxy) - learned).abs() < 0.5, "{learned}, {}", handed_over(&proxy));
    drop(held);
}

/// If this fails, a session on its way between workers is cut, or keeps the process from ending.
#[test]
fn a_stop_finds_those_that_were_handed_over() {
    let backend = Backend::echo();
    let mut proxy = Setup::of(&[&backend]).global("workers = 4").start();
    let mut held: Vec<_> = (0..64).map(|_| connect(proxy.address())).collect();
    proxy.signal(Signal::TERM);
    for client in &mut held {
        support::stream::exchange(client, (7, 4_096));
    }
    drop(held);
    assert!(proxy.wait_for_exit().success());
}
