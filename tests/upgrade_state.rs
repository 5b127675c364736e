//! What operators have set and what is known of backends: over an upgrade, a crash and a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use rustix::process::Signal;
use support::admin::is_same;
use support::upgrade::reaper;
use support::{
    Backend, PATIENCE, Proxy, Setup, connect_from, eventually, read_line, reset_when_dropped,
    try_connect, visit,
};

// If this fails, an upgrade puts back into service what an operator has taken out, or forgets that
// it can be put back.
#[test]
fn what_operators_have_set_changes_hands() {
    reaper();
    let [one, two, three] = ["one", "two", "three"].map(Backend::named);
    let proxy = Setup::of(&[&one, &two, &three]).pool("balance = \"round-robin\"").start();
    proxy.tell("back/b1", "drain");
    proxy.tell("back/b2", "maint");
    proxy.weigh("back/b3", 7);
    let (_first, _) = proxy.upgraded();
    let states = ["b1", "b2", "b3"].map(|name| proxy.backend("back", name));
    assert_eq!(states.each_ref().map(|it| it.state.as_str()), ["drain", "maint", "up"]);
    assert_eq!(states[2].weight, 7);
    assert!(states.iter().all(|it| it.set_by_operator.is_some()));
    (0..8).for_each(|_| assert_eq!(visit(proxy.address()), "three"));
    proxy.tell("back/b1", "ready");
    proxy.tell("back/b3", "forget");
    let (_second, _) = proxy.upgraded();
    let states = ["b1", "b2", "b3"].map(|name| proxy.backend("back", name));
    assert_eq!(states.each_ref().map(|it| it.state.as_str()), ["up", "maint", "up"]);
    assert_eq!(states[2].weight, 1);
}

// If this fails, the new process sends clients to a backend that the old one knew to be down, until
// its own probes have found it out.
#[test]
fn a_backend_that_is_down_gets_nothing_from_the_new_process() {
    reaper();
    let (down, up) = (Backend::refusing(), Backend::named("up"));
    let health = |interval: &str| {
        let health = format!("[pool.back.health]\ninterval = \"{interval}\"\nfall = 3\n");
        Setup::of(&[&down, &up]).pool("balance = \"round-robin\"").also(&health).text()
    };
    let proxy = Proxy::start(&health("100ms"));
    eventually("b1 is down", PATIENCE, || {
        (proxy.backend("back", "b1").state == "down").then_some(())
    });
    // The third probe of the new process would come after hours.
    proxy.rewrite(&health("1h"));
    let (_heir, _) = proxy.upgraded();
    let b1 = proxy.backend("back", "b1");
    assert_eq!(b1.state, "down", "{b1:?}");
    (0..8).for_each(|_| assert_eq!(visit(proxy.address()), "up"));
    let failures = proxy.metric("evenkeel_backend_connect_failures_total", &[("backend", "b1")]);
    assert!(is_same(failures, 0.0), "{failures}");
}

// If this fails, an upgrade readmits a backend that fails the sessions of clients.
#[test]
fn an_ejection_goes_on() {
    reaper();
    let (bad, good) = (Backend::resetting(), Backend::echo());
    let outlier = "[pool.back.outlier]\neject = \"5m\"\nconsecutive_failures = 1\n";
    let setup = Setup::of(&[&bad, &good]).pool("balance = \"round-robin\"").also(outlier);
    let proxy = setup.start();
    eventually("b1 is ejected", PATIENCE, || {
        if let Ok(mut stream) = try_connect(proxy.address()) {
            use std::io::{Read, Write};
            let _reset = stream.write_all(b"x").and_then(|()| stream.read(&mut [0]));
            reset_when_dropped(&stream);
        }
        (proxy.backend("back", "b1").state == "ejected").then_some(())
    });
    let (_heir, _) = proxy.upgraded();
    assert_eq!(proxy.backend("back", "b1").state, "ejected");
    assert_eq!(proxy.backend("back", "b2").state, "up");
    proxy.tell("back/b1", "ready");
    assert_eq!(proxy.backend("back", "b1").state, "up");
}

