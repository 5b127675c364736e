//! Clients over their rate are refused by the kernel exactly as workers would refuse them, before
//! they are accepted.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use crate::support::admin::is_same;
use crate::support::upgrade::reaper;
use crate::support::verbs::{evenkeel, text};
use crate::support::{Backend, PATIENCE, Proxy, Setup, connect_from, eventually};

/// What a client met with.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Met {
    Served,
    /// Before any handshake.
    RefusedByKernel,
    /// After it.
    RefusedByWorker,
}

fn visit(to: SocketAddr, host: [u8; 2]) -> Met {
    visit_from(IpAddr::from(Ipv4Addr::new(127, 0, host[0], host[1])), to)
}

/// What a client from this address meets with; one that is served has read a byte.
pub(crate) fn visit_from(source: IpAddr, to: SocketAddr) -> Met {
    let mut client = match connect_from((source, 0), to) {
        Ok(client) => client,
        Err(error) => {
            return match error.kind() {
                ErrorKind::ConnectionRefused => Met::RefusedByKernel,
                ErrorKind::ConnectionReset => Met::RefusedByWorker,
                _ => panic!("{error}"),
            };
        }
    };
    match client.read(&mut [0]) {
        Ok(1) => Met::Served,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Met::RefusedByWorker,
        other => panic!("{other:?}"),
    }
}

/// A listener with this limit, and its backend, which serves until it is dropped.
fn limited(limit: &str) -> (Backend, Setup) {
    let backend = Backend::named("hello");
    let setup = Setup::of(&[&backend]).limit(limit);
    (backend, setup)
}

/// Where the clients of the only limit are refused, and why.
fn refused_by(proxy: &Proxy) -> (String, String) {
    let status = proxy.status();
    let limit = status.listeners["front"].limits.values().next().unwrap();
    (limit.refused_by.clone(), limit.why.clone())
}

/// Every series that counts connections, as it has to be after these visits: those that came, that
/// were refused, and that were refused by the kernel.
#[track_caller]
fn assert_counted(proxy: &Proxy, [came, refused, by_kernel]: [u32; 3]) {
    let expected = [
        ("evenkeel_listener_accepted_total", None, came),
        ("evenkeel_listener_refused_total", Some(("reason", "limit")), refused),
        ("evenkeel_limit_decisions_total", Some(("decision", "refused")), refused),
        ("evenkeel_limit_decisions_total", Some(("decision", "allowed")), came - refused),
        ("evenkeel_limit_kernel_refusals_total", None, by_kernel),
    ];
    for (name, labels, count) in expected {
        let found = proxy.metric(name, labels.as_slice());
        assert!(is_same(found, count.into()), "{name} {labels:?}: {found}, not {count}");
    }
    let status = proxy.status();
    let listener = &status.listeners["front"];
    assert_eq!((listener.accepted, listener.refused), (came.into(), refused.into()));
}

// If this fails, a flood costs the workers an accept for each connection, hits clients that did
// nothing, goes on after its time, or is not counted.
#[test]
fn a_flood_is_refused_before_it_is_accepted() {
    let (_backend, setup) = limited("rate = \"2/h\"\nkernel_refusal = \"require\"");
    let proxy = setup.start();
    let to = proxy.address();
    assert_eq!(refused_by(&proxy), ("kernel".into(), String::new()));
    let flood = |host| (0..50).map(|_| visit(to, host)).collect::<Vec<_>>();
    let met = flood([0, 2]);
    assert_eq!(met[..3], [Met::Served, Met::Served, Met::RefusedByWorker]);
    assert!(met[3..].iter().all(|one| *one == Met::RefusedByKernel), "{met:?}");
    assert_counted(&proxy, [50, 48, 47]);
    assert_eq!(visit(to, [0, 3]), Met::Served, "a client that did nothing");
    assert_counted(&proxy, [51, 48, 47]);
    let offenders = eventually("the offender", PATIENCE, || {
        let status = proxy.status();
        let limit = status.listeners["front"].limits["default"].clone();
        (!limit.offenders.is_empty()).then_some(limit.offenders)
    });
    assert_eq!(offenders[0].client, "127.0.0.2");
    let line = proxy.wait_for_line("by the kernel");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["client"], &line["limit"]), (&"127.0.0.2".into(), &"default".into()));
    let socket = proxy.admin_socket().display().to_string();
    let explained = evenkeel(&["explain", "--socket", &socket, "front", "127.0.0.2"]);
    let explained = text(&explained.stdout);
    assert!(explained.contains("refusal  by the kernel, while it is over"), "{explained}");
}

