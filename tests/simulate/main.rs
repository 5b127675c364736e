//! The worker that serves, against scripted sockets and a fake clock: no kernel.
//!
//! A schedule is made from a seed. A few clients come to one worker, or to two or three that share
//! snapshots and lines and hand sessions to each other. Peers send (urgent data too), read, stall,
//! finish and reset at random; connecting fails, takes its time or reports a false HUP; the sockets
//! give short writes, `EAGAIN`, `EINTR`, EOF and errors as Linux does; events are edge-triggered,
//! may be late, merged, spurious, or for a session that is gone; pipes run short and have few
//! slots; time passes. After every turn the promises are checked. At the end every session must
//! end: by itself once nothing is in its way, or, when all peers are silent, by its timers. A
//! failure prints the seed.
//!
//! `EVENKEEL_SEED=N` runs one schedule, `EVENKEEL_SCHEDULES=N` sets their number (50,000 otherwise;
//! CI runs a million). `tests/controls` has the known faults that it must find.

#![allow(clippy::cast_possible_truncation, reason = "a few hundred kilobytes, and hashes")]
#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a helper that fails a test, or tells how a schedule goes, is part of the test"
)]

mod bytes;
mod checks;
mod ends;
mod faulty_kernels;
mod gate;
mod house;
mod kernel;
mod killing;
mod network;
mod peers;
mod pipe;
mod replacing;
mod schedule;
mod setting;
mod socket;
mod visit;
mod words;
mod workers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use schedule::Bench;

/// Schedules that a thread takes at once.
const BATCH: u64 = 256;

/// What 20,000 schedules reach, and how often at least.
const REACHED: [(&str, u64); 59] = [
    ("Done", 2500),
    ("ClientReset", 3000),
    ("BackendReset", 2500),
    ("ClientGone", 500),
    ("Idle", 600),
    ("HalfClosed", 1200),
    ("Lifetime", 200),
    ("BackendDown", 200),
    ("Drain", 1000),
    ("lingered", 250),
    ("spliced", 2500),
    ("a pipe is given back unsent", 300),
    ("a socket cannot accept", 300),
    ("refused Limit", 150),
    ("refused Concurrent", 120),
    ("refused ListenerRate", 300),
    ("refused Access", 350),
    ("refused Ban", 200),
    ("refused MaxSessions", 300),
    ("refused Descriptors", 300),
    ("refused NoBackend", 1000),
    ("refused ProxyHeader", 1000),
    ("refused Peek", 50),
    ("Answered", 120),
    ("NotHttp", 100),
    ("Left", 150),
    ("Tarpitted", 15),
    ("NoRoom", 15),
    ("GivenUp", 50),
    ("Done + header", 200),
    ("Done + greeted", 400),
    ("Done + waited", 80),
    ("Done + retried", 600),
    ("Done + handed over", 400),
    ("an event for a slot that another session has", 12),
    ("a client that the kernel refuses", 150),
    ("refused NoBackend + waited", 150),
    ("change Timeouts with open", 150),
    ("change BackendRemoved with open", 150),
    ("change PoolRenamed with open", 150),
    ("change ListenerRenamed with open", 120),
    ("change BothRenamed with open", 120),
    ("Done + rested", 250),
    ("moved to another pool", 15),
    ("change ListenerRemoved with open", 150),
    ("order Stop with open", 300),
    ("order Drain with open", 600),
    ("order Down with open", 350),
    ("order Back with open", 350),
    ("order Empty with open", 350),
    ("PrimaryUp", 200),
    ("DrainReset", 200),
    ("several leave at a pace", 10),
    ("order Kill with open", 300),
    ("Killed", 150),
    ("sessions change hands", 3_000),
    ("parked sessions are taken back", 1_000),
    ("sessions that were taken in are given up", 1_000),
    ("sessions belong nowhere", 2),
];

/// Runs schedules from `first` on; the first seed that shows a problem, with what it shows.
fn search(bench: &mut Bench, first: u64, schedules: u64) -> Option<(u64, Vec<String>)> {
    (first..first + schedules).find_map(|seed| {
        let problems = bench.run(seed);
        (!problems.is_empty()).then_some((seed, problems))
    })
}

/// Runs this on as many threads as there are processors.
fn on_all_threads(work: impl Fn() + Sync) -> usize {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(&work);
        }
    });
    threads
}

/// Takes batches until there are none left; what they reached.
fn search_batches(first: u64, schedules: u64, next: &AtomicU64) -> BTreeMap<String, u64> {
    let mut bench = Bench::default();
    loop {
        let from = next.fetch_add(BATCH, Ordering::Relaxed);
        if from >= schedules {
            return bench.reached;
        }
        if let Some((seed, problems)) =
            search(&mut bench, first + from, BATCH.min(schedules - from))
        {
            panic!("EVENKEEL_SEED={seed}: {problems:#?}");
        }
    }
}

// If this fails, the schedules no longer get to what they are to show, and pass for that.
#[test]
fn schedules_reach_every_kind_of_end() {
    let (next, reached) = (AtomicU64::new(0), Mutex::new(BTreeMap::<String, u64>::new()));
    on_all_threads(|| {
        let own = search_batches(0, 20_000, &next);
        let mut reached = reached.lock();
        own.into_iter().for_each(|(kind, count)| *reached.entry(kind).or_default() += count);
    });
    let reached = reached.into_inner();
    println!("{reached:#?}");
    let mut missing = Vec::new();
    for (kind, least) in REACHED {
        let words: Vec<&str> = kind.split(" + ").collect();
        let found = reached.iter().filter(|(it, _)| words.iter().all(|word| it.contains(word)));
        let count: u64 = found.map(|(_, count)| count).sum();
        println!("{kind}: {count}");
        if count < least {
            missing.push(format!("{kind}: {count}"));
        }
    }
    assert!(missing.is_empty(), "too few of 20,000 schedules: {missing:#?}");
}

// If this fails, some order of events loses, repeats or strands bytes of a real session.
#[test]
fn every_schedule_keeps_the_promises() {
    if let Ok(seed) = std::env::var("EVENKEEL_SEED") {
        let mut bench = Bench { traces: true, ..Bench::default() };
        let problems = bench.run(seed.parse().unwrap());
        assert!(problems.is_empty(), "seed {seed}: {problems:#?}");
        return;
    }
    let schedules: u64 =
        std::env::var("EVENKEEL_SCHEDULES").map_or(50_000, |number| number.parse().unwrap());
    let first = fastrand::u64(..u64::MAX / 2);
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let threads = on_all_threads(|| {
        search_batches(first, schedules, &next);
    });
    let elapsed = started.elapsed().as_secs_f64();
    println!("{schedules} schedules from seed {first} in {elapsed:.1} s on {threads} threads");
}
