//! Requests beyond a limit are refused, exactly, counted, and only to the clients that are over it;
//! what runs goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use support::admin::is_same;
use support::{Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually};

/// What a client met with.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Met {
    Served,
    Reset,
    Closed,
}

/// Connects from this host of 127.0.0.0/8; the connection, if it is served.
fn visit(address: SocketAddr, host: [u8; 3]) -> (Met, Option<TcpStream>) {
    let [two, three, four] = host;
    let source = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::new(127, two, three, four)),
        SocketAddr::V6(_) => "::1".parse().unwrap(),
    };
    // A reset may come as early as the connect.
    let Ok(mut client) = connect_from((source, 0), address) else { return (Met::Reset, None) };
    match client.read(&mut [0]) {
        Ok(0) => (Met::Closed, None),
        Ok(_) => (Met::Served, Some(client)),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (Met::Reset, None),
        Err(error) => panic!("{error}"),
    }
}

fn met(address: SocketAddr, host: [u8; 3]) -> Met {
    visit(address, host).0
}

/// A limit whose refusals each have a line in the log.
fn by_workers(limit: &str) -> String {
    format!("{limit}\nkernel_refusal = \"off\"")
}

fn greeter() -> Backend {
    Backend::named("hello")
}

/// `count` clients at once, all of one address; those that are served stay open.
fn race(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let start = Arc::new(Barrier::new(count));
    let racing: Vec<_> = (0..count)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                visit(address, [0, 0, 1]).1
            })
        })
        .collect();
    racing.into_iter().filter_map(|one| one.join().unwrap()).collect()
}

fn refused(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("evenkeel_listener_refused_total", &[("reason", reason)])
}

#[track_caller]
fn assert_refused(proxy: &Proxy, reason: &str, count: u32) {
    let found = refused(proxy, reason);
    assert!(is_same(found, count.into()), "{found} refused for {reason}");
}

// If this fails, one client can take all there is, or takes it from others.
#[test]
fn over_its_rate_a_client_is_reset_and_others_are_not() {
    let backend = greeter();
    let proxy = Setup::of(&[&backend]).limit(&by_workers("rate = \"1/min\"\nburst = 3")).start();
    for _ in 0..3 {
        assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
    }
    for _ in 0..3 {
        assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Reset);
    }
    assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Served);
    assert_refused(&proxy, "limit", 3);
    for (decision, count) in [("allowed", 4), ("refused", 3), ("would_refuse", 0)] {
        let labels = [("decision", decision)];
        proxy.wait_for_metric("evenkeel_limit_decisions_total", &labels, count.into());
    }
    let last = proxy.wait_for_session_lines(7);
    assert_eq!(last.iter().filter(|line| line["term"] == "PR").count(), 3);
}

// If this fails, a client over its rate that is to be closed in order is reset instead.
#[test]
fn over_its_rate_a_client_is_closed_when_asked_to() {
    let backend = greeter();
    let proxy =
        Setup::of(&[&backend]).limit("rate = \"1/min\"\nburst = 1\naction = \"close\"").start();
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Closed);
    // A client that speaks first too.
    let mut client = connect(proxy.address());
    let _may_be_late = client.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(client.read(&mut [0]), Ok(0)));
}

// If this fails, a client that waits is still refused.
#[test]
fn the_budget_comes_back() {
    let backend = greeter();
    let proxy = Setup::of(&[&backend]).limit("rate = \"5/s\"\nburst = 2").start();
    let began = Instant::now();
    let mut served = 0_u32;
    eventually("several more are served", PATIENCE, || {
        served += u32::from(met(proxy.address(), [0, 0, 1]) == Met::Served);
        (served == 6).then_some(())
    });
    // 2 at once, 4 more at 5 per second: not before 0.8 s.
    assert!(began.elapsed() > Duration::from_millis(790), "{:?}", began.elapsed());
    assert!(refused(&proxy, "limit") > 0.5);
}

