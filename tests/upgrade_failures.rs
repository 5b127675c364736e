//! Upgrades that come to nothing: the process that runs goes on as if nothing had been asked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use support::upgrade::{Heir, listening, reaper};
use support::verbs::{code, text};
use support::{Backend, PATIENCE, Proxy, Setup, eventually, visit};

/// A program that is this text.
fn program(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Asserts that the upgrade to a program fails, and why.
#[track_caller]
fn fails(proxy: &Proxy, program: &Path, why: &str) {
    let output = proxy.upgrade(&["--timeout", "2s", "--binary", program.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(code(&output), 1, "{said}{}", text(&output.stdout));
    assert!(said.contains(why), "{why:?} is not in {said:?}");
}

// If this fails, a new program that is missing, of another machine, ends, hangs, lies or is too
// different harms the one that serves, or leaves something open in it.
#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    reaper();
    let backend = Backend::named("one");
    let proxy = Setup::of(&[&backend]).global("workers = 2").start();
    let place = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        program(place.path(), name, format!("#!/bin/sh\n{text}\n").as_bytes())
    };
    // ELF of a machine that is none.
    let mut foreign = vec![0; 4096];
    foreign[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xff\xff");
    let ready = "printf '{\"ready\":{\"version\":\"9\"}}' >&0";
    let cases = [
        (place.path().join("missing"), "No such file"),
        (program(place.path(), "foreign", &foreign), "Exec format error"),
        (script("ends", "exit 7"), "ended before it served: exit status: 7"),
        (script("hangs", "exec sleep 60"), "did not serve in time"),
        (script("babbles", "printf hello >&0; exec sleep 60"), "answered nonsense"),
        (script("lies", &format!("{ready}; exec sleep 60")), "out of turn"),
        (
            script("guesses", "printf '{\"taken\":{\"cookies\":[1,2]}}' >&0; exec sleep 60"),
            "other sockets than those passed",
        ),
        (
            script("refuses", "printf '{\"refused\":{\"reason\":\"too old\"}}' >&0; exit 1"),
            "too old",
        ),
        (script("stays", "exec 0</dev/null; exec sleep 60"), "closed its channel"),
        (
            script("few", &format!("ulimit -n 5; exec {} \"$@\"", env!("CARGO_BIN_EXE_evenkeel"))),
            "may not open as many descriptors",
        ),
    ];
    let sockets = listening(proxy.addresses());
    // Connections of the verb itself are closed a moment after it ends.
    let settled = || {
        eventually("no verb is connected", PATIENCE, || {
            let count = proxy.descriptors();
            (count == proxy.descriptors()).then_some(count)
        })
    };
    fails(&proxy, &cases[0].0, cases[0].1);
    let before = settled();
    for (program, why) in &cases {
        fails(&proxy, program, why);
        assert_eq!(visit(proxy.address()), "one", "after {}", program.display());
    }
    eventually("nothing is left open", PATIENCE, || (settled() <= before).then_some(()));
    assert_eq!(listening(proxy.addresses()), sockets);
    assert_eq!(proxy.status().pid, proxy.pid());
}

// If this fails, a file that is refused ends the service, or keeps later upgrades, reloads and
// stops from working.
#[test]
fn a_bad_file_is_refused_and_a_good_one_is_not() {
    reaper();
    let backend = Backend::named("one");
    let good = Setup::of(&[&backend]).text();
    let mut proxy = Proxy::start(&good);
    proxy.rewrite("[global]\nworkers = \"many\"\n");
    let output = proxy.upgrade(&[]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("workers"), "{}", text(&output.stderr));
    assert_eq!(visit(proxy.address()), "one");
    proxy.rewrite(&good);
    proxy.signal(Signal::HUP);
    proxy.wait_for_line("nothing changed");
    let (heir, _) = proxy.upgraded();
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    heir.signal(Signal::TERM);
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
}

// If this fails, two new processes take sockets from one, or a process that has handed over does so
// again.
#[test]
fn one_upgrade_at_a_time() {
    reaper();
    let backend = Backend::named("one");
    let proxy = Setup::of(&[&backend]).start();
    let place = tempfile::tempdir().unwrap();
    let began = place.path().join("began");
    let text_of = format!("#!/bin/sh\ntouch {}; exec sleep 60\n", began.display());
    let hangs = program(place.path(), "hangs", text_of.as_bytes());
    let mut first = proxy.upgrade_command(&["--binary", hangs.to_str().unwrap()]);
    let first = first.args(["--timeout", "10s"]).spawn().unwrap();
    eventually("the first one runs", PATIENCE, || began.exists().then_some(()));
    let second = proxy.upgrade(&[]);
    assert_eq!(code(&second), 1);
    assert!(text(&second.stderr).contains("under way already"), "{}", text(&second.stderr));
    // A stop does not wait for it, and takes the new process along.
    proxy.signal(Signal::TERM);
    let first = first.wait_with_output().unwrap();
    assert_eq!(code(&first), 1, "{}", text(&first.stderr));
    let mut proxy = proxy;
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
}

// If this fails, a process that has handed over takes orders that are for the other one.
#[test]
fn a_process_that_has_handed_over_only_drains() {
    reaper();
    let backend = Backend::named("one");
    let mut proxy = Setup::of(&[&backend]).start();
    let kept = support::connect(proxy.address());
    proxy.wait_for_sessions(1);
    let (heir, _) = proxy.upgraded_with(&["--keep-sessions"]);
    for signal in [Signal::USR2, Signal::HUP] {
        proxy.signal(signal);
    }
    proxy.wait_for_line("another process has taken over: signal it instead");
    assert_eq!(Heir::of(&proxy).pid(), heir.pid());
    drop(kept);
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
}
