//! What systemd hears of an upgrade, and what it has handed to the process before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::net::TcpListener;
use std::process::Command;

use rustix::process::Signal;
use support::systemd::{Notifications, activated, notifying};
use support::upgrade::{heard_of, listening, reaper, sockets_of};
use support::{Backend, Proxy, Setup, connect, read_line, visit};

// If this fails, systemd takes the end of the old process for the end of the service and starts a
// second one, or refuses what the new process says because it is not the main one yet.
#[test]
fn the_main_process_is_named_before_the_new_one_speaks() {
    reaper();
    let backend = Backend::named("one");
    let (mut proxy, notifications) = notifying(&Setup::of(&[&backend]).text(), &[]);
    notifications.wait_for("READY=1");
    proxy.wait_until_serving();
    let mut kept = connect(proxy.address());
    assert_eq!(read_line(&mut kept).unwrap(), "one");
    let (heir, _) = proxy.upgraded();
    let main = format!("MAINPID={}", heir.pid());
    let mut said = notifications.next();
    while said[0] != main {
        // The line for `systemctl status` comes at its own pace.
        assert!(said.iter().all(|line| line.starts_with("STATUS=")), "{said:?}");
        said = notifications.next();
    }
    assert!(notifications.next().contains(&"READY=1".to_owned()));
    drop(kept);
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    heir.signal(Signal::TERM);
    let mut said = notifications.next();
    while said.iter().all(|line| line.starts_with("STATUS=")) {
        said = notifications.next();
    }
    // The end of the old one was none of the service.
    assert!(said.contains(&"STOPPING=1".to_owned()), "{said:?}");
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
}

// If this fails, systemd hears of an upgrade that came to nothing.
#[test]
fn nothing_is_told_of_a_failure() {
    let backend = Backend::named("one");
    let (mut proxy, notifications) = notifying(&Setup::of(&[&backend]).text(), &[]);
    notifications.wait_for("READY=1");
    proxy.wait_until_serving();
    assert!(!proxy.upgrade(&["--binary", "/nonexistent/evenkeel"]).status.success());
    proxy.signal(Signal::TERM);
    loop {
        let said = notifications.next();
        if said.contains(&"STOPPING=1".to_owned()) {
            break;
        }
        assert!(said.iter().all(|line| line.starts_with("STATUS=")), "{said:?}");
    }
}

// If this fails, systemd kills the new process, because its watchdog was meant for the old one.
#[test]
fn the_new_process_feeds_the_watchdog() {
    reaper();
    let backend = Backend::named("one");
    let (directory, run) = Proxy::command(&Setup::of(&[&backend]).text());
    let path = directory.path().join("notify");
    let notifications = Notifications::bind(&path);
    // The shell knows its own process id, which exec keeps.
    let mut command = Command::new("sh");
    command.arg("-c").arg("export WATCHDOG_PID=$$; exec \"$@\"").arg("sh");
    command.arg(run.get_program()).args(run.get_args());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env("WATCHDOG_PID", "");
    let mut proxy = Proxy::spawn(directory, command);
    notifications.wait_for("WATCHDOG=1");
    let (heir, _) = proxy.upgraded();
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    notifications.wait_for(&format!("MAINPID={}", heir.pid()));
    (0..3).for_each(|_| drop(notifications.wait_for("WATCHDOG=1")));
}

// If this fails, a socket of a socket unit is lost to the service by an upgrade, or cannot be taken
// over by each worker.
#[test]
fn a_socket_of_systemd_changes_hands() {
    reaper();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let backend = Backend::named("one");
    let bind = format!("bind = [\"{address}\"]");
    let config = Setup::of(&[&backend]).global("workers = 3").listener(&bind).text();
    let mut proxy = activated(&config, listener.into(), "listener.front");
    proxy.wait_until_serving();
    let socket = listening(&[address]);
    let (first, told) = proxy.upgraded();
    assert!(told.contains("1 of 1 changed hands, 0 opened"), "{told}");
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    assert_eq!(listening(&[address]), socket);
    assert_eq!(heard_of(first.pid(), &socket).len(), 3, "every worker hears of it");
    let (second, _) = proxy.upgraded();
    assert_eq!(first.wait_for_exit().exit_status(), Some(0));
    assert!(socket.is_subset(&sockets_of(second.pid())));
    (0..8).for_each(|_| assert_eq!(visit(address), "one"));
}
