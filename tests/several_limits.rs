//! Several limits for one listener: all that are about a client are asked, and one that refuses is
//! named everywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use support::admin::is_same;
use support::{Backend, Proxy, Setup, connect_from};

/// Two tiers, and a network with a budget of its own. Workers refuse, so that each refusal has a
/// line in the log.
const TIERS: &str = r#"
[[listener.front.limit]]
name = "address"
kernel_refusal = "off"
rate = "3/h"
exempt = ["127.0.9.0/24"]

[[listener.front.limit]]
name = "network"
kernel_refusal = "off"
rate = "5/h"
max_concurrent = 50
key = { v4 = 24 }
exempt = ["127.0.9.0/24"]

[[listener.front.limit]]
name = "office"
clients = ["127.0.9.0/24"]
kernel_refusal = "off"
rate = "8/h"
"#;

/// A visit of the client 127.0.`network`.`host`: its session, if it is served.
fn visit(proxy: &Proxy, network: u8, host: u8) -> Option<TcpStream> {
    let source = IpAddr::from(Ipv4Addr::new(127, 0, network, host));
    // A refusal is a reset, which may come as early as the connect.
    let mut client = connect_from((source, 0), proxy.address()).ok()?;
    client.read_exact(&mut [0]).ok()?;
    Some(client)
}

/// How many of `count` visits are served, one after the other.
fn served(proxy: &Proxy, network: u8, host: u8, count: usize) -> usize {
    (0..count).filter(|_| visit(proxy, network, host).is_some()).count()
}

#[track_caller]
fn assert_decided(proxy: &Proxy, limit: &str, [allowed, refused]: [u32; 2]) {
    for (decision, count) in [("allowed", allowed), ("refused", refused)] {
        let labels = [("limit", limit), ("decision", decision)];
        let found = proxy.metric("evenkeel_limit_decisions_total", &labels);
        assert!(is_same(found, count.into()), "{limit}: {found} {decision}");
    }
}

// If this fails, a client that moves within its network has more than the network may, a known NAT
// is limited like one client, or an operator cannot see which limit refuses.
#[test]
fn every_limit_that_is_about_a_client_is_asked() {
    let backend = Backend::named("hello");
    let proxy = Setup::of(&[&backend]).also(TIERS).start();
    assert_eq!(served(&proxy, 1, 1, 5), 3, "an address");
    assert_eq!(served(&proxy, 1, 2, 5), 2, "what its network has left");
    assert_eq!(served(&proxy, 2, 1, 1), 1, "another network");
    assert_eq!(served(&proxy, 9, 1, 6) + served(&proxy, 9, 2, 6), 12, "clients of the office");
    assert_decided(&proxy, "address", [6, 2]);
    assert_decided(&proxy, "network", [6, 3]);
    assert_decided(&proxy, "office", [12, 0]);
    let lines = proxy.wait_for_session_lines(23);
    for (limit, count) in [("address", 2), ("network", 3)] {
        let tells = |line: &&serde_json::Value| {
            line["limit"] == limit && line["reason"] == "client over its rate"
        };
        assert_eq!(lines.iter().filter(tells).count(), count, "{limit}: {lines:#?}");
    }
    let unnamed = lines.iter().filter(|line| line["limit"].is_null()).count();
    assert_eq!(unnamed, 18);
}

// If this fails, what one limit refuses uses up the budgets of the others.
#[test]
fn nothing_is_counted_unless_all_admit() {
    let backend = Backend::named("hello");
    let limits = |network: u32, second: &str| {
        format!(
            "[[listener.front.limit]]\nname = \"network\"\nrate = \"{network}/h\"\n\
             max_concurrent = 9\nkey = {{ v4 = 24 }}\n\
             [[listener.front.limit]]\nname = \"address\"\n{second}\n"
        )
    };
    let setup = Setup::of(&[&backend]);
    let proxy = setup.clone().also(&limits(6, "rate = \"2/h\"\nlistener_rate = \"5/h\"")).start();
    assert_eq!(served(&proxy, 1, 1, 30), 2);
    assert_decided(&proxy, "network", [2, 0]);
    // Of the network's six two are used, and of the five of all.
    proxy.wait_for_sessions(0);
    assert_eq!(served(&proxy, 1, 2, 30), 2);
    assert_eq!(served(&proxy, 1, 3, 30), 1, "the fifth of all");
    proxy.wait_for_sessions(0);
    // A limit that keeps its name keeps what it has counted.
    proxy.reload_with(&setup.also(&limits(6, "max_concurrent = 1")).text());
    assert_eq!(served(&proxy, 1, 4, 1), 1, "the sixth of the network");
    proxy.wait_for_sessions(0);
    assert_eq!(served(&proxy, 1, 5, 1), 0);
}

// If this fails, a client holds more sessions than one of its limits allows, or places are lost.
#[test]
fn sessions_count_in_every_limit_and_leave_every_one() {
    let backend = Backend::named("hello");
    let limits = "[[listener.front.limit]]\nname = \"address\"\nmax_concurrent = 2\n\
                  [[listener.front.limit]]\nname = \"network\"\nmax_concurrent = 3\n\
                  key = { v4 = 24 }\n\
                  [[listener.front.limit]]\nname = \"trial\"\nmax_concurrent = 1\n\
                  mode = \"observe\"\n";
    let setup = Setup::of(&[&backend]);
    let proxy = setup.clone().also(limits).start();
    for round in 1..=3 {
        let first = [visit(&proxy, 1, 1), visit(&proxy, 1, 1)].map(Option::unwrap);
        assert!(visit(&proxy, 1, 1).is_none(), "round {round}");
        let second = visit(&proxy, 1, 2).unwrap();
        assert!(visit(&proxy, 1, 3).is_none(), "round {round}");
        drop((first, second));
        proxy.wait_for_sessions(0);
    }
    let offenders = proxy.document()["listeners"]["front"]["offenders"].clone();
    let expected = serde_json::json!([
        { "limit": "trial", "client": "127.0.1.1", "would_refuse": 3, "at_least": 3 },
    ]);
    assert_eq!(offenders, expected);
    // Once all of it is one limit, sessions that run count there.
    let open = [visit(&proxy, 1, 1), visit(&proxy, 1, 1)].map(Option::unwrap);
    proxy.reload_with(&setup.limit("max_concurrent = 3").text());
    let third = visit(&proxy, 1, 1);
    assert!(third.is_some() && visit(&proxy, 1, 1).is_none());
    drop((open, third));
    proxy.wait_for_sessions(0);
}

// If this fails, `explain` does not say which of several limits a client meets.
#[test]
fn explain_tells_of_every_limit() {
    let backend = Backend::named("hello");
    let proxy = Setup::of(&[&backend]).also(TIERS).start();
    assert_eq!(served(&proxy, 1, 1, 4), 3);
    let ask = |client: &str| {
        let path = format!("/v1/explain?listener=front&client={client}");
        let answer = proxy.ask("GET", &path, "").body;
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()
    };
    let said = ask("127.0.1.1");
    assert_eq!((&said["outcome"], &said["reason"]), (&"refused".into(), &"limit".into()));
    let [address, network, office] = [0, 1, 2].map(|place| &said["limits"][place]);
    assert_eq!((&address["name"], &address["left"]), (&"address".into(), &0.into()));
    assert_eq!((&network["name"], &network["left"]), (&"network".into(), &2.into()));
    assert_eq!((&office["name"], &office["concerned"]), (&"office".into(), &false.into()));
    assert_eq!(ask("127.0.9.1")["limits"][0]["exempt"], true);
    assert_eq!(ask("127.0.9.1")["limits"][2]["left"], 8);
}
