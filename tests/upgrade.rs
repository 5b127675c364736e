//! The program is replaced while it serves: what changes hands, and what does not notice it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use support::stream::exchange;
use support::unix::visit_unix;
use support::upgrade::{Heir, heard_of, listening, reaper, sockets_of};
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, eventually, free_address, read_line, visit,
};

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Two workers and two addresses.
fn setup(backend: &Backend) -> Setup {
    Setup::of(&[backend])
        .global("workers = 2")
        .listener("bind = [\"127.0.0.1:0\", \"127.0.0.1:0\"]")
}

// If this fails, an upgrade opens sockets anew, mixes them up between workers, or the old process
// still hears of them.
#[test]
fn every_socket_of_every_worker_changes_hands() {
    reaper();
    let backend = Backend::named("one");
    let mut proxy = setup(&backend).start();
    let sockets = listening(proxy.addresses());
    assert_eq!(sockets.len(), 4);
    let by_worker = heard_of(proxy.pid(), &sockets);
    assert_eq!(by_worker.len(), 2);
    let mut kept = connect(proxy.addresses()[0]);
    assert_eq!(read_line(&mut kept).unwrap(), "one");

    let (heir, told) = proxy.upgraded();
    assert_ne!(heir.pid(), proxy.pid());
    assert!(told.contains("4 of 4 changed hands, 0 opened"), "{told}");
    assert!(told.contains("1 session moved, 0 left, 0 lost"), "{told}");
    assert_eq!(listening(proxy.addresses()), sockets, "the same sockets, and no others");
    assert_eq!(heard_of(heir.pid(), &sockets), by_worker);
    eventually("the old process has none", PATIENCE, || {
        let has = sockets_of(proxy.pid()).intersection(&sockets).count();
        (heard_of(proxy.pid(), &sockets).is_empty() && has == 0).then_some(())
    });
    for address in proxy.addresses() {
        (0..8).for_each(|_| assert_eq!(visit(*address), "one"));
    }
    // The session that was there goes on, and no old process stays.
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    exchange(&mut kept, (1, 1_000));
    assert_eq!(visit(proxy.address()), "one");
    heir.signal(Signal::TERM);
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
    assert!(listening(proxy.addresses()).is_empty());
}

// If this fails, clients of a Unix socket, operators or scrapers lose their way to the process in
// an upgrade, or at the end of the old one.
#[test]
fn files_and_doors_change_hands_and_stay() {
    reaper();
    let backend = Backend::named("one");
    let place = tempfile::tempdir().unwrap();
    let front = place.path().join("front.sock");
    let bind = format!("bind = [\"127.0.0.1:0\", \"unix:{}\"]", front.display());
    let page = free_address();
    let setup = Setup::of(&[&backend]).global("workers = 2").listener(&bind);
    let mut proxy = setup.also(&format!("[admin]\nhttp = \"{page}\"")).start();
    let doors = [front.clone(), proxy.admin_socket()];
    let before = doors.each_ref().map(|path| inode(path));
    let pages = listening(&[page]);

    let (heir, _) = proxy.upgraded();
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    assert_eq!(doors.each_ref().map(|path| inode(path)), before);
    assert_eq!(listening(&[page]), pages);
    assert_eq!(visit_unix(&front), "one");
    assert_eq!(proxy.page(), page);
    assert_eq!(proxy.status().pid, heir.pid());
    heir.signal(Signal::TERM);
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
    assert!(doors.iter().all(|path| !path.exists()), "the last one removes them");
}

// If this fails, a client meets a moment in which no process accepts.
#[test]
fn no_client_notices_ten_upgrades() {
    reaper();
    let backend = Backend::named("one");
    let proxy = setup(&backend).start();
    let (address, is_over) = (proxy.address(), AtomicBool::new(false));
    let mut heirs: Vec<Heir> = Vec::new();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        assert_eq!(visit(address), "one");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let upgrades = std::panic::AssertUnwindSafe(|| {
            for _ in 0..10 {
                heirs.push(proxy.upgraded().0);
            }
        });
        let upgraded = std::panic::catch_unwind(upgrades);
        is_over.store(true, Ordering::Relaxed);
        let served: Vec<usize> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(upgraded.is_ok() && served.iter().all(|served| *served > 0), "{served:?}");
    });
    assert_eq!(heirs.len(), 10);
}

