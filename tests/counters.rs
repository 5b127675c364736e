//! Counters and the session log against what clients and backends saw: nothing is counted twice,
//! forgotten, or counted as something else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};

use support::admin::is_same;
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually, read_all,
    reset_when_dropped, stream, try_connect,
};

/// Every series of the documentation that has a fixed name, and how many there are of it with one
/// listener with one limit, one pool, two backends and one worker.
const SERIES: &[(&str, usize)] = &[
    ("evenkeel_config_reloads_total", 2),
    ("evenkeel_listener_accepted_total", 1),
    ("evenkeel_sessions_active", 1),
    ("evenkeel_backend_sessions_active", 2),
    ("evenkeel_backend_sessions_total", 2),
    ("evenkeel_backend_connect_seconds_count", 2),
    ("evenkeel_backend_connect_seconds_sum", 2),
    ("evenkeel_backend_probes_total", 4),
    ("evenkeel_backend_probe_seconds_count", 2),
    ("evenkeel_backend_state_changes_total", 4),
    ("evenkeel_backend_bytes_total", 4),
    ("evenkeel_pool_queue_seconds_count", 1),
    ("evenkeel_pool_panicking", 1),
    ("evenkeel_bytes_total", 4),
    ("evenkeel_session_seconds_count", 1),
    ("evenkeel_limit_decisions_total", 3),
    ("evenkeel_pipes_in_use", 1),
    ("evenkeel_log_dropped_total", 1),
];

/// Reasons a client is refused for.
const REFUSED: &[&str] = &[
    "limit",
    "concurrent",
    "listener_rate",
    "access",
    "max_sessions",
    "descriptors",
    "no_backend",
    "proxy_header",
    "peek",
];
/// Reasons a session ends for.
const CLOSED: &[&str] = &[
    "done",
    "client_reset",
    "backend_reset",
    "client_gone",
    "idle_timeout",
    "half_closed_timeout",
    "drain",
];

// If this fails, a dashboard or an alert has no series until the first event, and misses it.
#[test]
fn every_series_is_there_at_zero_from_the_start() {
    let backends = [Backend::echo(), Backend::echo()];
    let setup = Setup::of(&[&backends[0], &backends[1]]);
    let proxy = setup.limit("rate = \"1000/s\"").start();
    let metrics = proxy.metrics();
    for (name, count) in SERIES {
        assert_eq!(metrics.count(name, &[]), *count, "{name}");
        assert!(is_same(metrics.sum(name, &[]), 0.0), "{name} is not zero");
    }
    for (name, reasons) in
        [("evenkeel_listener_refused_total", REFUSED), ("evenkeel_sessions_closed_total", CLOSED)]
    {
        for reason in reasons {
            assert_eq!(metrics.count(name, &[("reason", reason)]), 1, "{name} {reason}");
        }
        assert!(is_same(metrics.sum(name, &[]), 0.0), "{name}");
    }
    for reason in ["refused", "timeout"] {
        let labels = [("reason", reason)];
        assert_eq!(metrics.count("evenkeel_backend_connect_failures_total", &labels), 2);
    }
    assert!(is_same(metrics.sum("evenkeel_backend_up", &[]), 2.0));
    assert!(is_same(metrics.sum("evenkeel_config_generation", &[]), 1.0));
    assert_eq!(metrics.count("evenkeel_build_info", &[]), 1);
    assert_eq!(metrics.count("evenkeel_worker_busy_seconds_total", &[]), 1);
}

/// What clients did, by what they may know of it.
#[derive(Default)]
struct Tally {
    connections: usize,
    sent: u64,
    received: u64,
}

impl Tally {
    /// A whole exchange with an echoing backend.
    fn exchange(&mut self, address: SocketAddr, key: u64, length: u64) {
        stream::exchange(&mut connect(address), (key, length));
        self.connections += 1;
        self.sent += length;
        self.received += length;
    }

    /// A session that is open when this returns.
    fn open(&mut self, address: SocketAddr, length: u64) -> TcpStream {
        let mut client = connect(address);
        stream::send(&mut client, 1, length).unwrap();
        let (received, end) = stream::receive_up_to(&mut client, 1, length);
        end.unwrap();
        assert_eq!(received, length);
        self.connections += 1;
        self.sent += length;
        self.received += length;
        client
    }
}