// If this fails, a client that is over its limit gets a fresh burst by an upgrade, or by one that
// changes the limit.
#[test]
fn no_client_gets_a_fresh_burst() {
    reaper();
    let backend = Backend::named("one");
    let config = |limit: &str| Setup::of(&[&backend]).limit(limit).text();
    for (before, after) in [
        ("rate = \"1/h\"\nburst = 3", "rate = \"1/h\"\nburst = 3"),
        ("rate = \"1/h\"\nburst = 3", "rate = \"2/h\"\nburst = 3\ntable_size = 4096"),
        ("listener_rate = \"3/h\"", "listener_rate = \"3/h\""),
    ] {
        let proxy = Proxy::start(&config(before));
        (0..3).for_each(|_| assert_eq!(visit(proxy.address()), "one"));
        assert_eq!(visit(proxy.address()), "");
        proxy.rewrite(&config(after));
        let (_heir, _) = proxy.upgraded();
        assert_eq!(visit(proxy.address()), "", "{after}");
        assert!(!proxy.said().contains("begin anew"), "{}", proxy.said());
    }
}

// If this fails, an upgrade moves clients from the backends that know them.
#[test]
fn clients_stay_with_their_backends() {
    reaper();
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = &backends;
    let of = |members: &[&Backend], sticky: &str| {
        let keys = format!("balance = \"round-robin\"\nsticky = {{ {sticky} }}");
        Setup::of(members).pool(&keys).text()
    };
    let proxy = Proxy::start(&of(&[one, two], "size = 1024"));
    let served = |host: u8| {
        let client = (IpAddr::from([127, 14, 0, host]), 0);
        read_line(&mut connect_from(client, proxy.address()).unwrap()).unwrap()
    };
    let homes: Vec<String> = (1..=8).map(served).collect();
    assert_eq!(homes[..4], ["one", "two", "one", "two"]);
    // The file names another backend first: what the tables say of backends means others now.
    let first = format!("backends = [{{ address = \"{}\", name = \"b3\" }}, ", three.address());
    let rewritten = of(&[one, two], "size = 1024").replace("backends = [", &first);
    assert!(rewritten.contains("b3"), "{rewritten}");
    proxy.rewrite(&rewritten);
    let (_heir, _) = proxy.upgraded();
    for _ in 0..2 {
        assert_eq!((1..=8).map(served).collect::<Vec<_>>(), homes);
    }
    assert!(!proxy.said().contains("begin anew"), "{}", proxy.said());
}

