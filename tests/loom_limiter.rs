//! Every interleaving of two workers at one client's limit, explored by loom.
//!
//! Run with `RUSTFLAGS="--cfg evenkeel_loom" cargo test --release --test loom_limiter`; without the
//! cfg this file is empty. The table then has two ways per set, so that both workers can be
//! inserting the same new client into different ways at the same moment.
#![cfg(evenkeel_loom)]

use std::sync::Arc;
use std::time::Duration;

use evenkeel::policy::admit::admission::{Asked, Over, Rules, admit_all};
use evenkeel::policy::admit::limiter::{Decision, Entry, LimitKey, Limiter};
use evenkeel::policy::admit::meter::Meter;
use evenkeel::policy::admit::shared_rate::SharedRate;
use evenkeel::policy::balance::hash::Prefix;
use evenkeel::policy::table::{Table, Update, Worth};

const SEEDS: [u64; 4] = [1, 2, 3, 4];
const SECOND: Duration = Duration::from_secs(1);

/// One meter of each algorithm; each admits `count` connections at once.
fn meters(count: u32) -> [Meter; 3] {
    [
        Meter::token_bucket(count.into(), SECOND, count).unwrap(),
        Meter::sliding_window(count.into(), SECOND).unwrap(),
        Meter::fixed_window(count.into(), SECOND).unwrap(),
    ]
}

fn key(limiter: &Limiter, last: u8) -> LimitKey {
    limiter.key([192, 0, 2, last].into(), Prefix::WHOLE)
}

/// Runs `work` on two threads at once and gives both results.
fn both<T: Send + 'static>(work: impl Fn(u64) -> T + Send + Sync + 'static) -> (T, T) {
    let work = Arc::new(work);
    let other = {
        let work = Arc::clone(&work);
        loom::thread::spawn(move || work(1))
    };
    let mine = work(0);
    (mine, other.join().unwrap())
}

#[test]
fn a_new_client_with_burst_one_is_admitted_once() {
    // If this fails, two workers that meet a client for the first time both let it in.
    for meter in meters(1) {
        loom::model(move || {
            let limiter = Arc::new(Limiter::new(2, None, SEEDS));
            let (one, two) = both(move |_| limiter.admit(key(&limiter, 1), 1_000_000, &meter));
            let allowed = [one, two].iter().filter(|d| **d == Decision::Allowed).count();
            assert_eq!(allowed, 1);
        });
    }
}

#[test]
fn the_last_of_a_listeners_rate_goes_to_one() {
    // If this fails, a listener takes more than its rate when two workers ask at once.
    for meter in meters(2) {
        loom::model(move || {
            let rate = Arc::new(SharedRate::default());
            assert_eq!(rate.admit(1_000_000, &meter), Decision::Allowed);
            let shared = Arc::clone(&rate);
            let (one, two) = both(move |_| shared.admit(1_000_000, &meter));
            let allowed = [one, two].iter().filter(|d| **d == Decision::Allowed).count();
            assert_eq!(allowed, 1, "of two admissions at the last place");
            assert_ne!(rate.peek(1_000_000, &meter), Decision::Allowed);
        });
    }
}

#[test]
fn a_client_over_the_listeners_rate_has_used_nothing() {
    // If this fails, a client loses budget or a place because another worker was faster.
    for meter in meters(1) {
        let rules =
            Rules { rate: Some(meter), concurrent_max: Some(1), listener_rate: Some(meter) };
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(move || {
            let state = Arc::new((Limiter::new(2, Some(2), SEEDS), SharedRate::default()));
            let shared = Arc::clone(&state);
            let admits = move |client: u64| {
                let (limiter, listener_rate) = &*shared;
                let key = key(limiter, if client == 0 { 1 } else { 2 });
                let asked = Asked { rules: &rules, limiter, listener_rate, key };
                asked.admit(1_000_000).map_err(|refused| refused.over)
            };
            let (one, two) = both(admits);
            let refused = match (one, two) {
                (Ok(_), Err(Over::ListenerRate)) => 2,
                (Err(Over::ListenerRate), Ok(_)) => 1,
                other => panic!("{other:?}"),
            };
            let limiter = &state.0;
            assert_eq!(limiter.sessions(key(limiter, refused)), 0);
            assert_eq!(limiter.sessions(key(limiter, 3 - refused)), 1);
            let own = |client| limiter.peek(key(limiter, client), 1_000_000, &meter);
            assert_eq!(own(refused), Decision::Allowed);
            assert_ne!(own(3 - refused), Decision::Allowed);
        });
    }
}

