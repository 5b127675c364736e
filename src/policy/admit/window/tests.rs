//! Windows against models that keep every admission, and the promises made of them.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SECOND_US: u64 = 1_000_000;

/// The times out of `asks_us` (ascending) at which one state admits.
fn admitted(meter: &impl Measure, asks_us: &[u64]) -> Vec<u64> {
    let mut state = None;
    let admits = |at: &&u64| match meter.ask(state, **at) {
        Ok(next) => {
            state = Some(next);
            true
        }
        Err(_) => false,
    };
    asks_us.iter().filter(admits).copied().collect()
}

/// The state after `count` admissions at once.
fn after(meter: &impl Measure, count: u64, at_us: u64) -> u64 {
    let more = |state: Option<u64>, _| Some(meter.ask(state, at_us).unwrap());
    (0..count).fold(None, more).unwrap()
}

/// How many are admitted at once.
fn room(meter: &impl Measure, state: u64, at_us: u64) -> u64 {
    let mut state = state;
    let mut room = 0;
    while let Ok(next) = meter.ask(Some(state), at_us) {
        (state, room) = (next, room + 1);
    }
    room
}

#[test]
fn windows_are_made_for_what_a_file_may_say() {
    // If this fails, a valid configuration cannot be enforced, or a word overflows.
    for seconds in [1, 60, 3_600, 86_400] {
        let period = Duration::from_secs(seconds);
        for count in [1, 1_023, 1_024, 16_383, 16_384, 100_000, WINDOW_COUNT_MAX] {
            let (fixed, sliding) =
                (FixedWindow::new(count, period).unwrap(), SlidingWindow::new(count, period));
            assert_eq!((fixed.count(), sliding.unwrap().count()), (count, count));
        }
        assert_eq!(FixedWindow::new(0, period), None);
        assert_eq!(SlidingWindow::new(WINDOW_COUNT_MAX + 1, period), None);
    }
    assert_eq!(SlidingWindow::new(1, Duration::ZERO), None);
    assert_eq!(FixedWindow::new(1, Duration::MAX), None);
}

#[test]
fn the_fullest_words_fit_into_43_bits() {
    // If this fails, a client's state runs over into the tag of its neighbour.
    for count in [1_023, 16_383, WINDOW_COUNT_MAX] {
        let sliding = SlidingWindow::new(count, SECOND).unwrap();
        let at_us = u64::MAX - u64::MAX % SECOND_US - SECOND_US;
        let counts = |before, count| Counts {
            window: at_us / SECOND_US,
            before,
            count,
            elapsed_us: 0,
            lead_us: 0,
        };
        assert!(sliding.word(&counts(count, count)) < 1 << TIME_BITS);
        let fixed = FixedWindow::new(count, SECOND).unwrap();
        assert!(after(&fixed, count, u64::MAX - 5) < 1 << TIME_BITS);
    }
}

#[test]
fn a_fixed_window_begins_with_the_first_and_comes_back_whole() {
    // If this fails, the budget is back at another time than the manual says.
    let window = FixedWindow::new(3, SECOND).unwrap();
    // A multiple of the unit, so that nothing is rounded.
    let start = 512 * 10_000;
    let full = after(&window, 3, start);
    let left = |at: u64| Wait {
        retry_after_us: start + SECOND_US - at,
        full_after_us: start + SECOND_US - at,
    };
    assert_eq!(window.ask(Some(full), start + 400_000), Err(left(start + 400_000)));
    assert_eq!(window.ask(Some(full), start + 999_999), Err(left(start + 999_999)));
    assert_eq!(room(&window, full, start + SECOND_US), 3);
}

#[test]
fn a_sliding_window_gives_back_what_has_slid_out() {
    // If this fails, the plot in the manual is wrong.
    let window = SlidingWindow::new(10, SECOND).unwrap();
    let full = after(&window, 10, 5 * SECOND_US + 900_000);
    // Nothing more in the window of the burst, then a tenth of it for each tenth of the next.
    assert_eq!(room(&window, full, 5 * SECOND_US + 999_999), 0);
    for (elapsed_us, expected) in [(0, 1), (99_999, 1), (100_000, 2), (500_000, 6), (999_999, 10)] {
        assert_eq!(room(&window, full, 6 * SECOND_US + elapsed_us), expected, "{elapsed_us}");
    }
    let refusal = Wait { retry_after_us: 100_000, full_after_us: 1_000_000 };
    assert_eq!(window.ask(Some(full), 5 * SECOND_US + 900_000), Err(refusal));
}

#[test]
fn a_worker_with_an_older_clock_does_not_empty_the_window() {
    // If this fails, a client gets its budget twice where two workers' clocks differ.
    let at = 7 * SECOND_US + 3;
    let (fixed, sliding) =
        (FixedWindow::new(5, SECOND).unwrap(), SlidingWindow::new(5, SECOND).unwrap());
    for behind_us in [0, 1, 10, 1_000, 999_999, 3_999_999] {
        let refusal = fixed.ask(Some(after(&fixed, 5, at)), at - behind_us).unwrap_err();
        assert!((1..=SECOND_US + behind_us).contains(&refusal.retry_after_us), "{behind_us}");
        let refusal = sliding.ask(Some(after(&sliding, 5, at)), at - behind_us).unwrap_err();
        assert!((1..=SECOND_US + behind_us).contains(&refusal.retry_after_us), "{behind_us}");
    }
}

