//! Clocks that stand somewhere else: a time namespace whose CLOCK_MONOTONIC is decades ahead.
//!
//! A stepped CLOCK_REALTIME cannot be put in: there is one for the whole machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::actor::{Actor, Habit};
use crate::books::Books;
use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{PATIENCE, eventually, reset_when_dropped, try_connect};

/// Seconds that its clocks are ahead: more than 31 years.
const AHEAD: &str = "1000000000";

/// Whether a client is served.
fn is_served(net: &Net, address: SocketAddr) -> bool {
    net.on(Side::Client, || {
        let Ok(mut client) = try_connect(address) else { return false };
        let served = client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).is_ok();
        reset_when_dropped(&client);
        served
    })
}

/// If it fails, timers, probes or limits depend on how long the machine has been up.
#[test]
fn a_monotonic_clock_decades_ahead() {
    let net = Net::new(Link::PLAIN);
    let mut backend = Actor::start(&net, net.backend(1), Habit::Echoes);
    let listener = "idle_timeout = \"1s\"\n[listener.front.limit]\nrate = \"5/s\"\nburst = 5";
    let pool = "[pool.back.health]\ninterval = \"100ms\"\ntimeout = \"100ms\"";
    let config = net.config(&[1], Keys { listener, pool, ..Keys::default() });
    let wrapper = ["unshare", "--time", "--monotonic", AHEAD, "--boottime", AHEAD];
    let proxy = net.evenkeel_under(&wrapper, &config);
    let offsets = std::fs::read_to_string(format!("/proc/{}/timens_offsets", proxy.pid())).unwrap();
    assert!(offsets.matches(AHEAD).count() == 2, "{offsets}");
    let books = Books::open(&proxy);
    // A session that falls silent.
    let mut silent: TcpStream = net.on(Side::Client, || try_connect(proxy.address()).unwrap());
    silent.write_all(b"x").unwrap();
    silent.read_exact(&mut [0]).unwrap();
    let start = Instant::now();
    let end = silent.read(&mut [0]).map_err(|error| error.kind());
    let idle = start.elapsed();
    proxy.wait_for_sessions(0);
    let timed_out = proxy.metric("evenkeel_sessions_closed_total", &[("reason", "idle_timeout")]);
    // More than a burst, then as many as have come back.
    let start = Instant::now();
    let served = (0..40).filter(|_| is_served(&net, proxy.address())).count();
    let allowed = 5.0 + 5.0 * start.elapsed().as_secs_f64() + 1.0;
    let start = Instant::now();
    eventually("one more is let in", PATIENCE, || is_served(&net, proxy.address()).then_some(()));
    let refilled = start.elapsed();
    // Probes.
    let up = || proxy.metric("evenkeel_backend_up", &[]);
    let was_up = up();
    backend.kill();
    let start = Instant::now();
    eventually("the backend is down", PATIENCE, || (up() < 0.5).then_some(()));
    let down = start.elapsed();
    show(
        &format!("CLOCK_MONOTONIC and CLOCK_BOOTTIME {AHEAD} s ahead (time namespace)"),
        "idle_timeout 1 s, limit 5/s and probes every 100 ms as ever",
        &format!(
            "silent session ended after {idle:.1?}; {served} of 40 at once served, at most \
             {allowed:.1} allowed, one more after {refilled:.1?}; backend down after {down:.1?}"
        ),
    );
    assert!(timed_out > 0.5 && matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    assert!(idle > Duration::from_millis(900) && idle < Duration::from_secs(3));
    assert!(served >= 5 && served as f64 <= allowed && refilled < Duration::from_secs(2));
    assert!(was_up > 0.5 && down < Duration::from_secs(5));
    books.close(&proxy);
}
