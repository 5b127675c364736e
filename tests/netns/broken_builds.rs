//! Negative controls of the integrity cases: the program itself with a known fault put in.
//!
//! `meddler.rs` shows that the judges see what a proxy may do wrong; this shows that the cases
//! bring the program into the states in which a fault of its own would do that.

use crate::crowd::{Stage, play_all};
use crate::net::{Keys, Link, Net};

/// Plays this many sessions through a program with this fault; some must be judged wrong.
#[track_caller]
fn noticed(defect: &str, splice: &str, sessions: u64) {
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let global = format!("workers = 2\nsplice = \"{splice}\"\nlog = {{ sessions = false }}");
    let config = net.config(&[1], Keys { global: &global, ..Keys::default() });
    let proxy = net.evenkeel_under(&["env", &format!("EVENKEEL_DEFECT={defect}")], &config);
    let name = format!("{defect}, splice {splice}");
    let outcome = play_all(&net, (&name, proxy.address()), &stage, (91 << 32, sessions));
    let found = outcome.failures.len();
    println!("injected: {name}; expected: failures; seen: {found} of {}", outcome.sessions);
    assert!(found > 0, "{name}: nothing noticed");
}

/// If it fails, FIN may overtake bytes that are held, and the integrity cases do not notice. Only
/// few sessions come there: about four of a thousand.
#[test]
fn fin_before_the_last_byte_is_noticed() {
    noticed("FinWhileHeld", "never", 8000);
}

/// If it fails, the rest of a short write may be lost, and the integrity cases do not notice.
#[test]
fn a_short_write_that_loses_the_rest_is_noticed() {
    noticed("DropShortWrite", "never", 200);
}

/// If it fails, a reset may look like an end, and the integrity cases do not notice.
#[test]
fn a_reset_that_is_forgotten_is_noticed() {
    noticed("ForgetReset", "auto", 400);
}

/// If it fails, pipes may never come back, and the books do not notice.
#[test]
fn a_pipe_that_is_kept_is_noticed() {
    let net = Net::new(Link::PLAIN);
    let stage = Stage::open(&net, net.backend(1));
    let config =
        net.config(&[1], Keys { global: "workers = 1\nsplice = \"always\"", ..Keys::default() });
    let proxy = net.evenkeel_under(&["env", "EVENKEEL_DEFECT=KeepPipe"], &config);
    play_all(&net, ("KeepPipe", proxy.address()), &stage, (92 << 32, 200));
    proxy.wait_for_sessions(0);
    let out = proxy.metric("evenkeel_pipes_in_use", &[]);
    println!("injected: KeepPipe; expected: pipes that stay out; seen: {out}");
    assert!(out > 0.5);
}