/// A client whose limit is used up is refused this many times.
fn knock(address: SocketAddr, host: u8, times: usize) -> usize {
    let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, host));
    let is_served = || {
        let Ok(mut client) = connect_from((source, 0), address) else { return false };
        client.write_all(b"?").is_ok() && client.read(&mut [0]).is_ok_and(|count| count == 1)
    };
    (0..times).filter(|_| is_served()).count()
}

// If this fails, an operator who bills, plans or debugs by these numbers is misled.
#[test]
fn the_counters_agree_with_clients_and_backends() {
    let backends = [Backend::echo(), Backend::echo()];
    let refusing = Backend::refusing();
    let proxy = Setup::of(&[&backends[0], &backends[1]])
        .global("workers = 2")
        .pool("balance = \"least-connections\"")
        .limit("rate = \"1/h\"\nburst = 3\nexempt = [\"127.0.0.1\"]")
        .also(&format!(
            "[pool.dead]\nbackends = [\"{}\"]\n[listener.dead]\nbind = [\"127.0.0.2:0\"]\n\
             pool = \"dead\"",
            refusing.address()
        ))
        .start();
    let [front, dead] = *proxy.addresses() else { panic!("two addresses") };
    let mut tally = Tally::default();
    for (key, length) in (0..).zip([0, 1, 1000, 40_000, 70_000, 300_000, 2_000_000]) {
        tally.exchange(front, key, length);
    }
    let reset = tally.open(front, 50_000);
    reset_when_dropped(&reset);
    drop(reset);
    let open = [tally.open(front, 10), tally.open(front, 100_000)];
    assert_eq!(knock(front, 7, 8), 3);
    let knocked = 3;
    for _ in 0..4 {
        let _reset = try_connect(dead).and_then(|mut client| client.read(&mut [0]));
    }
    proxy.wait_for_sessions(2);
    let metrics = proxy.metrics();
    let front = |name: &str| metrics.sum(name, &[("listener", "front")]);
    let same = |what: &str, found: f64, wanted: usize| {
        let wanted = f64::from(u32::try_from(wanted).unwrap());
        assert!(is_same(found, wanted), "{what}: {found}, not {wanted}");
    };
    same("accepted", front("evenkeel_listener_accepted_total"), tally.connections + 8);
    same("refused", front("evenkeel_listener_refused_total"), 5);
    same("closed", front("evenkeel_sessions_closed_total"), tally.connections - 2 + knocked);
    same("session lengths", front("evenkeel_session_seconds_count"), tally.connections + 1);
    same("active", front("evenkeel_sessions_active"), open.len());
    same("no backend", metrics.sum("evenkeel_listener_refused_total", &[("listener", "dead")]), 4);
    same(
        "dead accepted",
        metrics.sum("evenkeel_listener_accepted_total", &[("listener", "dead")]),
        4,
    );
    for (direction, counted) in [("to_backend", tally.sent), ("to_client", tally.received)] {
        for name in ["evenkeel_bytes_total", "evenkeel_backend_bytes_total"] {
            let moved = metrics.sum(name, &[("direction", direction)]);
            same(direction, moved, usize::try_from(counted).unwrap() + knocked);
        }
    }
    for (backend, saw) in [("b1", &backends[0]), ("b2", &backends[1])] {
        let of = |name| metrics.sum(name, &[("pool", "back"), ("backend", backend)]);
        same(backend, of("evenkeel_backend_sessions_total"), saw.accepted());
        same(backend, of("evenkeel_backend_connect_seconds_count"), saw.accepted());
        let labels = [("backend", backend), ("direction", "to_backend")];
        let bytes = metrics.sum("evenkeel_backend_bytes_total", &labels);
        same(backend, bytes, saw.received());
    }
    let received = backends.iter().map(Backend::received).sum::<usize>();
    assert_eq!(received, usize::try_from(tally.sent).unwrap() + knocked);
    let status = proxy.status();
    assert_eq!(status.listeners["front"].accepted, tally.connections as u64 + 8);
    assert_eq!(status.listeners["front"].refused, 5);
    assert_eq!(status.listeners["front"].sessions, 2);
}

