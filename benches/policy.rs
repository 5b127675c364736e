//! What one decision costs: Maglev build and lookup, the limiter hot, cold and contended, and the
//! O(members) choices; and what the machine takes for the least of which they consist.
//!
//! Run with `cargo bench --bench policy`. Times of the two-thread runs are per operation of one
//! thread, while both run.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use evenkeel::policy::admit::admission::{Asked, Rules};
use evenkeel::policy::admit::limiter::{Decision, LimitKey, Limiter};
use evenkeel::policy::admit::meter::Meter;
use evenkeel::policy::admit::shared_rate::SharedRate;
use evenkeel::policy::balance::hash::{Prefix, client_key};
use evenkeel::policy::balance::least_connections::{self, MemberLoad};
use evenkeel::policy::balance::maglev::Maglev;
use evenkeel::policy::balance::round_robin::RoundRobin;
use evenkeel::sys::memory::prefer_large_pages;

const SEEDS: [u64; 4] = [1, 2, 3, 4];
const MILLION: u32 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn members(count: usize) -> Vec<(String, u32)> {
    (0..count).map(|n| (format!("10.0.{}.{}:5432", n / 256, n % 256), 1)).collect()
}

fn build(members: &[(String, u32)], size: u32) -> Option<Maglev> {
    let list: Vec<(&str, u32)> = members.iter().map(|(name, w)| (name.as_str(), *w)).collect();
    Maglev::new(&list, size, 0).ok()
}

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000_u32.wrapping_add(number)).into()
}

/// Numbers below 2^20 in an order no prefetcher follows.
fn scattered(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) >> 12
}

fn maglev(c: &mut Criterion) {
    let mut group = c.benchmark_group("maglev");
    group.sample_size(20);
    for (size, count) in [(65_537, 100), (65_537, 1_000), (655_373, 1_000)] {
        let mut members = members(count);
        group.bench_function(format!("build/{size}x{count}"), |b| {
            b.iter(|| build(black_box(&members), size));
        });
        members[count / 2].1 = 65_535;
        group.bench_function(format!("build/{size}x{count}/one-heavy"), |b| {
            b.iter(|| build(black_box(&members), size));
        });
    }
    let Some(table) = build(&members(100), 65_537) else { return };
    let mut key = 1_u64;
    let mut next = move || {
        key = key.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        key
    };
    group.bench_function("lookup", |b| b.iter(|| table.pick(black_box(next()), |_| true)));
    group.bench_function("lookup/half-down", |b| {
        b.iter(|| table.pick(black_box(next()), |member| member % 2 == 0));
    });
    group.bench_function("lookup/one-of-100-up", |b| {
        b.iter(|| table.pick(black_box(next()), |member| member == 77));
    });
    group.bench_function("client_key/v4", |b| {
        b.iter(|| client_key(black_box(client(7)), None, Prefix::WHOLE, 0));
    });
    group.finish();
}

/// A limit that admits everything asked of it here.
fn generous() -> Option<Meter> {
    Meter::token_bucket(1_000_000, SECOND, 1_000_000_000)
}

fn keys(limiter: &Limiter, count: u32) -> Vec<LimitKey> {
    (0..count).map(|n| limiter.key(client(scattered(n)), Prefix::WHOLE)).collect()
}

fn limiter(c: &mut Criterion) {
    let Some(quota) = generous() else { return };
    let Some(strict) = Meter::token_bucket(1, Duration::from_secs(3_600), 1) else { return };
    let mut group = c.benchmark_group("limiter");
    let limiter = Limiter::new(1 << 21, Some(65_536), SEEDS);
    let address = client(1);
    group.bench_function("key", |b| b.iter(|| limiter.key(black_box(address), Prefix::WHOLE)));
    let mut now_us = 1_000_000;
    group.bench_function("hot/key+admit", |b| {
        b.iter(|| {
            now_us += 1;
            limiter.admit(limiter.key(black_box(address), Prefix::WHOLE), now_us, &quota)
        });
    });
    group.bench_function("hot/refuse", |b| {
        let other = limiter.key(client(2), Prefix::WHOLE);
        b.iter(|| limiter.admit(black_box(other), 1_000_000, &strict) == Decision::Allowed);
    });
    group.bench_function("hot/enter+leave", |b| {
        let key = limiter.key(client(3), Prefix::WHOLE);
        b.iter(|| {
            let entry = limiter.enter(black_box(key), 10);
            limiter.leave(key);
            entry
        });
    });
    limiter.extents().for_each(prefer_large_pages);
    let many = keys(&limiter, MILLION);
    for key in &many {
        limiter.admit(*key, now_us, &quota);
    }
    let mut turns = many.iter().cycle();
    group.bench_function("million-keys/admit", |b| {
        b.iter(|| {
            now_us += 1;
            turns.next().map(|key| limiter.admit(*key, now_us, &quota))
        });
    });
    group.finish();
}

