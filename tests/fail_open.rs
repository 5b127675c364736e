//! A pool that panics, and one that refuses: the real binary in front of servers whose probes ask
//! for a role.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::verbs::{evenkeel, text};
use support::{Backend, PATIENCE, Proxy, Setup, eventually, read_all, read_line, try_connect};

const HEALTH: &str = "[pool.back.health]\nprobe = \"send-expect\"\nsend = \"ROLE\"\n\
                      expect = \"+yes\"\ninterval = \"50ms\"\nfast_interval = \"50ms\"\n\
                      timeout = \"30s\"\nfall = 1\nrise = 1\n";

/// A server that tells probes whether it has its role, and clients its name.
struct ClusterMember {
    backend: Backend,
    has_role: Arc<AtomicBool>,
}

impl ClusterMember {
    fn new(name: &'static str, has_role: bool) -> Self {
        let has_role = Arc::new(AtomicBool::new(has_role));
        let asked = Arc::clone(&has_role);
        let backend = Backend::serving(move |mut stream, _| {
            let mut first = [0; 4];
            stream.read_exact(&mut first)?;
            if &first == b"ROLE" {
                let answer = if asked.load(Ordering::SeqCst) { b"+yes" } else { b"-no!" };
                return stream.write_all(answer);
            }
            stream.write_all(name.as_bytes())?;
            stream.write_all(b"\n")?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        Self { backend, has_role }
    }

    fn set_role(&self, has_role: bool) {
        self.has_role.store(has_role, Ordering::SeqCst);
    }
}

/// Opens a session; the name of the server that has it.
fn open(proxy: &Proxy) -> io::Result<(TcpStream, String)> {
    let mut client = try_connect(proxy.address())?;
    client.write_all(b"open")?;
    let name = read_line(&mut client)?;
    if name.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((client, name))
}

fn wait_for_state(proxy: &Proxy, backend: &str, state: &str) {
    eventually(&format!("{backend} is {state}"), PATIENCE, || {
        (proxy.backend("back", backend).state == state).then_some(())
    });
}

fn explained(proxy: &Proxy) -> String {
    let file = proxy.config_file();
    text(&evenkeel(&["explain", "front", "127.0.0.1", "-c", file.to_str().unwrap()]).stdout)
}

// If this fails, `initial = "down"` lets clients in before any probe has passed.
#[test]
fn no_client_is_served_before_the_first_verdict() {
    // It takes the probe's question and does not answer it.
    let mute = Backend::silent();
    let health = format!("{HEALTH}initial = \"down\"\n");
    let proxy = Setup::of(&[&mute]).also(&health).start();
    for _ in 0..3 {
        assert!(open(&proxy).is_err());
    }
    let reason = [("reason", "no_backend")];
    proxy.wait_for_metric("evenkeel_listener_refused_total", &reason, 3.0);
    let status = proxy.status();
    assert!(!status.pools["back"].panic && !status.ready);
    assert!(explained(&proxy).contains("refused"), "{}", explained(&proxy));
}

// If this fails, a pool whose probes are wrong about every backend refuses every client.
#[test]
fn a_pool_of_which_all_are_down_tries_them_by_default() {
    let one = ClusterMember::new("one", false);
    let health = format!("{HEALTH}initial = \"down\"\n");
    let proxy = Setup::of(&[&one.backend]).also(&health).start();
    proxy.wait_for_line("pool back: 0 of 1 backend healthy, trying it anyway");
    assert_eq!(open(&proxy).unwrap().1, "one");
    assert!(explained(&proxy).contains("verdicts ignored (panic)"), "{}", explained(&proxy));
}

// If this fails, a client of a cluster without a leader writes to a follower.
#[test]
fn a_pool_that_never_panics_refuses() {
    let (leader, follower) =
        (ClusterMember::new("leader", true), ClusterMember::new("follower", false));
    let proxy = Setup::of(&[&leader.backend, &follower.backend])
        .pool("panic_threshold = \"never\"")
        .also(HEALTH)
        .start();
    wait_for_state(&proxy, "b2", "down");
    assert_eq!(open(&proxy).unwrap().1, "leader");
    // An operator's drain leaves only servers that are down, and so does the end of the role.
    proxy.tell("back/b1", "drain");
    assert!(open(&proxy).is_err());
    proxy.tell("back/b1", "ready");
    leader.set_role(false);
    wait_for_state(&proxy, "b1", "down");
    assert!(open(&proxy).is_err());
    let labels = [("reason", "no_backend")];
    proxy.wait_for_metric("evenkeel_listener_refused_total", &labels, 2.0);
    assert!(!proxy.status().pools["back"].panic);
    assert!(explained(&proxy).contains("refused"), "{}", explained(&proxy));
    follower.set_role(true);
    wait_for_state(&proxy, "b2", "up");
    assert_eq!(open(&proxy).unwrap().1, "follower");
}

// If this fails, servers that fail their probes are preferred to a backup that passes them.
#[test]
fn a_healthy_backup_comes_before_panic() {
    let (one, two) = (ClusterMember::new("one", false), ClusterMember::new("two", false));
    let backup = ClusterMember::new("backup", true);
    let proxy = Setup::of(&[&one.backend, &two.backend, &backup.backend])
        .backend(3, "backup = true")
        .pool("panic_threshold = \"100%\"")
        .also(HEALTH)
        .start();
    wait_for_state(&proxy, "b1", "down");
    wait_for_state(&proxy, "b2", "down");
    assert!(!proxy.status().pools["back"].panic);
    for _ in 0..10 {
        assert_eq!(open(&proxy).unwrap().1, "backup");
    }
}

// If this fails, clients that a panic has let in go on with a server that is none.
#[test]
fn sessions_that_a_panic_has_let_in_end_with_it() {
    for (on_down, is_kept) in [("reset", false), ("keep", true)] {
        let (leader, follower) =
            (ClusterMember::new("leader", false), ClusterMember::new("follower", false));
        let proxy = Setup::of(&[&leader.backend, &follower.backend])
            .pool(&format!("balance = \"round-robin\"\non_down = \"{on_down}\""))
            .also(HEALTH)
            .start();
        proxy.wait_for_line("pool back: 0 of 2 backends healthy, trying all of them");
        let by_name = |name: &str| {
            eventually(name, PATIENCE, || open(&proxy).ok().filter(|(_, found)| found == name)).0
        };
        let (mut with_leader, mut with_follower) = (by_name("leader"), by_name("follower"));
        leader.set_role(true);
        proxy.wait_for_line("pool back: verdicts count again");
        if is_kept {
            with_follower.write_all(b"more").unwrap();
            assert_eq!(open(&proxy).unwrap().1, "leader");
            assert!(!proxy.said().contains("is down: resetting"));
        } else {
            let end = read_all(&mut with_follower);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        with_leader.write_all(b"more").unwrap();
        assert!(proxy.sessions() >= 1);
    }
}

// If this fails, a follower that becomes the leader is found only after the back-off of its probes.
#[test]
fn a_pool_without_a_healthy_backend_keeps_asking() {
    let one = ClusterMember::new("one", false);
    let health = format!("{HEALTH}down_backoff = \"1h\"\n");
    let proxy = Setup::of(&[&one.backend]).also(&health).start();
    // With back-off the waits would add up to hours.
    let failed = || proxy.metric("evenkeel_backend_probes_total", &[("result", "fail")]);
    eventually("it is asked on", PATIENCE, || (failed() >= 40.0).then_some(()));
    one.set_role(true);
    wait_for_state(&proxy, "b1", "up");
}