// If this fails, health checkers and office networks are limited like strangers.
#[test]
fn the_exempt_are_never_limited() {
    let backend = greeter();
    let limit = "rate = \"1/min\"\nburst = 1\nmax_concurrent = 1\nexempt = [\"127.1.0.0/16\"]";
    let proxy = Setup::of(&[&backend]).limit(limit).start();
    let open: Vec<_> = (0..5).map(|_| visit(proxy.address(), [1, 2, 3])).collect();
    assert!(open.iter().all(|(met, _)| *met == Met::Served));
    assert_eq!(met(proxy.address(), [2, 2, 3]), Met::Served);
    assert_eq!(met(proxy.address(), [2, 2, 3]), Met::Reset);
}

// If this fails, a limit cannot be tried out before it is enforced.
#[test]
fn an_observing_limit_counts_and_lets_through() {
    let backend = greeter();
    let limit = "rate = \"1/min\"\nburst = 2\nmode = \"observe\"";
    let proxy = Setup::of(&[&backend]).limit(limit).start();
    for _ in 0..5 {
        assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
    }
    for (decision, count) in [("allowed", 2), ("would_refuse", 3), ("refused", 0)] {
        let labels = [("decision", decision)];
        proxy.wait_for_metric("evenkeel_limit_decisions_total", &labels, count.into());
    }
    assert_refused(&proxy, "limit", 0);
    let lines = proxy.wait_for_session_lines(5);
    let tells = |line: &&serde_json::Value| {
        line["reason"]
            .as_str()
            .is_some_and(|why| why.ends_with("(client over its rate, observed only)"))
    };
    let told = lines.iter().filter(tells).count();
    assert_eq!(told, 3, "{lines:#?}");
}

// If this fails, an operator cannot see which clients a limit would refuse before it is enforced.
#[test]
fn an_observing_limit_names_those_it_would_refuse() {
    let backend = greeter();
    let setup = |mode: &str| {
        let limit = format!("rate = \"1/h\"\nkey = {{ v4 = 24 }}\nmode = \"{mode}\"");
        Setup::of(&[&backend]).global("workers = 2").limit(&limit)
    };
    let proxy = setup("observe").start();
    for (host, visits) in [([1, 1, 1], 4), ([2, 2, 2], 6), ([1, 1, 9], 1), ([3, 3, 3], 1)] {
        for _ in 0..visits {
            assert_eq!(met(proxy.address(), host), Met::Served);
        }
    }
    let offenders = proxy.document()["listeners"]["front"]["offenders"].clone();
    let expected = serde_json::json!([
        { "limit": "default", "client": "127.2.2.0/24", "would_refuse": 5, "at_least": 5 },
        { "limit": "default", "client": "127.1.1.0/24", "would_refuse": 4, "at_least": 4 },
    ]);
    assert_eq!(offenders, expected);
    // What was seen outlives a reload, and is not shown of a limit that is enforced.
    proxy.reload_with(&setup("observe").pool("retries = 1").text());
    assert_eq!(proxy.document()["listeners"]["front"]["offenders"], expected);
    proxy.reload_with(&setup("enforce").text());
    assert_eq!(proxy.document()["listeners"]["front"]["offenders"], serde_json::json!([]));
}

// If this fails, a client has more sessions open than it may, or loses places for ever.
#[test]
fn concurrent_sessions_are_exact_and_given_back() {
    let backend = greeter();
    let proxy = Setup::of(&[&backend]).global("workers = 2").limit("max_concurrent = 10").start();
    for round in 1..=3 {
        let open = race(proxy.address(), 32);
        assert_eq!(open.len(), 10, "round {round}");
        assert_refused(&proxy, "concurrent", 22 * round);
        assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Served);
        drop(open);
        proxy.wait_for_sessions(0);
    }
}