// If this fails, an upgrade to fewer workers closes sockets with all that waits there, or one to
// more leaves a worker without.
#[test]
fn workers_become_fewer_and_more() {
    reaper();
    let backend = Backend::named("one");
    let config =
        |workers: usize| Setup::of(&[&backend]).global(&format!("workers = {workers}")).text();
    let proxy = Proxy::start(&config(4));
    let sockets = listening(proxy.addresses());
    assert_eq!(sockets.len(), 4);
    let mut heirs = Vec::new();
    for (workers, each) in [(2, 2), (4, 1)] {
        proxy.rewrite(&config(workers));
        let (heir, told) = proxy.upgraded();
        assert!(told.contains("4 of 4 changed hands, 0 opened"), "{told}");
        assert_eq!(listening(proxy.addresses()), sockets);
        let heard = heard_of(heir.pid(), &sockets);
        assert_eq!(heard.iter().map(|heard| heard.len()).collect::<Vec<_>>(), vec![each; workers]);
        (0..32).for_each(|_| assert_eq!(visit(proxy.address()), "one"));
        heirs.push(heir);
    }
    proxy.rewrite(&config(5));
    let (heir, told) = proxy.upgraded();
    assert!(told.contains("4 of 4 changed hands, 1 opened"), "{told}");
    assert_eq!(heard_of(heir.pid(), &listening(proxy.addresses())).len(), 5);
    (0..32).for_each(|_| assert_eq!(visit(proxy.address()), "one"));
}

// If this fails, an upgrade ignores what has changed in the file, or changes it for the process
// that goes on.
#[test]
fn the_new_process_follows_the_file_as_it_is() {
    reaper();
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let (stays, goes, comes) = (free_address(), free_address(), free_address());
    let listener = |name: &str, address, pool, keys: &str| {
        format!("[listener.{name}]\nbind = [\"{address}\"]\npool = \"{pool}\"\n{keys}\n")
    };
    let pools = format!(
        "[pool.p]\nbackends = [\"{}\"]\n[pool.q]\nbackends = [\"{}\"]\n",
        one.address(),
        two.address()
    );
    let first = format!(
        "[global]\nworkers = 2\n{}{}{pools}",
        listener("a", stays, "p", ""),
        listener("b", goes, "p", "")
    );
    let mut proxy = Proxy::start(&first);
    let kept = listening(&[stays]);
    proxy.rewrite(&format!(
        "[global]\nworkers = 2\n{}{}{pools}",
        listener("a", stays, "q", "backlog = 17"),
        listener("c", comes, "p", "")
    ));
    let (_heir, told) = proxy.upgraded();
    assert!(told.contains("2 of 4 changed hands, 2 opened"), "{told}");
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    assert_eq!(listening(&[stays]), kept);
    assert_eq!((visit(stays), visit(comes)), ("two".to_owned(), "one".to_owned()));
    assert!(listening(&[goes]).is_empty());
    drop(TcpListener::bind(goes).unwrap());
}

// If this fails, more descriptors than one message of the kernel holds are lost on their way.
#[test]
fn hundreds_of_sockets_change_hands() {
    reaper();
    let backend = Backend::named("one");
    let binds: Vec<String> = (0..300).map(|_| "\"127.0.0.1:0\"".to_owned()).collect();
    let bind = format!("bind = [{}]", binds.join(", "));
    let proxy = Setup::of(&[&backend]).listener(&bind).start();
    let sockets = listening(proxy.addresses());
    assert_eq!(sockets.len(), 300);
    let (heir, told) = proxy.upgraded();
    assert!(told.contains("300 of 300 changed hands, 0 opened"), "{told}");
    assert_eq!(listening(proxy.addresses()), sockets);
    assert!(sockets.is_subset(&sockets_of(heir.pid())));
    assert_eq!(visit(proxy.addresses()[299]), "one");
}

// If this fails, the signal by which other programs are upgraded does nothing, or the process after
// it cannot be reloaded and stopped.
#[test]
fn the_signal_upgrades_and_the_new_process_obeys_signals() {
    reaper();
    let backend = Backend::named("one");
    let mut proxy = setup(&backend).start();
    proxy.signal(Signal::USR2);
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    let heir = Heir::of(&proxy);
    heir.signal(Signal::HUP);
    eventually("it reloads", PATIENCE, || {
        (proxy.document()["config"]["reloads_ok"] == 1).then_some(())
    });
    heir.signal(Signal::USR2);
    let next = eventually("the next one serves", PATIENCE, || {
        let pid = proxy.status().pid;
        (pid != heir.pid()).then(|| Heir::of(&proxy))
    });
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
    next.signal(Signal::TERM);
    assert_eq!(next.wait_for_exit().exit_status(), Some(0));
}

// If this fails, a stop of the service leaves the old process behind, or cuts its sessions short.
#[test]
fn a_stop_during_the_overlap_ends_both() {
    reaper();
    let backend = Backend::named("one");
    let mut proxy = setup(&backend).start();
    let mut old = connect(proxy.address());
    assert_eq!(read_line(&mut old).unwrap(), "one");
    let (heir, _) = proxy.upgraded_with(&["--keep-sessions"]);
    let mut new = connect(proxy.address());
    assert_eq!(read_line(&mut new).unwrap(), "one");
    proxy.signal(Signal::TERM);
    heir.signal(Signal::TERM);
    proxy.wait_for_line("draining already");
    // Each session ends with its exchange. The old process ends first here: it would take note of
    // the end of the new one itself.
    exchange(&mut old, (1, 1_000));
    assert!(proxy.wait_for_end().success(), "{}", proxy.said());
    exchange(&mut new, (1, 1_000));
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
}
