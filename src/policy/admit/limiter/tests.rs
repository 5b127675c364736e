//! The limiter against a map of exact token buckets, and under threads that race.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SEEDS: [u64; 4] = [1, 2, 3, 4];
const SECOND: Duration = Duration::from_secs(1);

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn quota(rate: u64, burst: u32) -> Meter {
    Meter::token_bucket(rate, SECOND, burst).unwrap()
}

/// One of each algorithm, with the same budget.
fn meters(rate: u64) -> [Meter; 3] {
    let burst = u32::try_from(rate).unwrap();
    [
        quota(rate, burst),
        Meter::sliding_window(rate, SECOND).unwrap(),
        Meter::fixed_window(rate, SECOND).unwrap(),
    ]
}

#[test]
fn clients_have_limits_of_their_own() {
    // If this fails, one client's flood refuses another.
    let limiter = Limiter::new(65_536, None, SEEDS);
    let quota = quota(10, 2);
    let [one, two] = [1, 2].map(|n| limiter.key(client(n), Prefix::WHOLE));
    let at = 5_000_000;
    assert_eq!(limiter.admit(one, at, &quota), Decision::Allowed);
    assert_eq!(limiter.admit(one, at, &quota), Decision::Allowed);
    let refused = Decision::Refused { retry_after_us: 100_000, full_after_us: 200_000 };
    assert_eq!(limiter.peek(one, at, &quota), refused);
    assert_eq!(limiter.admit(one, at, &quota), refused);
    assert_eq!(limiter.admit(two, at, &quota), Decision::Allowed);
    assert_eq!(limiter.admit(one, at + 100_000, &quota), Decision::Allowed);
}

#[test]
fn a_prefix_is_one_client() {
    // If this fails, the owner of an IPv6 /64 has 2^64 limits.
    let limiter = Limiter::new(64, None, SEEDS);
    let prefix = Prefix { v4: 32, v6: 64 };
    let key = |text: &str| limiter.key(text.parse().unwrap(), prefix);
    assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    assert_ne!(key("192.0.2.1"), limiter.key_without_address());
}

#[test]
fn concurrency_goes_up_and_down() {
    // If this fails, a client is locked out after its sessions have ended.
    let limiter = Limiter::new(8, Some(64), SEEDS);
    let key = limiter.key(client(1), Prefix::WHOLE);
    assert_eq!(limiter.enter(key, 2), Entry::Counted);
    assert_eq!(limiter.enter(key, 2), Entry::Counted);
    assert_eq!(limiter.enter(key, 2), Entry::Refused);
    limiter.leave(key);
    assert_eq!(limiter.sessions(key), 1);
    assert_eq!(limiter.enter(key, 2), Entry::Counted);
    assert_eq!(limiter.enter(key, 0), Entry::Refused);
    assert_eq!(Limiter::new(8, None, SEEDS).enter(key, 1), Entry::Uncounted);
}

#[test]
fn without_room_sessions_are_let_in_and_that_is_counted() {
    // If this fails, a full table refuses honest clients or forgets open sessions.
    let limiter = Limiter::new(8, Some(8), SEEDS);
    let keys: Vec<LimitKey> = (0..9).map(|n| limiter.key(client(n), Prefix::WHOLE)).collect();
    for key in &keys[..8] {
        assert_eq!(limiter.enter(*key, 1), Entry::Counted);
    }
    assert_eq!(limiter.enter(keys[8], 1), Entry::Uncounted);
    assert_eq!(limiter.overflows(), 1);
    assert_eq!(limiter.enter(keys[0], 1), Entry::Refused);
    limiter.leave(keys[3]);
    assert_eq!(limiter.enter(keys[8], 1), Entry::Counted);
}

#[test]
fn a_flood_of_addresses_takes_no_memory_and_is_counted() {
    // If this fails, 2^20 source networks exhaust memory or go unnoticed.
    let limiter = Limiter::new(1_024, None, SEEDS);
    let memory = limiter.memory_bytes();
    assert!(memory < 1_024 * 8 + 16_384, "{memory}");
    let quota = quota(1, 1);
    for number in 0..100_000 {
        let key = limiter.key(client(number), Prefix::WHOLE);
        assert_eq!(limiter.admit(key, 1_000_000, &quota), Decision::Allowed);
    }
    assert!(limiter.live_evictions() > 90_000);
    assert_eq!(limiter.memory_bytes(), memory);
    assert_eq!(limiter.sweep(3_000_000, &quota), 0);
}