// If this fails, places of a client are lost when its session fails rather than ends.
#[test]
fn a_failed_session_gives_its_place_back() {
    let backend = Backend::refusing();
    let proxy = Setup::of(&[&backend]).limit("max_concurrent = 1").start();
    for count in 1..=5 {
        assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Reset);
        assert_refused(&proxy, "no_backend", count);
        proxy.wait_for_sessions(0);
    }
    assert_refused(&proxy, "concurrent", 0);
}

// If this fails, an algorithm that is configured is not the one that is enforced.
#[test]
fn windows_admit_their_number_and_no_more() {
    for algorithm in ["sliding-window", "fixed-window"] {
        let backend = greeter();
        let limit = by_workers(&format!("algorithm = \"{algorithm}\"\nrate = \"3/h\""));
        let proxy = Setup::of(&[&backend]).global("workers = 2").limit(&limit).start();
        assert_eq!(race(proxy.address(), 16).len(), 3, "{algorithm}");
        assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Reset);
        assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Served);
        assert_refused(&proxy, "limit", 14);
        for (decision, count) in [("allowed", 4), ("refused", 14)] {
            let labels = [("decision", decision)];
            proxy.wait_for_metric("evenkeel_limit_decisions_total", &labels, count.into());
        }
        let tells = |line: &&serde_json::Value| line["reason"] == "client over its rate";
        assert_eq!(proxy.wait_for_session_lines(18).iter().filter(tells).count(), 14);
    }
}

// If this fails, a window never ends, or ends too early.
#[test]
fn the_budget_of_a_window_comes_back() {
    // A fixed window is back a second after its first connection. Of a sliding one a third has slid
    // out a third of a second into the next window, which may begin at any moment.
    for (algorithm, milliseconds) in [("fixed-window", 950), ("sliding-window", 650)] {
        let backend = greeter();
        let limit = format!("algorithm = \"{algorithm}\"\nrate = \"3/s\"");
        let proxy = Setup::of(&[&backend]).limit(&limit).start();
        let began = Instant::now();
        let mut served = 0_u32;
        eventually("three more are served", PATIENCE, || {
            served += u32::from(met(proxy.address(), [0, 0, 1]) == Met::Served);
            (served == 6).then_some(())
        });
        let least = Duration::from_millis(milliseconds);
        assert!(began.elapsed() > least, "{algorithm}: {:?}", began.elapsed());
        assert!(refused(&proxy, "limit") > 0.5);
    }
}

// If this fails, a listener takes more than its rate when there are many clients or workers.
#[test]
fn the_rate_of_a_listener_is_exact_over_clients_and_workers() {
    for algorithm in ["token-bucket", "sliding-window", "fixed-window"] {
        let backend = greeter();
        let limit = format!("algorithm = \"{algorithm}\"\nlistener_rate = \"10/h\"");
        let proxy = Setup::of(&[&backend]).global("workers = 2").limit(&limit).start();
        let open = race(proxy.address(), 32);
        assert_eq!(open.len(), 10, "{algorithm}");
        assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Reset);
        assert_refused(&proxy, "listener_rate", 23);
        assert_refused(&proxy, "limit", 0);
        for (decision, count) in [("allowed", 10), ("refused", 23), ("would_refuse", 0)] {
            let labels = [("decision", decision)];
            proxy.wait_for_metric("evenkeel_limit_decisions_total", &labels, count.into());
        }
        let by = proxy.document()["listeners"]["front"]["refused_by"]["listener_rate"].clone();
        assert_eq!(by, 23);
        drop(open);
        let lines = proxy.wait_for_session_lines(33);
        let tells = |line: &&serde_json::Value| {
            line["term"] == "PR" && line["reason"] == "listener over its rate"
        };
        assert_eq!(lines.iter().filter(tells).count(), 23, "{lines:#?}");
    }
}

