//! What operators have set and what is known of backends: over an upgrade, a crash and a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use support::admin::is_same;
use support::upgrade::reaper;
use support::{
    Backend, PATIENCE, Proxy, Setup, eventually, reset_when_dropped, try_connect, visit,
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