/// The only line of the session log that has this `term`.
#[track_caller]
fn line_with(proxy: &Proxy, count: usize, term: &str) -> serde_json::Value {
    let lines = proxy.wait_for_session_lines(count);
    let found: Vec<_> = lines.iter().filter(|line| line["term"] == term).collect();
    assert_eq!(found.len(), 1, "of {term}, in {lines:?}");
    found[0].clone()
}

// If this fails, the log lacks a connection, has it twice, or says something else of it.
#[test]
fn each_connection_has_one_line_that_tells_the_truth() {
    let backends = [Backend::echo(), Backend::resetting()];
    let refusing = Backend::refusing();
    let proxy = Setup::of(&[&backends[0]])
        .limit("rate = \"1/h\"\nburst = 1\nexempt = [\"127.0.0.1\"]")
        .also(&format!(
            "[pool.rude]\nbackends = [\"{}\"]\n[listener.rude]\nbind = [\"127.0.0.2:0\"]\n\
             pool = \"rude\"\n[pool.dead]\nbackends = [\"{}\"]\n[listener.dead]\n\
             bind = [\"127.0.0.3:0\"]\npool = \"dead\"",
            backends[1].address(),
            refusing.address()
        ))
        .start();
    let [front, rude, dead] = *proxy.addresses() else { panic!("three addresses") };

    let mut client = connect(front);
    let source = client.local_addr().unwrap();
    stream::exchange(&mut client, (1, 123_456));
    let line = line_with(&proxy, 1, "--");
    let told = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or("-").to_owned();
    assert_eq!(told(&line, "listener"), "front");
    assert_eq!(told(&line, "pool"), "back");
    assert_eq!(told(&line, "backend"), "b1");
    assert_eq!(told(&line, "client"), source.to_string());
    assert_eq!(line["bytes_to_backend"], 123_456);
    assert_eq!(line["bytes_to_client"], 123_456);
    assert_eq!(line["generation"], 1);

    let mut client = connect(front);
    client.write_all(&[b'x'; 77]).unwrap();
    client.read_exact(&mut [0; 77]).unwrap();
    reset_when_dropped(&client);
    drop(client);
    let line = line_with(&proxy, 2, "CD");
    assert_eq!(line["bytes_to_backend"], 77);
    assert_eq!(line["bytes_to_client"], 77);

    let mut client = connect(rude);
    client.write_all(b"?").unwrap();
    assert!(client.read(&mut [0]).is_err());
    let line = line_with(&proxy, 3, "SD");
    assert_eq!(told(&line, "listener"), "rude");
    assert_eq!(line["bytes_to_backend"], 1);
    assert_eq!(line["bytes_to_client"], 0);

    assert_eq!(knock(front, 8, 2), 1);
    let line = line_with(&proxy, 5, "PR");
    assert!(told(&line, "client").starts_with("127.0.0.8:"));
    assert_eq!(told(&line, "backend"), "-");
    assert!(line["connect_ms"].is_null(), "{line}");

    let _reset = try_connect(dead).and_then(|mut client| client.read(&mut [0]));
    let line = line_with(&proxy, 6, "SC");
    assert_eq!(told(&line, "listener"), "dead");
    let reason = "no backend could be reached: connect refused (3 attempts)";
    assert_eq!(told(&line, "reason"), reason);
    assert!(line["connect_ms"].is_null(), "{line}");

    let lines = proxy.session_lines();
    assert_eq!(lines.len(), 6);
    let numbers: BTreeMap<_, _> =
        lines.iter().map(|line| (line["session"].as_u64().unwrap(), line)).collect();
    assert_eq!(numbers.len(), 6, "numbers of sessions repeat");
}

// If this fails, sessions that end in a stop are not in the log.
#[test]
fn a_stop_loses_no_line() {
    let backend = Backend::echo();
    let mut proxy = Setup::of(&[&backend]).global("drain_timeout = \"100ms\"").start();
    let clients: Vec<_> = (0..50).map(|_| connect(proxy.address())).collect();
    for client in clients.iter().take(20) {
        client.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&mut client.try_clone().unwrap()).unwrap().is_empty());
    }
    eventually("thirty are open", PATIENCE, || (proxy.sessions() == 30).then_some(()));
    assert_eq!(proxy.stop().code(), Some(0));
    let lines = proxy.session_lines();
    assert_eq!(lines.len(), 50);
    assert_eq!(lines.iter().filter(|line| line["term"] == "KD").count(), 30);
}