#[test]
fn a_lowered_rate_counts_what_was_used() {
    // If this fails, a client that a reload slows down gets a fresh budget by it.
    let [many, few] = [100, 10].map(|count| FixedWindow::new(count, SECOND).unwrap());
    let state = after(&many, 50, 9 * SECOND_US);
    assert!(few.reads(&many) && few.ask(Some(state), 9 * SECOND_US).is_err());
    let [many, few] = [100, 10].map(|count| SlidingWindow::new(count, SECOND).unwrap());
    let state = after(&many, 50, 9 * SECOND_US);
    assert!(few.reads(&many));
    let refusal = few.ask(Some(state), 9 * SECOND_US).unwrap_err();
    // The 50 of this window leave room for one when four fifths of the next are over.
    assert_eq!(refusal.retry_after_us, SECOND_US + 800_000);
    assert!(!few.reads(&SlidingWindow::new(10, 60 * SECOND).unwrap()));
    assert!(!few.reads(&SlidingWindow::new(2_000, SECOND).unwrap()));
}

fn any_rate() -> impl Strategy<Value = (u64, u64)> {
    let count = prop_oneof![1_u64..20, 1_u64..3_000, 1_u64..100_001];
    (count, prop::sample::select(vec![1_u64, 60, 3_600, 86_400]))
}

/// A rate, and times to ask: gaps in thousandths of what the rate allows, bursts between them.
fn any_asks() -> impl Strategy<Value = ((u64, u64), Vec<u64>)> {
    let gap = prop_oneof![Just(0_u64), 0_u64..3_000, 0_u64..100_000];
    let gaps = prop::collection::vec(gap, 1..400);
    ((1_u64..40, prop::sample::select(vec![1_u64, 60])), 0_u64..1 << 45, gaps).prop_map(
        |((count, seconds), start_us, gaps)| {
            let step_us = seconds * SECOND_US / count;
            let mut at_us = start_us;
            let mut later = |gap: u64| {
                at_us += gap * step_us / 1_000;
                at_us
            };
            ((count, seconds), gaps.into_iter().map(&mut later).collect())
        },
    )
}

