//! Sessions that have to leave a backend which is well: a backup that is needed no more, or one
//! that an operator empties. Those of a backend that goes down are in `endings.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::switched::{PROBES, clients, echoes, switchable, wait_until};
use support::verbs::{code, evenkeel, text};
use support::{Backend, PATIENCE, Proxy, Setup, eventually, within};

const CLOSED: &str = "evenkeel_sessions_closed_total";
const PRIMARY_UP: (&str, &str) = ("reason", "primary_up");
const DRAIN_RESET: (&str, &str) = ("reason", "drain_reset");

/// A primary that can be switched off, and a backup.
struct Failover {
    setup: Setup,
    is_well: Arc<AtomicBool>,
    _backends: [Backend; 2],
}

fn failover(pool: &str) -> Failover {
    let is_well = Arc::new(AtomicBool::new(true));
    let backends = [switchable(&is_well), switchable(&Arc::new(AtomicBool::new(true)))];
    let setup = Setup::of(&backends.iter().collect::<Vec<_>>())
        .global("workers = 2")
        .backend(2, "backup = true")
        .pool(pool)
        .also(PROBES);
    Failover { setup, is_well, _backends: backends }
}

impl Failover {
    /// Takes the primary down; clients that come now go to the backup.
    fn fail(&self, proxy: &Proxy, count: usize) -> Vec<TcpStream> {
        self.is_well.store(false, Ordering::SeqCst);
        wait_until(proxy, "b1", "down");
        let moved = clients(proxy, count);
        assert_eq!(proxy.backend("back", "b2").sessions, count as u64);
        moved
    }

    fn recover(&self, proxy: &Proxy) {
        self.is_well.store(true, Ordering::SeqCst);
        wait_until(proxy, "b1", "up");
    }
}