// If this fails, the kernel goes on to refuse a client whose time is over, or lets it in too early.
#[test]
fn a_client_is_let_in_when_its_time_has_come() {
    for algorithm in ["token-bucket", "sliding-window", "fixed-window"] {
        let limit = format!("rate = \"2/s\"\nalgorithm = \"{algorithm}\"");
        let (_backend, setup) = limited(&limit);
        let proxy = setup.start();
        let to = proxy.address();
        // Whichever window the first visits meet: until the kernel refuses.
        let shut = Instant::now();
        while visit(to, [0, 2]) != Met::RefusedByKernel {
            assert!(shut.elapsed() < PATIENCE, "{algorithm}");
        }
        let met = eventually("the time of the client", PATIENCE, || {
            let met = visit(to, [0, 2]);
            (met != Met::RefusedByKernel).then_some(met)
        });
        assert_eq!(met, Met::Served, "{algorithm}: the kernel and the worker differ");
    }
}

// If this fails, an operator who raises a limit in an incident waits until the old one is over.
#[test]
fn a_raised_limit_lets_clients_in_at_once() {
    let (_backend, setup) = limited("rate = \"1/h\"\nburst = 1");
    let proxy = setup.start();
    let to = proxy.address();
    let until_shut = || {
        eventually("the kernel refuses", PATIENCE, || {
            (visit(to, [0, 2]) == Met::RefusedByKernel).then_some(())
        });
    };
    until_shut();
    let before = proxy.metric("evenkeel_limit_kernel_refusals_total", &[]);
    let raised = setup.text().replace("burst = 1", "burst = 5");
    proxy.reload_with(&raised);
    // At once: the reload answers when it is so.
    assert_eq!(visit(to, [0, 2]), Met::Served);
    // What was counted stays counted.
    assert!(proxy.metric("evenkeel_limit_kernel_refusals_total", &[]) >= before);
    until_shut();
    // Exempt, switched off, or gone: as if there had never been an entry.
    for changed in [
        raised.replace("rate = ", "exempt = [\"127.0.0.2/32\"]\nrate = "),
        raised.replace("rate = ", "kernel_refusal = \"off\"\nrate = "),
    ] {
        proxy.reload_with(&changed);
        for _ in 0..5 {
            assert_ne!(visit(to, [0, 2]), Met::RefusedByKernel);
        }
        proxy.reload_with(&raised);
        until_shut();
    }
    let total = proxy.metric("evenkeel_listener_refused_total", &[("reason", "limit")]);
    let status = proxy.status();
    assert!(is_same(total, f64::from(u32::try_from(status.listeners["front"].refused).unwrap())));
}

// If this fails, a reload of something else lets a flood in again, or forgets how much it was.
#[test]
fn a_reload_of_something_else_keeps_the_gate() {
    let (_backend, setup) = limited("rate = \"1/h\"");
    let proxy = setup.start();
    let to = proxy.address();
    for _ in 0..10 {
        visit(to, [0, 2]);
    }
    assert_counted(&proxy, [10, 9, 8]);
    proxy.reload_with(&setup.clone().global("shutdown_delay = \"1s\"").text());
    for _ in 0..10 {
        assert_eq!(visit(to, [0, 2]), Met::RefusedByKernel);
    }
    assert_counted(&proxy, [20, 19, 18]);
}

// If this fails, a client whom a full table has forgotten, and whom a worker would let in, is
// refused by the kernel until the end of what is not known any more.
#[test]
fn a_client_that_the_limit_has_forgotten_is_let_in() {
    let (_backend, setup) = limited("rate = \"1/h\"\ntable_size = 8");
    let proxy = setup.start();
    let to = proxy.address();
    while visit(to, [0, 2]) != Met::RefusedByKernel {}
    // Each of them is over its rate for as long, so that the first is the next to be forgotten.
    for host in 1..=64 {
        while visit(to, [1, host]) != Met::RefusedByKernel {}
    }
    assert!(proxy.metric("evenkeel_limit_evictions_total", &[]) > 0.0);
    eventually("the forgotten client", PATIENCE, || {
        (visit(to, [0, 2]) == Met::Served).then_some(())
    });
}

// If this fails, an upgrade leaves the gate of a process that is gone: it refuses by what no worker
// knows any more, and nothing counts it.
#[test]
fn an_upgrade_brings_a_gate_of_its_own() {
    reaper();
    let (_backend, setup) = limited("rate = \"1/h\"");
    let proxy = setup.start();
    let to = proxy.address();
    let met = |times: u32| (0..times).map(|_| visit(to, [0, 2])).collect::<Vec<_>>();
    let expected = [Met::Served, Met::RefusedByWorker, Met::RefusedByKernel];
    assert_eq!(met(3), expected);
    let (heir, told) = proxy.upgraded();
    assert!(told.contains("1 of 1 changed hands"), "{told}");
    // What the client has used goes along; the gate is a new one, which has not heard of it.
    eventually("the new process refuses", PATIENCE, || {
        (visit(to, [0, 2]) == Met::RefusedByWorker).then_some(())
    });
    assert_eq!(met(1), expected[2..]);
    assert_eq!(visit(to, [0, 3]), Met::Served);
    drop(heir);
}