// If this fails, one client that floods keeps all others out.
#[test]
fn a_client_over_its_own_rate_costs_the_listener_nothing() {
    let backend = greeter();
    let limit = "rate = \"2/h\"\nmax_concurrent = 1\nlistener_rate = \"5/h\"\naction = \"close\"";
    let proxy = Setup::of(&[&backend]).limit(limit).start();
    let (_, first) = visit(proxy.address(), [0, 0, 1]);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Closed);
    for _ in 0..5 {
        assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Closed);
    }
    for host in 2..=5 {
        assert_eq!(met(proxy.address(), [0, 0, host]), Met::Served);
    }
    assert_eq!(met(proxy.address(), [0, 0, 6]), Met::Closed);
    // Its own limit is named, whatever the listener's says.
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Closed);
    for (reason, count) in [("concurrent", 7), ("listener_rate", 1)] {
        assert_refused(&proxy, reason, count);
    }
    drop(first);
}

// If this fails, a client pays for connections that others have kept it from.
#[test]
fn a_client_refused_for_the_listener_keeps_its_own_budget() {
    let backend = greeter();
    let own = "rate = \"2/h\"\nmax_concurrent = 1\n";
    let setup = Setup::of(&[&backend]).limit(&format!("{own}listener_rate = \"1/h\""));
    let proxy = setup.start();
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
    for _ in 0..5 {
        assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Reset);
    }
    assert_refused(&proxy, "listener_rate", 5);
    proxy.reload_with(&setup.limit(own).text());
    for _ in 0..2 {
        assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Served);
        proxy.wait_for_sessions(0);
    }
    assert_eq!(met(proxy.address(), [0, 0, 2]), Met::Reset);
    assert_refused(&proxy, "limit", 1);
}

// If this fails, the rate of a listener cannot be tried out, or turns health checkers away.
#[test]
fn the_rate_of_a_listener_observes_and_exempts() {
    let backend = greeter();
    let limit = "listener_rate = \"2/h\"\nmode = \"observe\"\nexempt = [\"127.1.0.0/16\"]";
    let proxy = Setup::of(&[&backend]).limit(limit).start();
    for host in [[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 2], [0, 0, 3], [0, 0, 4], [1, 0, 1]] {
        assert_eq!(met(proxy.address(), host), Met::Served);
    }
    for (decision, count) in [("allowed", 2), ("would_refuse", 2), ("refused", 0)] {
        let labels = [("decision", decision)];
        proxy.wait_for_metric("evenkeel_limit_decisions_total", &labels, count.into());
    }
    assert_refused(&proxy, "listener_rate", 0);
    let lines = proxy.wait_for_session_lines(7);
    let tells = |line: &&serde_json::Value| {
        line["reason"]
            .as_str()
            .is_some_and(|why| why.ends_with("(listener over its rate, observed only)"))
    };
    assert_eq!(lines.iter().filter(tells).count(), 2, "{lines:#?}");
}

// If this fails, a reload gives floods a fresh budget, or forgets sessions that are open.
#[test]
fn what_was_counted_stays_while_it_is_counted_the_same_way() {
    let backend = greeter();
    let limit = |algorithm: &str, rate: u32, all: u32| {
        let how = format!("algorithm = \"{algorithm}\"\nmax_concurrent = 2");
        format!("{how}\nrate = \"{rate}/h\"\nlistener_rate = \"{all}/h\"")
    };
    let setup = Setup::of(&[&backend]).limit(&limit("fixed-window", 2, 4));
    let proxy = setup.start();
    let (_, first) = visit(proxy.address(), [0, 0, 1]);
    let (_, second) = visit(proxy.address(), [0, 0, 2]);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Reset);
    assert_refused(&proxy, "limit", 1);
    // Two of three are used by the client, three of four by all.
    proxy.reload_with(&setup.clone().limit(&limit("fixed-window", 3, 4)).text());
    proxy.wait_for_sessions(2);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Reset);
    assert_refused(&proxy, "limit", 2);
    assert_eq!(met(proxy.address(), [0, 0, 3]), Met::Reset);
    assert_refused(&proxy, "listener_rate", 1);
    // Rates begin anew; the session that is open still counts.
    proxy.reload_with(&setup.clone().limit(&limit("sliding-window", 9, 9)).text());
    proxy.wait_for_sessions(2);
    let (met_with, third) = visit(proxy.address(), [0, 0, 1]);
    assert_eq!(met_with, Met::Served);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Reset);
    assert_refused(&proxy, "concurrent", 1);
    drop((first, second, third));
    proxy.wait_for_sessions(0);
}