/// What the machine takes for the least that a decision needs, to read the times above by: one
/// compare-exchange, and one look at as much memory as a million clients have, each place known
/// only once the one before has been read.
fn machine(c: &mut Criterion) {
    let mut group = c.benchmark_group("machine");
    let word = AtomicU64::new(0);
    group.bench_function("exchange", |b| {
        b.iter(|| {
            let now = word.load(Ordering::Acquire);
            word.compare_exchange(now, now + 1, Ordering::AcqRel, Ordering::Acquire)
        });
    });
    let mut random = fastrand::Rng::with_seed(1);
    let mut next: Vec<u64> = (0..1 << 21).collect();
    prefer_large_pages(Range { start: next.as_ptr().cast(), end: next.as_ptr_range().end.cast() });
    // One cycle through all of them (Sattolo).
    for last in (1..next.len()).rev() {
        next.swap(last, random.usize(..last));
    }
    let mut place = 0;
    group.bench_function("look", |b| {
        b.iter(|| {
            place = usize::try_from(next[place]).unwrap_or(0);
            place
        });
    });
    group.finish();
}

/// The other algorithms, and a listener's rate beside a client's.
fn windows(c: &mut Criterion) {
    let mut group = c.benchmark_group("limiter/windows");
    let limiter = Limiter::new(65_536, None, SEEDS);
    let listener_rate = SharedRate::default();
    let mut now_us = 1_000_000;
    for (name, admits, strict, mut host) in [
        ("sliding", Meter::sliding_window(100_000, SECOND), Meter::sliding_window(1, SECOND), 1),
        ("fixed", Meter::fixed_window(100_000, SECOND), Meter::fixed_window(1, SECOND), 2),
    ] {
        let (Some(admits), Some(strict)) = (admits, strict) else { return };
        let address = client(host);
        group.bench_function(format!("{name}/key+admit"), |b| {
            b.iter(|| {
                // Below the rate: a connection each 20 µs.
                now_us += 20;
                limiter.admit(limiter.key(black_box(address), Prefix::WHOLE), now_us, &admits)
            });
        });
        host += 10;
        let other = limiter.key(client(host), Prefix::WHOLE);
        group.bench_function(format!("{name}/refuse"), |b| {
            b.iter(|| limiter.admit(black_box(other), 1_000_000, &strict) == Decision::Allowed);
        });
    }
    let Some(meter) = generous() else { return };
    let rules = Rules { rate: Some(meter), concurrent_max: None, listener_rate: Some(meter) };
    let own = Rules { listener_rate: None, ..rules };
    for (name, rules) in [("rules/rate", own), ("rules/rate+listener_rate", rules)] {
        let key = limiter.key(client(20), Prefix::WHOLE);
        group.bench_function(name, |b| {
            b.iter(|| {
                now_us += 1;
                let (limiter, listener_rate, key) = (&limiter, &listener_rate, black_box(key));
                Asked { rules: &rules, limiter, listener_rate, key }.admit(now_us).is_ok()
            });
        });
    }
    group.finish();
}

/// Two threads that admit `iters` times each; the mean time of one.
fn on_two_threads(limiter: &Limiter, quota: &Meter, keys: &[LimitKey], iters: u64) -> Duration {
    let barrier = Barrier::new(2);
    let work = |offset: usize| {
        barrier.wait();
        let start = Instant::now();
        let turns = keys.iter().cycle().skip(offset % keys.len());
        for (key, now_us) in turns.zip(1_000_000..1_000_000 + iters) {
            black_box(limiter.admit(*key, now_us, quota));
        }
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(keys.len() / 2));
        let mine = work(0);
        other.join().map_or(mine, |theirs| (mine + theirs) / 2)
    })
}

fn contended(c: &mut Criterion) {
    let Some(quota) = generous() else { return };
    let mut group = c.benchmark_group("limiter/two-threads");
    for (name, count) in [("one-key", 1), ("10k-keys", 10_000), ("million-keys", MILLION)] {
        let limiter = Limiter::new(1 << 21, None, SEEDS);
        limiter.extents().for_each(prefer_large_pages);
        let keys = keys(&limiter, count);
        for key in &keys {
            limiter.admit(*key, 1_000_000, &quota);
        }
        group.bench_function(name, |b| {
            b.iter_custom(|iters| on_two_threads(&limiter, &quota, &keys, iters));
        });
    }
    group.finish();
}

fn choices(c: &mut Criterion) {
    let mut group = c.benchmark_group("choice");
    for count in [10_u16, 100] {
        let weights = vec![1_u32; usize::from(count)];
        let mut robin = RoundRobin::new(&weights);
        group.bench_function(format!("round-robin/{count}"), |b| b.iter(|| robin.pick(|_| true)));
        let loads: Vec<u32> = (0..u32::from(count)).map(|n| scattered(n) % 50).collect();
        let carried = |sessions: &[u32]| -> Vec<MemberLoad> {
            let loads = (0..).zip(sessions);
            loads.map(|(member, &sessions)| MemberLoad { member, weight: 1, sessions }).collect()
        };
        let tied = vec![3; usize::from(count)];
        for (name, loads) in [("", carried(&loads)), ("/all-tied", carried(&tied))] {
            let mut members = Vec::new();
            group.bench_function(format!("least-connections/{count}{name}"), |b| {
                b.iter(|| {
                    members.clone_from(black_box(&loads));
                    least_connections::pick(&mut robin, &mut members)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = machine, maglev, limiter, windows, contended, choices
);
criterion_main!(benches);