#[test]
fn racing_workers_admit_exactly_the_burst() {
    // If this fails, a client gets more than its burst by hitting several workers at once.
    // Long enough that the threads overlap even where there are fewer cores than threads.
    let quota = quota(1, 20_000);
    for round in 0_u32..2_000 {
        let limiter = Limiter::new(64, None, SEEDS);
        let key = limiter.key(client(round), Prefix::WHOLE);
        let (barrier, allowed) = (Barrier::new(3), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    barrier.wait();
                    let admit =
                        |_: &i32| limiter.admit(key, 1_000_000, &quota) == Decision::Allowed;
                    let mine = u32::try_from((0..15_000).filter(admit).count()).unwrap();
                    allowed.fetch_add(mine, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(allowed.into_inner(), 20_000, "round {round}");
        if round > 10 && limiter.rates.collisions() > 0 {
            return;
        }
    }
    panic!("no two threads ever met");
}

#[test]
fn racing_workers_admit_exactly_the_window() {
    // If this fails, a client gets more than its window by hitting several workers at once.
    for meter in [
        Meter::sliding_window(20_000, SECOND).unwrap(),
        Meter::fixed_window(20_000, SECOND).unwrap(),
    ] {
        let limiter = Limiter::new(64, None, SEEDS);
        let key = limiter.key(client(1), Prefix::WHOLE);
        let (barrier, allowed) = (Barrier::new(3), AtomicU32::new(0));
        let work = || {
            barrier.wait();
            let admit = |_: &i32| limiter.admit(key, 1_000_000, &meter) == Decision::Allowed;
            let mine = u32::try_from((0..15_000).filter(admit).count()).unwrap();
            allowed.fetch_add(mine, Ordering::Relaxed);
        };
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
        assert_eq!(allowed.into_inner(), 20_000);
    }
}

#[test]
fn what_is_given_back_can_be_used_again() {
    // If this fails, a client pays for connections that the listener's rate refused.
    for meter in meters(3) {
        let limiter = Limiter::new(64, None, SEEDS);
        let key = limiter.key(client(1), Prefix::WHOLE);
        for _ in 0..10 {
            assert_eq!(limiter.admit(key, 1_000_000, &meter), Decision::Allowed);
            limiter.give_back(key, 1_000_000, &meter);
        }
        let admits = (0..10).filter(|_| limiter.admit(key, 1_000_000, &meter) == Decision::Allowed);
        assert_eq!(admits.count(), 3);
        limiter.give_back(limiter.key(client(2), Prefix::WHOLE), 1_000_000, &meter);
        // What is spent is forgotten, what is used is not.
        assert_eq!(limiter.sweep(1_000_000, &meter), 1);
        assert_eq!(limiter.sweep(3_000_000, &meter), 0);
    }
}

#[test]
fn new_rates_keep_sessions_and_numbers() {
    // If this fails, a reload that changes the algorithm lets a client hold twice its sessions.
    let limiter = Limiter::new(8, Some(8), SEEDS);
    let [bucket, window, _] = meters(1);
    let keys: Vec<LimitKey> = (0..20).map(|n| limiter.key(client(n), Prefix::WHOLE)).collect();
    for key in &keys {
        limiter.admit(*key, 1_000_000, &bucket);
    }
    assert_eq!(limiter.enter(keys[0], 1), Entry::Counted);
    assert_eq!(limiter.live_evictions(), 12);
    let next = limiter.with_new_rates(8);
    assert_eq!(next.live_evictions(), 12);
    assert_eq!(next.enter(keys[0], 1), Entry::Refused);
    assert_eq!(next.key(client(0), Prefix::WHOLE), keys[0]);
    for key in &keys[12..] {
        assert_eq!(next.admit(*key, 1_000_000, &window), Decision::Allowed);
        assert_ne!(next.admit(*key, 1_000_000, &window), Decision::Allowed);
    }
    limiter.leave(keys[0]);
    assert_eq!(next.enter(keys[0], 1), Entry::Counted);
}

#[test]
fn what_was_used_is_carried_into_any_other_table() {
    // If this fails, a reload gives every client a fresh budget, or takes one from those that have
    // used nothing.
    let at = 5_000_000;
    for old in meters(20) {
        let limiter = Limiter::new(256, Some(64), SEEDS);
        let keys: Vec<LimitKey> = (0..100).map(|n| limiter.key(client(n), Prefix::WHOLE)).collect();
        for (key, used) in keys.iter().zip(0..) {
            for _ in 0..used % 21 {
                assert_eq!(limiter.admit(*key, at, &old), Decision::Allowed);
            }
        }
        for (new, size) in meters(10).into_iter().flat_map(|new| [256, 64, 1_024].map(|s| (new, s)))
        {
            let next = limiter.carried(size, &new, &old, at);
            // Where sets become one, those that used least may have to give way.
            let is_smaller = size < 256;
            for (key, used) in keys.iter().zip(0_u64..) {
                let expected = 10_u64.saturating_sub(used % 21);
                let left = next.left(*key, at, &new);
                assert!(left == expected || (is_smaller && left == 10), "{left} for {used}");
            }
            let newcomer = next.key(client(1_000), Prefix::WHOLE);
            assert_eq!(next.left(newcomer, at, &new), 10);
        }
    }
}

#[test]
fn sessions_have_room_when_there_may_be_more() {
    // If this fails, raising max_sessions leaves a table in which new clients are not counted.
    let limiter = Limiter::new(8, Some(8), SEEDS);
    let key = limiter.key(client(1), Prefix::WHOLE);
    assert_eq!(limiter.enter(key, 1), Entry::Counted);
    for size in [1, 8] {
        assert_eq!(limiter.with_sessions(Some(size)).sessions(key), 1, "the same table");
    }
    let wider = limiter.with_sessions(Some(4_096));
    for number in 0..1_024 {
        let key = wider.key(client(number), Prefix::WHOLE);
        assert_eq!(wider.enter(key, 1), Entry::Counted);
    }
    assert_eq!(wider.overflows(), 0);
    assert!(limiter.with_sessions(None).open_sessions().is_none());
}

#[test]
fn another_table_counts_on() {
    // If this fails, a reload that widens the table hides that it was too small.
    let limiter = Limiter::new(8, Some(8), SEEDS);
    let [bucket, ..] = meters(1);
    let keys: Vec<LimitKey> = (0..20).map(|n| limiter.key(client(n), Prefix::WHOLE)).collect();
    for key in &keys {
        limiter.admit(*key, 1_000_000, &bucket);
        assert_ne!(limiter.enter(*key, 1), Entry::Refused);
    }
    let next = Limiter::new(64, Some(64), SEEDS).counting_on_from(&limiter);
    assert_eq!((next.live_evictions(), next.overflows()), (12, 12));
    let without_sessions = Limiter::new(64, None, SEEDS).counting_on_from(&limiter);
    assert_eq!((without_sessions.live_evictions(), without_sessions.overflows()), (12, 0));
}

#[test]
fn the_client_that_has_used_least_is_forgotten_first() {
    // If this fails, a flood of new clients gives those at their limit a fresh budget.
    for meter in meters(5) {
        let limiter = Limiter::new(8, None, SEEDS);
        let keys: Vec<LimitKey> = (0..200).map(|n| limiter.key(client(n), Prefix::WHOLE)).collect();
        let flooder = keys[0];
        while limiter.admit(flooder, 1_000_000, &meter) == Decision::Allowed {}
        for key in &keys[1..] {
            assert_eq!(limiter.admit(*key, 1_000_000, &meter), Decision::Allowed);
            assert_ne!(limiter.admit(flooder, 1_000_000, &meter), Decision::Allowed);
        }
    }
}

#[test]
fn racing_workers_never_exceed_the_maximum() {
    // If this fails, max_concurrent is a suggestion.
    let limiter = Limiter::new(8, Some(64), SEEDS);
    let key = limiter.key(client(1), Prefix::WHOLE);
    let (barrier, inside) = (Barrier::new(3), AtomicU32::new(0));
    let work = || {
        barrier.wait();
        for _ in 0..50_000 {
            if limiter.enter(key, 2) == Entry::Counted {
                assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                inside.fetch_sub(1, Ordering::SeqCst);
                limiter.leave(key);
            }
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
    assert_eq!(limiter.sessions(key), 0);
}

/// A token bucket kept the usual way: tokens in millionths, refilled by the time that passed.
struct Tokens {
    millionths: u64,
    at_us: u64,
}

proptest! {
    #[test]
    fn agrees_with_token_buckets_in_a_map(
        rate in prop::sample::select(vec![1_u64, 2, 10, 100, 1_000]),
        burst in 1_u32..20,
        asks in prop::collection::vec((0_u32..40, 0_u64..50_000), 1..400),
    ) {
        // If this fails, the limiter enforces something else than a token bucket.
        let limiter = Limiter::new(65_536, None, SEEDS);
        let quota = quota(rate, burst);
        let full = u64::from(burst) * 1_000_000;
        let mut buckets: HashMap<u32, Tokens> = HashMap::new();
        let mut now_us = 10_000_000;
        for (number, gap_us) in asks {
            now_us += gap_us;
            let bucket =
                buckets.entry(number).or_insert(Tokens { millionths: full, at_us: now_us });
            let refill = (now_us - bucket.at_us) * rate;
            bucket.millionths = full.min(bucket.millionths + refill);
            bucket.at_us = now_us;
            let allowed = bucket.millionths >= 1_000_000;
            if allowed {
                bucket.millionths -= 1_000_000;
            }
            let key = limiter.key(client(number), Prefix::WHOLE);
            match limiter.admit(key, now_us, &quota) {
                Decision::Allowed => prop_assert!(allowed),
                Decision::Refused { retry_after_us, full_after_us } => {
                    prop_assert!(!allowed);
                    prop_assert_eq!(retry_after_us, (1_000_000 - bucket.millionths).div_ceil(rate));
                    prop_assert_eq!(full_after_us, (full - bucket.millionths).div_ceil(rate));
                }
            }
        }
        prop_assert_eq!(limiter.live_evictions(), 0);
    }

    #[test]
    fn sessions_agree_with_a_map(
        max in 0_u32..5,
        steps in prop::collection::vec((0_u32..20, any::<bool>()), 1..400),
    ) {
        // If this fails, the count of a client's sessions drifts.
        let limiter = Limiter::new(8, Some(4_096), SEEDS);
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for (number, enters) in steps {
            let key = limiter.key(client(number), Prefix::WHOLE);
            let count = counts.entry(number).or_insert(0);
            if enters {
                let expected = if *count < max { Entry::Counted } else { Entry::Refused };
                prop_assert_eq!(limiter.enter(key, max), expected);
                *count += u32::from(expected == Entry::Counted);
            } else if *count > 0 {
                limiter.leave(key);
                *count -= 1;
            }
            prop_assert_eq!(limiter.sessions(key), u64::from(*count));
        }
    }
}

// If this fails, a client that is over its rate gets a fresh burst by an upgrade.
#[test]
fn what_was_used_stays_used_in_another_process() {
    let meter = Meter::token_bucket(1, Duration::from_secs(3600), 3).unwrap();
    let before = Limiter::new(64, None, SEEDS);
    let prefix = Prefix { v4: 32, v6: 64 };
    let client = |limiter: &Limiter| limiter.key("192.0.2.7".parse().unwrap(), prefix);
    for _ in 0..3 {
        assert_eq!(before.admit(client(&before), 1_000, &meter), Decision::Allowed);
    }
    let after = Limiter::new(64, None, before.seeds());
    assert!(after.load_rates(before.rate_words()));
    assert_ne!(after.admit(client(&after), 2_000, &meter), Decision::Allowed);
    assert!(!Limiter::new(32, None, SEEDS).load_rates(before.rate_words()), "another size");
}