#[test]
fn what_is_given_back_to_a_listeners_rate_is_there_for_another() {
    // If this fails, a connection that another limit refused lessens what a listener admits.
    for meter in meters(2) {
        loom::model(move || {
            let rate = Arc::new(SharedRate::default());
            assert_eq!(rate.admit(1_000_000, &meter), Decision::Allowed);
            let shared = Arc::clone(&rate);
            both(move |worker| match worker {
                0 => shared.give_back(1_000_000, &meter),
                _ => assert_eq!(shared.admit(1_000_000, &meter), Decision::Allowed),
            });
            assert_eq!(rate.admit(1_000_000, &meter), Decision::Allowed);
            assert_ne!(rate.admit(1_000_000, &meter), Decision::Allowed);
        });
    }
}

#[test]
fn of_two_limits_both_are_used_or_none() {
    // If this fails, two workers at the last place of one limit use up another for nothing.
    let rules = [2, 1].map(|count| {
        let rate = Meter::token_bucket(count.into(), SECOND, count);
        Rules { rate, ..Rules::default() }
    });
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let limiters = [(); 2].map(|()| (Limiter::new(2, None, SEEDS), SharedRate::default()));
        let limiters = Arc::new(limiters);
        let shared = Arc::clone(&limiters);
        let admits = move |_: u64| {
            let [one, two] = [0, 1].map(|tier: usize| {
                let (limiter, listener_rate) = &shared[tier];
                Asked { rules: &rules[tier], limiter, listener_rate, key: key(limiter, 1) }
            });
            admit_all(&[one, two], 1_000_000).is_ok()
        };
        let (one, two) = both(admits);
        assert!(one != two, "of two at the last place of the second limit");
        let left = [0, 1].map(|tier: usize| {
            let (limiter, _) = &limiters[tier];
            limiter.left(key(limiter, 1), 1_000_000, &rules[tier].rate.unwrap())
        });
        assert_eq!(left, [1, 0]);
    });
}

#[test]
fn a_new_client_with_one_session_enters_once() {
    // If this fails, max_concurrent = 1 lets two sessions in.
    loom::model(|| {
        let limiter = Arc::new(Limiter::new(2, Some(2), SEEDS));
        let shared = Arc::clone(&limiter);
        let (one, two) = both(move |_| shared.enter(key(&shared, 1), 1));
        let counted = [one, two].iter().filter(|e| **e == Entry::Counted).count();
        assert_eq!(counted, 1);
        assert_eq!(limiter.overflows(), 0);
        limiter.leave(key(&limiter, 1));
        assert_eq!(limiter.sessions(key(&limiter, 1)), 0);
    });
}

#[test]
fn two_new_keys_do_not_lose_each_other() {
    // If this fails, one client's first connection erases another's count.
    loom::model(|| {
        let table = Arc::new(Table::new(2));
        let shared = Arc::clone(&table);
        both(move |thread| {
            let update: Update<()> = shared.update(
                (thread + 1) << 44,
                |state| Ok(state.unwrap_or(0) + 1),
                |_| Worth::Pinned,
            );
            assert_eq!(update, Update::Stored);
        });
        assert_eq!((table.get(1 << 44), table.get(2 << 44)), (Some(1), Some(1)));
    });
}

#[test]
fn an_eviction_and_a_hit_do_not_mix_states() {
    // If this fails, an evicted client's change lands in the word of the one that took its place.
    loom::model(|| {
        let table = Arc::new(Table::new(2));
        for tag in [1_u64, 2] {
            let _: Update<()> = table.update(tag << 44, |_| Ok(tag), |_| Worth::Pinned);
        }
        let shared = Arc::clone(&table);
        both(move |thread| {
            let tag = if thread == 0 { 1_u64 } else { 3 };
            let _: Update<()> =
                shared.update(tag << 44, |state| Ok(state.unwrap_or(100 * tag) + 1), Worth::Live);
        });
        // The evicted one may be 1, before or after its change, or 2.
        assert_eq!(table.get(3 << 44), Some(301));
        assert!([None, Some(2), Some(101)].contains(&table.get(1 << 44)));
        assert!([None, Some(2)].contains(&table.get(2 << 44)));
    });
}

#[test]
fn insertions_into_different_ways_see_each_other() {
    // If this fails, two workers that each found a different place count one client twice.
    let mut model = loom::model::Builder::new();
    // Unbounded, two impatient workers may kill each other's words for ever.
    model.preemption_bound = Some(3);
    model.check(|| {
        let limiter = Arc::new(Limiter::new(2, Some(2), SEEDS));
        for last in [1, 2] {
            assert_eq!(limiter.enter(key(&limiter, last), 1), Entry::Counted);
        }
        let shared = Arc::clone(&limiter);
        let (one, two) = both(move |thread| {
            // Each makes a place of its own, and may not yet see the other's.
            shared.leave(key(&shared, if thread == 0 { 1 } else { 2 }));
            shared.enter(key(&shared, 3), 1)
        });
        let counted = [one, two].iter().filter(|e| **e == Entry::Counted).count();
        assert_eq!(counted, 1, "sessions of one client that may have one: {one:?} {two:?}");
    });
}