proptest! {
    #[test]
    fn a_fixed_window_agrees_with_a_model(((count, seconds), asks) in any_asks()) {
        // If this fails, a client gets more than N, or less, in a window of its own.
        let window = FixedWindow::new(count, Duration::from_secs(seconds)).unwrap();
        let unit_us = 1 << window.unit_shift;
        prop_assert!(unit_us * 1_000 <= seconds * SECOND_US);
        let mut open: Option<(u64, u64)> = None;
        let mut expected = Vec::new();
        for &at in &asks {
            let (start, used) = open
                .filter(|(start, _)| at < start + seconds * SECOND_US)
                .unwrap_or((at / unit_us * unit_us, 0));
            if used < count {
                expected.push(at);
                open = Some((start, used + 1));
            }
        }
        prop_assert_eq!(admitted(&window, &asks), expected);
    }

    #[test]
    fn a_sliding_window_agrees_with_a_model(((count, seconds), asks) in any_asks()) {
        // If this fails, a sliding window enforces something else than the documented estimate.
        let window = SlidingWindow::new(count, Duration::from_secs(seconds)).unwrap();
        let period = u128::from(seconds * SECOND_US);
        let mut times: Vec<u128> = Vec::new();
        for &at in &asks {
            let at = u128::from(at);
            let of = |number: u128| times.iter().filter(|time| **time / period == number).count();
            let now = of(at / period) as u128;
            let before = (at / period).checked_sub(1).map_or(0, of) as u128;
            // The share of the window before that is less than a period ago, exactly.
            let weighted = before * (period - 1 - at % period);
            if now * period + weighted < u128::from(count) * period {
                times.push(at);
            }
        }
        let found: Vec<u128> = admitted(&window, &asks).into_iter().map(u128::from).collect();
        prop_assert_eq!(found, times);
    }

    #[test]
    fn no_span_gets_more_than_windows_allow(((count, seconds), asks) in any_asks()) {
        // If this fails, the bounds in the manual do not hold.
        let period = Duration::from_secs(seconds);
        let period_us = seconds * SECOND_US;
        let fixed = admitted(&FixedWindow::new(count, period).unwrap(), &asks);
        let sliding = admitted(&SlidingWindow::new(count, period).unwrap(), &asks);
        for (times, slides) in [(fixed, false), (sliding, true)] {
            for (first, &from) in times.iter().enumerate() {
                let within = times[first..].iter().take_while(|to| **to - from < period_us);
                for (others, &to) in within.enumerate() {
                    // Fixed: twice the number. Sliding: the number, and the rate for the span.
                    let others = others as u64;
                    let bound = match slides {
                        true => count * period_us + count * (to - from + 1),
                        false => 2 * count * period_us,
                    };
                    prop_assert!(others * period_us < bound, "{others} more after {}", to - from);
                }
            }
        }
    }

    #[test]
    fn a_client_at_the_rate_is_not_refused(
        (count, seconds) in any_rate(), start_us in 0_u64..1 << 50, asks in 1_usize..2_000,
        jitter in 0_u64..3,
    ) {
        // If this fails, a client within its limit is turned away.
        let period = Duration::from_secs(seconds);
        let gap_us = (seconds * SECOND_US).div_ceil(count);
        let times: Vec<u64> =
            (0..asks as u64).map(|n| start_us + n * gap_us + n / 7 * jitter * gap_us).collect();
        let fixed = FixedWindow::new(count, period).unwrap();
        let sliding = SlidingWindow::new(count, period).unwrap();
        prop_assert_eq!(admitted(&fixed, &times).len(), asks);
        prop_assert_eq!(admitted(&sliding, &times).len(), asks);
    }

    #[test]
    fn refusals_say_exactly_when(
        (count, seconds) in (1_u64..60, prop::sample::select(vec![1_u64, 60, 86_400])),
        start_us in 0_u64..1 << 45, parts in (0_u64..1_000, 0_u64..2_500), used in 1_u64..60,
    ) {
        // If this fails, Retry-After sends the client back too early, or keeps it away.
        let period_us = seconds * SECOND_US;
        let sliding = SlidingWindow::new(count, Duration::from_secs(seconds)).unwrap();
        let fixed = FixedWindow::new(count, Duration::from_secs(seconds)).unwrap();
        let first = start_us + parts.0 * period_us / 1_000;
        let now = first + parts.1 * period_us / 1_000;
        exact(&sliding, (count, used.min(count)), first, now)?;
        exact(&fixed, (count, used.min(count)), first, now)?;
    }

    #[test]
    fn the_budget_only_comes_back(
        (count, seconds) in any_rate(), start_us in 0_u64..1 << 50, used in 1_u64..200,
        steps in prop::collection::vec(0_u64..400, 1..30),
    ) {
        // If this fails, a client that waits is worse off than one that does not.
        let period = Duration::from_secs(seconds);
        let used = used.min(count);
        let sliding = SlidingWindow::new(count, period).unwrap();
        let fixed = FixedWindow::new(count, period).unwrap();
        let (mut at, mut least) = (start_us, [u64::MAX; 2]);
        let states = [after(&sliding, used, at), after(&fixed, used, at)];
        for step in steps {
            let left = [sliding.used(states[0], at), fixed.used(states[1], at)];
            prop_assert!(left[0] <= least[0] && left[1] <= least[1], "{left:?} after {least:?}");
            (at, least) = (at + step * seconds * 1_000, left);
        }
        at += 2 * seconds * SECOND_US;
        prop_assert_eq!([sliding.used(states[0], at), fixed.used(states[1], at)], [0, 0]);
    }

    #[test]
    fn what_is_given_back_was_never_taken(
        (count, seconds) in any_rate(), start_us in 0_u64..1 << 50, used in 1_u64..100,
        parts in (0_u64..3_000, 0_u64..1_000),
    ) {
        // If this fails, a client pays for a connection that the listener refused, or gains by it.
        let period_us = seconds * SECOND_US;
        let (later, unpunctual) = (start_us + parts.0 * period_us / 1_000, period_us / 7);
        let used = used.min(count);
        let sliding = SlidingWindow::new(count, Duration::from_secs(seconds)).unwrap();
        let fixed = FixedWindow::new(count, Duration::from_secs(seconds)).unwrap();
        for (meter, state) in [
            (&sliding as &dyn Measure, after(&sliding, used, start_us)),
            (&fixed as &dyn Measure, after(&fixed, used, start_us)),
        ] {
            if let Ok(next) = meter.ask(Some(state), later) {
                let back = meter.give_back(next, later).unwrap();
                for at in [later, later + unpunctual, later + parts.1 * period_us / 1_000] {
                    prop_assert_eq!(meter.used(back, at), meter.used(state, at));
                }
            }
        }
    }
}

/// After `used` at once, a refusal at `now` names the first moment that admits one, and the first
/// that admits all.
fn exact(
    meter: &impl Measure,
    (count, used): (u64, u64),
    first: u64,
    now: u64,
) -> Result<(), TestCaseError> {
    let mut state = after(meter, used, first);
    // Whatever is left at `now`, too.
    while let Ok(next) = meter.ask(Some(state), now) {
        state = next;
    }
    let refusal = meter.ask(Some(state), now).unwrap_err();
    let (retry, full) = (now + refusal.retry_after_us, now + refusal.full_after_us);
    prop_assert!(refusal.retry_after_us >= 1 && retry <= full);
    prop_assert!(meter.ask(Some(state), retry).is_ok());
    prop_assert!(meter.ask(Some(state), retry - 1).is_err());
    prop_assert_eq!(room(meter, state, full), count);
    prop_assert!(room(meter, state, full - 1) < count);
    Ok(())
}