// If this fails, an operator who widens a table that was too small no longer sees that it was.
#[test]
fn what_a_table_had_no_room_for_is_counted_on() {
    let backend = greeter();
    let limit = |size: u32| format!("rate = \"1/h\"\ntable_size = {size}");
    let setup = Setup::of(&[&backend]).limit(&limit(8));
    let proxy = setup.start();
    for host in 1..=12 {
        assert_eq!(met(proxy.address(), [0, 0, host]), Met::Served);
    }
    let labels = [("listener", "front")];
    let evictions = || proxy.metric("evenkeel_limit_evictions_total", &labels);
    assert!(is_same(evictions(), 4.0), "{}", evictions());
    proxy.reload_with(&setup.clone().limit(&limit(64)).text());
    assert!(is_same(evictions(), 4.0), "{}", evictions());
}

// If this fails, addresses that must not connect do, or those that may are refused.
#[test]
fn deny_wins_over_allow() {
    let backend = greeter();
    let access = "allow = [\"127.3.0.0/16\", \"127.4.4.4\"]\ndeny = [\"127.3.7.0/24\"]\n\
                  kernel_refusal = \"off\"";
    let proxy = Setup::of(&[&backend]).listener(access).start();
    assert_eq!(met(proxy.address(), [3, 1, 1]), Met::Served);
    assert_eq!(met(proxy.address(), [4, 4, 4]), Met::Served);
    assert_eq!(met(proxy.address(), [3, 7, 1]), Met::Reset);
    assert_eq!(met(proxy.address(), [4, 4, 5]), Met::Reset);
    assert_refused(&proxy, "access", 2);
    assert_eq!(backend.accepted(), 2);
}

// If this fails, a client gets a fresh budget from each address of its network.
#[test]
fn a_prefix_counts_as_one_client() {
    let backend = greeter();
    let limit = "rate = \"1/min\"\nburst = 2\nkey = { v4 = 24, v6 = 64 }";
    let proxy = Setup::of(&[&backend]).limit(limit).start();
    assert_eq!(met(proxy.address(), [5, 5, 1]), Met::Served);
    assert_eq!(met(proxy.address(), [5, 5, 2]), Met::Served);
    assert_eq!(met(proxy.address(), [5, 5, 3]), Met::Reset);
    assert_eq!(met(proxy.address(), [5, 6, 3]), Met::Served);
}

// If this fails, IPv6 clients are not limited.
#[test]
fn ipv6_clients_are_limited() {
    let backend = greeter();
    let proxy = Setup::of(&[&backend])
        .listener("bind = [\"[::1]:0\"]")
        .limit("rate = \"1/min\"\nburst = 2\nmax_concurrent = 5")
        .start();
    let met: Vec<_> = (0..3).map(|_| met(proxy.address(), [0, 0, 1])).collect();
    assert_eq!(met, [Met::Served, Met::Served, Met::Reset]);
}

// If this fails, more sessions are open than the listener or the process may hold, or accepting
// does not resume when one ends.
#[test]
fn max_sessions_is_exact_and_accepting_resumes() {
    for (global, listener) in [("max_sessions = 10", ""), ("", "max_sessions = 10")] {
        let backend = greeter();
        let proxy =
            Setup::of(&[&backend]).global("workers = 2").global(global).listener(listener).start();
        let mut open = race(proxy.address(), 32);
        assert_eq!(open.len(), 10);
        assert_refused(&proxy, "max_sessions", 22);
        open.pop();
        proxy.wait_for_sessions(9);
        let (met, again) = visit(proxy.address(), [0, 0, 1]);
        assert_eq!(met, Met::Served);
        open.extend(again);
        for client in &mut open {
            client.write_all(b"x").unwrap();
            // The rest of the greeting, then the echo.
            client.read_exact(&mut [0; 6]).unwrap();
        }
    }
}