/// The networks that are banned, with the reasons.
fn bans(proxy: &Proxy) -> Vec<(String, String)> {
    let list = proxy.ask("GET", "/v1/bans", "");
    let list: serde_json::Value = serde_json::from_str(&list.body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let rows = list["bans"].as_array().unwrap();
    rows.iter().map(|row| (text(&row["network"]), text(&row["reason"]))).collect()
}

const BANNED: [(&str, &str); 2] = [("127.15.0.1", "floods"), ("192.0.2.0/24", "")];

fn ban(proxy: &Proxy) {
    let body = "{\"bans\": [{\"network\": \"127.15.0.1\", \"for\": \"1h\", \"reason\": \
                \"floods\"}, {\"network\": \"192.0.2.0/24\"}]}";
    assert_eq!(proxy.ask("POST", "/v1/bans", body).code, 200);
}

fn is_banned(proxy: &Proxy) {
    let known: Vec<_> =
        BANNED.iter().map(|(network, why)| ((*network).into(), (*why).into())).collect();
    assert_eq!(bans(proxy), known);
    let served = |host: u8| {
        let client = (IpAddr::from([127, 15, 0, host]), 0);
        connect_from(client, proxy.address()).and_then(|mut stream| read_line(&mut stream))
    };
    assert_eq!(served(2).unwrap(), "one");
    assert!(served(1).map_or(true, |line| line.is_empty()));
}

// If this fails, an upgrade lets in again whom an operator has banned.
#[test]
fn bans_change_hands() {
    reaper();
    let backend = Backend::named("one");
    let proxy = Setup::of(&[&backend]).start();
    ban(&proxy);
    let (_first, _) = proxy.upgraded();
    is_banned(&proxy);
    let (_second, _) = proxy.upgraded();
    is_banned(&proxy);
    assert_eq!(proxy.ask("DELETE", "/v1/bans", "").code, 200);
    let (_third, _) = proxy.upgraded();
    assert_eq!(bans(&proxy), []);
}

// If this fails, a crash lets in again whom an operator has banned, or one that is no longer banned
// stays out.
#[test]
fn bans_outlive_a_crash() {
    let state = tempfile::tempdir().unwrap();
    let backend = Backend::named("one");
    let config = Setup::of(&[&backend]).text();
    let crash = |mut proxy: Proxy| {
        proxy.signal(Signal::KILL);
        proxy.wait_for_end();
    };
    let proxy = service(&config, state.path());
    ban(&proxy);
    crash(proxy);
    let proxy = service(&config, state.path());
    is_banned(&proxy);
    assert_eq!(proxy.ask("DELETE", "/v1/bans/127.15.0.1", "").code, 200);
    crash(proxy);
    let proxy = service(&config, state.path());
    assert_eq!(bans(&proxy), [("192.0.2.0/24".to_owned(), String::new())]);
}

/// Runs this configuration with a state directory, as a service has it.
fn service(config: &str, state: &Path) -> Proxy {
    let (directory, mut command) = Proxy::command(config);
    command.env("STATE_DIRECTORY", state);
    let mut proxy = Proxy::spawn(directory, command);
    proxy.wait_until_serving();
    proxy
}

// If this fails, a crash or a restart puts back into service what an operator has taken out.
#[test]
fn what_operators_have_set_outlives_a_crash() {
    let state = tempfile::tempdir().unwrap();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let config = Setup::of(&[&one, &two]).pool("balance = \"round-robin\"").text();
    let mut proxy = service(&config, state.path());
    proxy.tell("back/b1", "drain");
    proxy.weigh("back/b2", 9);
    proxy.signal(Signal::KILL);
    proxy.wait_for_end();
    let mut proxy = service(&config, state.path());
    proxy.wait_for_line("backend back/b1 stays drain (set by an operator)");
    assert_eq!(proxy.backend("back", "b1").state, "drain");
    assert_eq!(proxy.backend("back", "b2").weight, 9);
    (0..4).for_each(|_| assert_eq!(visit(proxy.address()), "two"));
    proxy.tell("back/b1", "ready");
    assert!(proxy.stop().success());
    let proxy = service(&config, state.path());
    assert_eq!(proxy.backend("back", "b1").state, "up");
    assert_eq!(proxy.backend("back", "b2").weight, 9);
}

// If this fails, a damaged state file keeps the service from its start.
#[test]
fn a_state_file_that_cannot_be_understood_is_told_and_replaced() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("state.json");
    let backend = Backend::named("one");
    let config = Setup::of(&[&backend]).text();
    for text in ["{\"version\": 1, \"set\": [", "{\"version\": 2, \"set\": []}"] {
        fs::write(&file, text).unwrap();
        let proxy = service(&config, state.path());
        proxy.wait_for_line("what operators had set is forgotten");
        assert_eq!(visit(proxy.address()), "one");
        let written: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(written, serde_json::json!({ "version": 1, "set": [] }));
    }
}

// If this fails, the process after an upgrade does not keep the file up to date, or the one before
// goes on writing it.
#[test]
fn the_state_file_changes_hands() {
    reaper();
    let state = tempfile::tempdir().unwrap();
    let backend = Backend::named("one");
    let mut proxy = service(&Setup::of(&[&backend]).text(), state.path());
    proxy.tell("back/b1", "drain");
    let (heir, _) = proxy.upgraded();
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    let text = || fs::read_to_string(state.path().join("state.json")).unwrap();
    assert!(text().contains("drain"), "{}", text());
    proxy.tell("back/b1", "maint");
    assert!(text().contains("maint") && !text().contains("drain"), "{}", text());
    heir.signal(Signal::TERM);
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
}