fn assert_reset(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Waits until at least this number of sessions has ended for this reason.
#[track_caller]
fn wait_for_ends(proxy: &Proxy, reason: (&str, &str), least: f64) {
    eventually("they end", PATIENCE, || (proxy.metric(CLOSED, &[reason]) >= least).then_some(()));
}

/// Whether no further session ends for this reason within a while.
fn stands_still(proxy: &Proxy, reason: (&str, &str), while_: Duration) -> bool {
    let before = proxy.metric(CLOSED, &[reason]);
    within(while_, || (proxy.metric(CLOSED, &[reason]) > before).then_some(())).is_none()
}

// If this fails, clients stay on a backup, a read-only one perhaps, long after the failover is
// over; or those of the primary are cut off with them.
#[test]
fn sessions_leave_the_backup_when_a_primary_is_back() {
    let both = failover("on_up = \"reset\"");
    let proxy = both.setup.start();
    let mut on_primary = clients(&proxy, 2);
    let mut on_backup = both.fail(&proxy, 5);
    both.recover(&proxy);
    on_backup.iter_mut().for_each(assert_reset);
    proxy.wait_for_metric(CLOSED, &[PRIMARY_UP], 5.0);
    for line in proxy.wait_for_session_lines(5) {
        assert_eq!(line["reason"], "a primary can serve again");
        assert_eq!((&line["term"], &line["backend"]), (&"UD".into(), &"b2".into()));
    }
    proxy.wait_for_line("pool back: a primary can serve: resetting 5 sessions on backups");
    on_primary.extend(clients(&proxy, 2));
    assert!(on_primary.iter_mut().all(echoes));
    assert_eq!(proxy.backend("back", "b1").sessions, 4);
}

// If this fails, a primary that comes back ends sessions that were to stay.
#[test]
fn sessions_stay_on_the_backup_by_default() {
    let both = failover("");
    let proxy = both.setup.start();
    let mut on_backup = both.fail(&proxy, 3);
    both.recover(&proxy);
    assert!(on_backup.iter_mut().all(echoes));
    assert_eq!(proxy.backend("back", "b2").sessions, 3);
}

// If this fails, all clients of a backup come back to a primary at one moment although they were to
// come one after the other, or a primary that an operator makes ready is not known as back.
#[test]
fn sessions_leave_the_backup_at_a_pace() {
    let both = failover("on_up = \"pace 10/s\"");
    let proxy = both.setup.start();
    proxy.tell("back/b1", "drain");
    let _on_backup = clients(&proxy, 8);
    let since = Instant::now();
    proxy.tell("back/b1", "ready");
    proxy.wait_for_metric(CLOSED, &[PRIMARY_UP], 8.0);
    // The first at once, seven more a tenth of a second apart.
    assert!(since.elapsed() >= Duration::from_millis(690), "after {:?}", since.elapsed());
}

// If this fails, clients that leave a backup find no server, or the next return does not count.
#[test]
fn sessions_stay_on_the_backup_once_the_primary_is_away_again() {
    let both = failover("on_up = \"pace 2/s\"");
    let proxy = both.setup.start();
    let _on_backup = both.fail(&proxy, 40);
    both.recover(&proxy);
    wait_for_ends(&proxy, PRIMARY_UP, 1.0);
    both.is_well.store(false, Ordering::SeqCst);
    wait_until(&proxy, "b1", "down");
    assert!(stands_still(&proxy, PRIMARY_UP, Duration::from_millis(1200)));
    let before = proxy.metric(CLOSED, &[PRIMARY_UP]);
    assert!(before < 40.0, "{before}");
    both.recover(&proxy);
    wait_for_ends(&proxy, PRIMARY_UP, before + 1.0);
}

// If this fails, all clients of a backup meet a primary that has just started.
#[test]
fn sessions_leave_the_backup_after_the_slow_start() {
    let both = failover("balance = \"least-connections\"\nslow_start = \"1s\"\non_up = \"reset\"");
    let proxy = both.setup.start();
    let mut on_backup = both.fail(&proxy, 2);
    let since = Instant::now();
    both.recover(&proxy);
    on_backup.iter_mut().for_each(assert_reset);
    assert!(since.elapsed() >= Duration::from_millis(990), "after {:?}", since.elapsed());
}

/// Two servers, of which the first gets all clients.
fn pair() -> (Proxy, [Backend; 2]) {
    let backends = [Backend::echo(), Backend::echo()];
    let setup = Setup::of(&backends.iter().collect::<Vec<_>>());
    (setup.global("workers = 2").pool("balance = \"first\"").start(), backends)
}

fn drain(proxy: &Proxy, options: &[&str]) -> Output {
    let socket = proxy.admin_socket();
    let of = ["drain", "back/b1", "--socket", socket.to_str().unwrap()];
    evenkeel(&[&of[..], options].concat())
}

// If this fails, an operator cannot empty a server, or empties another one with it.
#[test]
fn a_drain_with_reset_ends_the_sessions_of_one_backend() {
    let (proxy, _backends) = pair();
    let mut lost = clients(&proxy, 5);
    proxy.tell("back/b1", "drain");
    let mut kept = clients(&proxy, 3);
    let done = drain(&proxy, &["--reset"]);
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    let words = "drain, set by an operator; resetting 5 sessions at once";
    assert!(text(&done.stdout).contains(words), "{}", text(&done.stdout));
    proxy.wait_for_line(words);
    lost.iter_mut().for_each(assert_reset);
    for line in proxy.wait_for_session_lines(5) {
        assert_eq!(line["reason"], "reset by an operator");
        assert_eq!((&line["term"], &line["backend"]), (&"KD".into(), &"b1".into()));
    }
    proxy.wait_for_metric(CLOSED, &[DRAIN_RESET], 5.0);
    kept.extend(clients(&proxy, 1));
    assert!(kept.iter_mut().all(echoes));
    let status = proxy.backend("back", "b1");
    assert_eq!((status.state.as_str(), status.resetting), ("drain", None));
}

// If this fails, a paced drain ends sessions faster than it was told, is not seen in `status`, or
// goes on although the backend serves again or is only to be drained.
#[test]
fn a_paced_drain_is_shown_and_can_be_taken_back() {
    for verb in ["ready", "drain"] {
        let (proxy, _backends) = pair();
        let _leaving = clients(&proxy, 40);
        let since = Instant::now();
        let done = drain(&proxy, &["--reset", "--pace", "5/s"]);
        assert_eq!(code(&done), 0, "{}", text(&done.stderr));
        let status = proxy.backend("back", "b1");
        assert_eq!(status.resetting.as_deref(), Some("at 5/s"));
        assert!(status.reason.ends_with("resetting its sessions at 5/s"), "{}", status.reason);
        wait_for_ends(&proxy, DRAIN_RESET, 4.0);
        assert!(since.elapsed() >= Duration::from_millis(590), "after {:?}", since.elapsed());
        proxy.tell("back/b1", verb);
        assert_eq!(proxy.backend("back", "b1").resetting, None);
        // One may be on its way at this moment.
        let _last = stands_still(&proxy, DRAIN_RESET, Duration::from_millis(50));
        assert!(stands_still(&proxy, DRAIN_RESET, Duration::from_secs(1)), "after {verb}");
        assert!(proxy.backend("back", "b1").sessions > 0);
    }
}

// If this fails, a slip leads to a drain that keeps all sessions, or ends all of them.
#[test]
fn a_pace_that_cannot_be_is_refused() {
    let (proxy, _backends) = pair();
    let mut kept = clients(&proxy, 1);
    for (options, words) in [
        (&["--pace", "5/s"][..], "--reset"),
        (&["--reset", "--pace", "fast"], "write a number, a slash and s, min, h or d"),
        (&["--reset", "--pace", "0/s"], "leave the pace out to reset all at once"),
        (&["--reset", "--pace", "1000001/s"], "at most 1000000 per second"),
    ] {
        let refused = drain(&proxy, options);
        let said = text(&refused.stderr);
        assert!(code(&refused) == 2 && said.contains(words), "{options:?}: {said}");
    }
    for (body, words) in [
        (r#"{"pace": "5/s"}"#, "`pace` without `reset`"),
        (r#"{"reset": true, "pace": "5"}"#, "write \\\"5/s\\\" if you mean per second"),
        (r#"{"reset": true, "speed": 5}"#, "the body has to be empty, or like"),
        ("reset", "the body has to be empty, or like"),
    ] {
        let answer = proxy.ask("POST", "/v1/backends/back/b1/drain", body);
        assert!(answer.code == 400 && answer.body.contains(words), "{body}: {}", answer.body);
    }
    assert!(kept.iter_mut().all(echoes));
    assert_eq!(proxy.backend("back", "b1").state, "up");
}