/// Half a second costs no CPU time to speak of.
#[track_caller]
fn assert_rests(proxy: &Proxy) {
    let (before, since) = (proxy.cpu_ticks(), Instant::now());
    eventually("half a second passes", PATIENCE, || {
        (since.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let used = proxy.cpu_ticks() - before;
    assert!(used <= 5, "{used} hundredths of a second in half a second");
}

/// Bounds the descriptors a running process may open.
fn bound_descriptors(proxy: &Proxy, current: u64) {
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

// If this fails, a process out of descriptors drops its sessions, spins, or never recovers.
#[test]
fn without_descriptors_sessions_go_on_and_new_ones_are_refused() {
    let backend = greeter();
    let proxy = Setup::of(&[&backend]).start();
    let (_, first) = visit(proxy.address(), [0, 0, 1]);
    let mut first = first.unwrap();
    // The admin socket needs descriptors too, so questions come later.
    bound_descriptors(&proxy, proxy.descriptors() as u64 + 9);
    let visits: Vec<_> = (0..12).map(|_| visit(proxy.address(), [0, 0, 1])).collect();
    let (served, turned): (Vec<_>, Vec<_>) =
        visits.into_iter().partition(|(met, _)| *met == Met::Served);
    assert!(!served.is_empty() && !turned.is_empty());
    assert!(turned.iter().all(|(met, _)| *met == Met::Reset));
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0; 6]).unwrap();
    assert_rests(&proxy);
    drop(served);
    eventually("new clients are served again", PATIENCE, || {
        (met(proxy.address(), [0, 0, 1]) == Met::Served).then_some(())
    });
    bound_descriptors(&proxy, 1024);
    assert!(refused(&proxy, "descriptors") > 0.5);
    first.write_all(b"y").unwrap();
    first.read_exact(&mut [0]).unwrap();
}

// If this fails, clients that cannot even be turned away make a worker go round, or wait for ever.
#[test]
fn without_any_descriptor_clients_wait_until_there_are_some() {
    let backend = greeter();
    let proxy = Setup::of(&[&backend]).global("workers = 2").start();
    let mut first = visit(proxy.address(), [0, 0, 1]).1.unwrap();
    bound_descriptors(&proxy, 3);
    let mut waiting: Vec<_> = (0..10).map(|_| connect(proxy.address())).collect();
    assert_rests(&proxy);
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0; 6]).unwrap();
    bound_descriptors(&proxy, 1024);
    for client in &mut waiting {
        client.read_exact(&mut [0]).unwrap();
    }
    assert_refused(&proxy, "descriptors", 0);
}

// If this fails, a process that may open few files admits more sessions than it has room for.
#[test]
fn a_low_limit_of_descriptors_is_respected_from_the_start() {
    let backend = greeter();
    let setup = Setup::of(&[&backend]).global("max_sessions = 5000");
    let (directory, command) = Proxy::command(&setup.text());
    let mut shell = std::process::Command::new("sh");
    shell.arg("-c").arg("ulimit -n 200; exec \"$0\" \"$@\"").arg(command.get_program());
    shell.args(command.get_args());
    let mut proxy = Proxy::spawn(directory, shell);
    proxy.wait_until_serving();
    let visits: Vec<_> = (0..150).map(|_| visit(proxy.address(), [0, 0, 1])).collect();
    let served = visits.iter().filter(|(met, _)| *met == Met::Served).count();
    assert!(served >= 10, "{served}");
    assert_eq!(served as u64, proxy.status().sessions_max);
    assert_refused(&proxy, "max_sessions", 150 - u32::try_from(served).unwrap());
    drop(visits);
    proxy.wait_for_sessions(0);
    assert_eq!(met(proxy.address(), [0, 0, 1]), Met::Served);
}
