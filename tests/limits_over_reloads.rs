//! What clients have used, and the sessions they hold, count on when a reload changes their limit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use support::{Backend, Proxy, Setup, connect_from};

/// A visit of the client 127.0.0.`host`: its session, if it is served.
fn visit(proxy: &Proxy, host: u8) -> Option<TcpStream> {
    let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, host));
    // A refusal is a reset, which may come as early as the connect.
    let mut client = connect_from((source, 0), proxy.address()).ok()?;
    client.read_exact(&mut [0]).ok()?;
    Some(client)
}

/// How many of `count` visits are served, one after the other.
fn served(proxy: &Proxy, host: u8, count: usize) -> usize {
    (0..count).filter(|_| visit(proxy, host).is_some()).count()
}

/// Uses up a part of a limit, then changes the limit; what is left after that.
#[track_caller]
fn left_by_reload(before: &str, used: usize, after: &str) -> usize {
    let backend = Backend::named("hello");
    let setup = Setup::of(&[&backend]);
    let proxy = setup.clone().limit(before).start();
    assert_eq!(served(&proxy, 1, used), used, "{before}");
    proxy.reload_with(&setup.limit(after).text());
    served(&proxy, 1, 40)
}

// If this fails, lowering a limit while clients flood gives the heaviest of them a fresh budget.
#[test]
fn a_lowered_limit_counts_what_was_used() {
    for (before, used, after, left) in [
        ("rate = \"100/h\"", 50, "rate = \"100/h\"\nburst = 10", 0),
        ("rate = \"100/h\"", 50, "rate = \"10/h\"", 0),
        ("rate = \"100/h\"", 4, "rate = \"10/h\"", 6),
        ("rate = \"100/min\"", 50, "rate = \"10/d\"", 0),
        ("rate = \"100/h\"", 50, "rate = \"10/h\"\nalgorithm = \"fixed-window\"", 0),
        ("rate = \"20/h\"\nalgorithm = \"sliding-window\"", 12, "rate = \"10/d\"", 0),
        ("rate = \"20/h\"", 12, "rate = \"10/h\"\ntable_size = 4096", 0),
        ("listener_rate = \"100/h\"", 50, "listener_rate = \"10/h\"", 0),
        ("listener_rate = \"100/h\"", 4, "listener_rate = \"10/d\"", 6),
    ] {
        assert_eq!(left_by_reload(before, used, after), left, "{before} to {after}");
    }
}

// If this fails, an operator who raises a limit for clients in need does not help them.
#[test]
fn a_raised_limit_is_there_at_once() {
    for (before, used, after, left) in [
        ("rate = \"10/h\"", 10, "rate = \"10/h\"\nburst = 25", 15),
        ("rate = \"10/h\"", 10, "rate = \"25/h\"", 15),
        ("rate = \"10/d\"\nalgorithm = \"fixed-window\"", 10, "rate = \"25/h\"", 15),
        ("listener_rate = \"10/d\"", 10, "listener_rate = \"25/h\"", 15),
        ("rate = \"10/h\"", 4, "rate = \"10/h\"\nmax_concurrent = 90", 6),
    ] {
        assert_eq!(left_by_reload(before, used, after), left, "{before} to {after}");
    }
}

// If this fails, a limit that was tried out with `observe` lets a client hold more sessions than
// it says once it is enforced, until the last of the old ones has ended.
#[test]
fn sessions_that_were_let_in_under_observe_count_once_it_is_enforced() {
    let backend = Backend::named("hello");
    let setup = |mode: &str| {
        Setup::of(&[&backend]).limit(&format!("max_concurrent = 2\nmode = \"{mode}\""))
    };
    let proxy = setup("observe").start();
    let mut open: Vec<_> = (0..4).map(|_| visit(&proxy, 1).expect("it only observes")).collect();
    proxy.reload_with(&setup("enforce").text());
    assert!(visit(&proxy, 1).is_none(), "four of two are open");
    assert!(visit(&proxy, 2).is_some());
    for sessions in [3, 2] {
        open.pop();
        proxy.wait_for_sessions(sessions);
        assert!(visit(&proxy, 1).is_none(), "{sessions} of two are open");
    }
    open.pop();
    proxy.wait_for_sessions(1);
    open.extend(visit(&proxy, 1));
    assert_eq!(open.len(), 2, "one of two was open");
    drop(open);
    proxy.wait_for_sessions(0);
    assert!(visit(&proxy, 1).is_some(), "every place was given back");
}

// If this fails, a limit that is added against clients that hold too many sessions counts none of
// those, or forgets them when something else of the limit changes.
#[test]
fn sessions_count_under_a_limit_that_is_added_later() {
    let backend = Backend::named("hello");
    let setup = Setup::of(&[&backend]).global("workers = 1");
    let proxy = setup.start();
    let mut open: Vec<_> = (0..3).map(|_| visit(&proxy, 1).unwrap()).collect();
    for limit in [
        "max_concurrent = 3",
        "max_concurrent = 3\ntable_size = 131072",
        "max_concurrent = 3\nkey = { v4 = 30 }",
        "max_concurrent = 3\nrate = \"1000/s\"",
    ] {
        proxy.reload_with(&setup.clone().limit(limit).text());
        assert!(visit(&proxy, 1).is_none(), "{limit}");
    }
    open.pop();
    proxy.wait_for_sessions(2);
    open.extend(visit(&proxy, 1));
    assert_eq!(open.len(), 3);
    // Without a limit nothing is counted, and the sessions that were leave no trace.
    proxy.reload_with(&setup.text());
    drop(open);
    proxy.wait_for_sessions(0);
    proxy.reload_with(&setup.limit("max_concurrent = 1").text());
    assert!(visit(&proxy, 1).is_some());
}
