//! Every interleaving of what workers and the control plane share, explored by loom: the exact
//! limits and the hand-over of a snapshot.
//!
//! Run with `scripts/loom.sh`; without its cfg this file is empty. `scripts/controls.sh` shows that
//! each model fails when what it proves is broken.
#![cfg(evenkeel_loom)]

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};

use evenkeel::policy::nat64::Nat64;
use evenkeel::shared::{
    BackendState, Claim, Gauge, Generation, ListenerIndex, Publisher, Snapshot, SpliceMode,
    Subscriber,
};

/// Two threads and this one take a place, hold it and give it back, twice each.
fn gauge_holds(max: u64) {
    loom::model(move || {
        let gauge = Arc::new(Gauge::default());
        let holders = Arc::new(AtomicU64::new(0));
        let work = {
            let (gauge, holders) = (Arc::clone(&gauge), Arc::clone(&holders));
            move || {
                if gauge.claim(max) {
                    let others = holders.fetch_add(1, Ordering::Relaxed);
                    assert!(others < max, "more than {max} hold a place");
                    holders.fetch_sub(1, Ordering::Relaxed);
                    gauge.release();
                    return true;
                }
                false
            }
        };
        let threads = [loom::thread::spawn(work.clone()), loom::thread::spawn(work.clone())];
        let mine = work();
        let theirs = threads.map(|thread| thread.join().unwrap());
        assert!(mine || theirs[0] || theirs[1], "a free place went to none");
        assert_eq!(gauge.value(), 0);
        assert!(gauge.claim(max), "a place that is free is refused");
    });
}

fn snapshot(generation: u64) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        generation: Generation(generation),
        listeners: Vec::new(),
        open: Vec::new(),
        by_address: ListenerIndex::default(),
        pools: Vec::new(),
        backends: Vec::new(),
        sources: Vec::new(),
        sessions_max: generation,
        sessions: Arc::new(Gauge::default()),
        bans: Arc::default(),
        nat64: Nat64::default(),
        splice: SpliceMode::Auto,
        has_bandwidth: false,
    })
}

/// What a worker does at the start of a turn; the generation it then works with.
fn turn(worker: &mut Subscriber) -> u64 {
    let before = worker.current().generation.0;
    if worker.is_stale() {
        let latest = worker.latest();
        let taken = latest.generation.0;
        let old = worker.take_up(latest);
        assert_eq!(old.generation.0, before);
        // Equal where this one was taken up before its number was published.
        assert!(taken >= before, "went back");
    }
    assert_eq!(worker.current().sessions_max, worker.current().generation.0, "a mixture");
    worker.current().generation.0
}

#[test]
fn no_more_than_the_limit_hold_a_place() {
    // If this fails, max_sessions lets one more in when workers race.
    gauge_holds(1);
    gauge_holds(2);
}

#[test]
fn the_last_place_of_a_backend_goes_to_one() {
    // If this fails, a backend's max_sessions is exceeded, or its last place stays empty.
    loom::model(|| {
        let backend = Arc::new(BackendState::new(1, true, 0));
        assert_eq!(backend.claim(Some(2)), Claim::Taken);
        let other = {
            let backend = Arc::clone(&backend);
            loom::thread::spawn(move || backend.claim(Some(2)))
        };
        let mine = backend.claim(Some(2));
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs, "two of two places are left to one");
        assert_eq!(backend.active(), 2);
        backend.release();
        assert_eq!(backend.claim(Some(2)), Claim::Taken);
    });
}

#[test]
fn a_worker_that_sees_a_generation_gets_its_snapshot() {
    // If this fails, a worker notes that it has taken up a reload and works with the old one.
    loom::model(|| {
        let publisher = Publisher::new(snapshot(1));
        let mut worker = publisher.subscribe();
        let control = {
            let publisher = publisher.clone();
            loom::thread::spawn(move || publisher.publish(snapshot(2)))
        };
        if worker.is_stale() {
            assert_eq!(turn(&mut worker), 2, "saw the number and got the old one");
        }
        control.join().unwrap();
        assert_eq!(turn(&mut worker), 2);
        assert!(!worker.is_stale());
    });
}

#[test]
fn a_worker_never_goes_back() {
    // If this fails, two reloads in a row leave a worker with the first, or back at the start.
    loom::model(|| {
        let publisher = Publisher::new(snapshot(1));
        let mut workers = [publisher.subscribe(), publisher.subscribe()];
        let control = {
            let publisher = publisher.clone();
            loom::thread::spawn(move || {
                publisher.publish(snapshot(2));
                publisher.publish(snapshot(3));
            })
        };
        let other = {
            let [_, worker] = &mut workers;
            let mut worker = std::mem::replace(worker, publisher.subscribe());
            loom::thread::spawn(move || turn(&mut worker))
        };
        let [worker, _] = &mut workers;
        let seen = [turn(worker), turn(worker)];
        assert!(seen.is_sorted(), "went back: {seen:?}");
        control.join().unwrap();
        other.join().unwrap();
        assert_eq!(turn(worker), 3);
        assert!(!worker.is_stale());
    });
}
