//! Verbs about several backends at once, and the wait for their end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::admin::is_same;
use support::switched::{PROBES, clients, switchable, wait_until};
use support::verbs::{code, command, evenkeel, text};
use support::{Backend, Proxy, Setup};

fn run(proxy: &Proxy, arguments: &[&str]) -> Output {
    let socket = proxy.admin_socket();
    evenkeel(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
}

fn states(proxy: &Proxy) -> Vec<String> {
    let pools = proxy.status().pools;
    pools["back"].backends.values().map(|backend| backend.state.clone()).collect()
}

// If this fails, a rack is taken out host by host, and one is forgotten; or a pattern takes out
// more than it names.
#[test]
fn a_verb_takes_several_backends_and_patterns() {
    let backends = [(); 3].map(|()| Backend::echo());
    let proxy = Setup::of(&backends.iter().collect::<Vec<_>>()).start();
    let output = run(&proxy, &["drain", "back/b1", "b*/b[1]", "back/b3"]);
    assert_eq!(code(&output), 1, "brackets are no pattern, they stand in names by address");
    assert!(text(&output.stderr).contains("no backend fits b*/b[1]"), "{}", text(&output.stderr));
    assert_eq!(states(&proxy), ["up"; 3], "nothing is done by halves for a slip in a pattern");
    let output = run(&proxy, &["drain", "back/b1", "ba*/b?", "--wait"]);
    let words: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(words.len(), 4, "each once, and the end of the wait: {words:?}");
    assert!(words[0].starts_with("backend back/b1: drain"), "{words:?}");
    assert_eq!(words[3], "no session left after 0s");
    assert_eq!(states(&proxy), ["drain"; 3]);
    assert_eq!(code(&run(&proxy, &["weight", "back/*", "7"])), 0);
    assert_eq!(code(&run(&proxy, &["ready", "back/b1", "back/b2"])), 0);
    assert_eq!(states(&proxy), ["up", "up", "drain"]);
    assert!((1..=3).all(|number| proxy.backend("back", &format!("b{number}")).weight == 7));
    assert_eq!(code(&run(&proxy, &["forget", "*/*"])), 0);
    assert_eq!(states(&proxy), ["up"; 3]);
    // A name without a pattern is the process's to judge; the others are carried out.
    let output = run(&proxy, &["maint", "back/b9", "back/b2"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("has no backend \"b9\""), "{}", text(&output.stderr));
    assert_eq!(states(&proxy), ["up", "maint", "up"]);
}

// If this fails, a board or an alert does not see a drain, a weight, or how often a server went
// down.
#[test]
fn the_metrics_show_what_operators_and_probes_say() {
    let is_well = Arc::new(AtomicBool::new(true));
    let backends = [(); 3].map(|()| switchable(&is_well));
    let setup = Setup::of(&backends.iter().collect::<Vec<_>>());
    let proxy = setup.backend(1, "max_sessions = 9").also(PROBES).start();
    let of = |name: &str, labels: &[(&str, &str)]| proxy.metric(name, labels);
    let admin = |backend, state| {
        of("evenkeel_backend_admin_state", &[("backend", backend), ("state", state)])
    };
    assert_eq!(code(&run(&proxy, &["drain", "back/b2"])), 0);
    assert_eq!(code(&run(&proxy, &["maint", "back/b3"])), 0);
    assert_eq!(code(&run(&proxy, &["weight", "back/b1", "7"])), 0);
    for (backend, wanted) in [("b1", "ready"), ("b2", "drain"), ("b3", "maint")] {
        for state in ["ready", "drain", "maint"] {
            let is_it = f64::from(u8::from(state == wanted));
            assert!(is_same(admin(backend, state), is_it), "{backend} {state}");
        }
    }
    assert!(is_same(of("evenkeel_backend_weight", &[("backend", "b1")]), 7.0));
    assert!(is_same(of("evenkeel_backend_weight", &[("backend", "b2")]), 1.0));
    assert!(is_same(of("evenkeel_backend_sessions_max", &[]), 9.0), "of b1 alone");
    assert!(is_same(of("evenkeel_pool_backends_wanted", &[]), 1.0));
    for (round, state) in (0..).zip(["down", "up", "down"]) {
        is_well.store(state == "up", Ordering::SeqCst);
        wait_until(&proxy, "b1", state);
        let healthy = f64::from(u8::from(state == "up"));
        assert!(is_same(of("evenkeel_pool_backends_healthy", &[]), healthy));
        // None else is left: at the default threshold the verdict is ignored.
        assert!(is_same(of("evenkeel_pool_panicking", &[]), 1.0 - healthy));
        let turned =
            |to| of("evenkeel_backend_state_changes_total", &[("backend", "b1"), ("state", to)]);
        let wanted = [[1.0, 0.0], [1.0, 1.0], [2.0, 1.0]][round];
        assert!(is_same(turned("down"), wanted[0]) && is_same(turned("up"), wanted[1]));
    }
    let metrics = proxy.metrics();
    let of_b1 = |name| metrics.sum(name, &[("backend", "b1")]);
    let probes = of_b1("evenkeel_backend_probes_total");
    assert!(probes > 3.5 && is_same(of_b1("evenkeel_backend_probe_seconds_count"), probes));
    assert!(of_b1("evenkeel_backend_probe_seconds_sum") > 0.0);
}

// If this fails, a deployment stops a server that still has sessions, or waits for ever.
#[test]
fn a_drain_waits_until_no_session_is_left() {
    let backends = [Backend::echo(), Backend::echo()];
    let proxy = Setup::of(&backends.iter().collect::<Vec<_>>()).start();
    let clients = clients(&proxy, 6);
    let output = run(&proxy, &["drain", "back/*", "--wait", "--timeout", "20ms"]);
    assert_eq!(code(&output), 4, "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stderr).lines().last().unwrap(),
        "evenkeel: 6 sessions left at the end of --timeout"
    );
    let socket = proxy.admin_socket();
    let arguments = ["drain", "back/*", "--wait", "--socket", socket.to_str().unwrap()];
    let mut waits = command(&arguments).spawn().unwrap();
    assert!(waits.try_wait().unwrap().is_none());
    drop(clients);
    assert!(waits.wait().unwrap().success());
    proxy.wait_for_sessions(0);
    let output = run(&proxy, &["drain", "back/*", "--timeout", "1s"]);
    assert_eq!(code(&output), 2, "a timeout of no wait");
}

// If this fails, a deployment goes on to the next server before this one serves.
#[test]
fn ready_waits_until_the_backend_is_up() {
    let is_well = Arc::new(AtomicBool::new(false));
    let backend = switchable(&is_well);
    let proxy = Setup::of(&[&backend]).also(PROBES).start();
    wait_until(&proxy, "b1", "down");
    let output = run(&proxy, &["ready", "back/b1", "--wait", "--timeout", "20ms"]);
    assert_eq!(code(&output), 4, "{}", text(&output.stderr));
    is_well.store(true, Ordering::SeqCst);
    let output = run(&proxy, &["ready", "back/b1", "--wait"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(states(&proxy), ["up"]);
}

// If this fails, it cannot be told later which user has drained a server, or tried to.
#[test]
fn the_log_says_who_asked_for_what() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(code(&run(&proxy, &["drain", "back/b1", "--reset"])), 0);
    let line = proxy.wait_for_line("/v1/backends/back/b1/drain");
    assert!(line.contains(&format!("asked by uid {uid} (pid ")), "{line}");
    assert!(line.contains("POST") && line.contains("reset") && line.contains(": 200"), "{line}");
    assert_eq!(code(&run(&proxy, &["ready", "back/b7"])), 1);
    let line = proxy.wait_for_line("/v1/backends/back/b7/ready");
    assert!(line.contains(": 404"), "{line}");
    assert!(!proxy.said().contains("GET /v1/status"), "a look changes nothing");
}
