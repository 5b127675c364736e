//! What an operator is told of meters, what they keep over reloads, and stored times that come
//! round.

use proptest::prelude::*;

use super::*;

/// What a client gets that asks every millisecond, by tenths of a second; `X` is ten.
fn row(meter: &Meter, start_us: u64) -> String {
    let mut state = None;
    let mut admitted = [0_usize; 30];
    for millisecond in 0..3_000 {
        if let Ok(next) = meter.ask(state, start_us + millisecond as u64 * 1_000) {
            state = Some(next);
            admitted[millisecond / 100] += 1;
        }
    }
    admitted.map(|count| char::from(b".123456789X"[count])).iter().collect()
}

#[test]
fn what_is_left_is_what_is_admitted() {
    // If this fails, an operator reads a number that the client does not get.
    let second = Duration::from_secs(1);
    let meters = [
        Meter::token_bucket(10, second, 25),
        Meter::sliding_window(10, second),
        Meter::fixed_window(10, second),
    ];
    for meter in meters.map(Option::unwrap) {
        let (mut state, at_us) = (None, 512_500_000);
        assert_eq!(meter.left(None, at_us), meter.budget());
        for used in 1..=meter.budget() {
            state = meter.ask(state, at_us).ok();
            assert_eq!(meter.left(state, at_us), meter.budget() - used, "{meter:?}");
        }
    }
    let endless = Meter::token_bucket(1_000_000, second, 1_000_000).unwrap();
    assert_eq!(endless.left(None, 1), LEFT_MAX);
}

#[test]
fn the_plot_in_the_manual_is_what_happens() {
    // If this fails, docs/choosing.md shows another behaviour than the one an operator gets.
    let second = Duration::from_secs(1);
    let rows = [
        ("token-bucket", Meter::token_bucket(10, second, 10)),
        ("sliding-window", Meter::sliding_window(10, second)),
        ("fixed-window", Meter::fixed_window(10, second)),
    ];
    let manual = include_str!("../../../../docs/choosing.md");
    for (name, meter) in rows {
        // Begins in the middle of a sliding window.
        let line = format!("{name:<16}{}", row(&meter.unwrap(), 512_500_000));
        assert!(manual.contains(&line), "{line}");
    }
}

/// A second in the middle of nowhere.
const AT: u64 = 512_500_000;
/// How often states that are used up are forgotten.
const SWEEP_US: u64 = 60_000_000;

/// The state of a client that has come this often at once.
fn after(meter: &Meter, times: u64, at_us: u64) -> Option<u64> {
    (0..times).fold(None, |state, _| meter.ask(state, at_us).ok().or(state))
}

/// What is left to a client of `old` when `new` takes its place, at the same moment.
fn left_by_reload(old: &Meter, new: &Meter, state: Option<u64>, at_us: u64) -> u64 {
    new.left(state.and_then(|state| new.carry(old, state, at_us)), at_us)
}

#[test]
fn a_lowered_burst_leaves_nothing_to_a_client_that_has_used_more() {
    // If this fails, a reload that is to slow clients down gives the heaviest a fresh budget.
    let minute = Duration::from_secs(60);
    let old = Meter::token_bucket(100, minute, 100).unwrap();
    let lower = [
        Meter::token_bucket(100, minute, 10),
        Meter::token_bucket(10, minute, 10),
        Meter::sliding_window(10, minute),
        Meter::fixed_window(10, minute),
    ];
    for new in lower.map(Option::unwrap) {
        let left = [0, 1, 5, 9, 10, 11, 50, 99, 100]
            .map(|used| left_by_reload(&old, &new, after(&old, used, AT), AT));
        assert_eq!(left, [10, 9, 5, 1, 0, 0, 0, 0, 0], "{new:?}");
        // It is not punished for longer than a client that has just used all of the new budget.
        let full = after(&old, 100, AT).and_then(|state| new.carry(&old, state, AT));
        let wait = Measure::ask(&new, full, AT).unwrap_err();
        assert!(wait.full_after_us <= 120_000_000, "{wait:?}");
    }
}

#[test]
fn a_raised_limit_is_there_at_once() {
    // If this fails, a client that is to get more waits for as long as before, or longer.
    let hour = Duration::from_secs(3_600);
    let old = Meter::token_bucket(10, hour, 10).unwrap();
    let raised = [
        Meter::token_bucket(10, hour, 100),
        Meter::token_bucket(100, hour, 100),
        Meter::token_bucket(100_000, Duration::from_secs(1), 100),
        Meter::sliding_window(100, hour),
        Meter::fixed_window(100, hour),
    ];
    for new in raised.map(Option::unwrap) {
        let left = [0, 4, 10].map(|used| left_by_reload(&old, &new, after(&old, used, AT), AT));
        assert_eq!(left, [100, 96, 90], "{new:?}");
    }
}

fn any_meter() -> impl Strategy<Value = Meter> {
    let count = prop_oneof![1_u64..30, 1_u64..3_000, 1_000_u64..1_050];
    let period = prop::sample::select(vec![1_u64, 60, 3_600, 86_400]);
    (0..3, count, 1_u32..2_000, period).prop_filter_map(
        "the whole burst must be back within 30 days",
        |(which, count, burst, seconds)| {
            let period = Duration::from_secs(seconds);
            match which {
                0 if u64::from(burst) * seconds / count > 30 * 86_400 => None,
                0 => Meter::token_bucket(count, period, burst),
                1 => Meter::sliding_window(count, period),
                _ => Meter::fixed_window(count, period),
            }
        },
    )
}

/// What a meter has to hold of a client that came at these times, given as millionths of an hour
/// before `AT`, each several times.
fn state_of(meter: &Meter, visits: &[(u64, u64)], at_us: u64) -> Option<u64> {
    let mut visits = visits.to_vec();
    visits.sort_unstable_by_key(|(ago, _)| std::cmp::Reverse(*ago));
    visits.iter().fold(None, |state, (ago, times)| {
        let come = |state: Option<u64>, _| meter.ask(state, at_us - ago * 3_600).ok().or(state);
        (0..*times).fold(state, come)
    })
}

fn any_visits() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let ago = prop_oneof![0_u64..10, 0_u64..300, 0_u64..20_000, 0_u64..1_000_000];
    prop::collection::vec((ago, 1_u64..400), 0..8)
}

fn fraction(meter: &Meter, state: Option<u64>, at_us: u64) -> Fraction {
    state.map_or(Fraction::NONE, |state| Measure::spent(meter, state, at_us).admissions)
}

fn is_more(one: Fraction, other: Fraction) -> bool {
    let [left, right] = [(one.parts, other.whole), (other.parts, one.whole)]
        .map(|(a, b)| u128::from(a) * u128::from(b));
    left > right
}

proptest! {
    #[test]
    fn a_client_that_used_more_never_has_more_left(
        old in any_meter(), new in any_meter(), visits in [any_visits(), any_visits()],
        start_us in 0_u64..1 << 50,
    ) {
        // If this fails, a reload rewards the clients that it is meant for.
        let at_us = start_us + 4_000_000_000;
        let states = visits.each_ref().map(|visits| state_of(&old, visits, at_us));
        let carried = states.map(|state| state.and_then(|it| new.carry(&old, it, at_us)));
        let before = states.map(|state| old.left(state, at_us));
        let left = carried.map(|state| new.left(state, at_us));
        let used = [fraction(&old, states[0], at_us), fraction(&old, states[1], at_us)];
        for (one, other) in [(0, 1), (1, 0)] {
            if before[one] < before[other] || is_more(used[one], used[other]) {
                prop_assert!(left[one] <= left[other], "{before:?} became {left:?}");
            }
        }
        // Exact, but for what is rounded up to one admission.
        for (used, left) in used.into_iter().zip(left) {
            let least = new.budget().saturating_sub(used.of_rounded_up(1));
            let most = new.budget().saturating_sub(used.of(1));
            prop_assert!((least..=most).contains(&left), "{left} of {least} to {most}");
        }
        // And so it stays between token buckets, as long as neither comes again.
        if let (Meter::TokenBucket(_), Meter::TokenBucket(_)) = (&old, &new) {
            for later in [1, 1_000, 1_000_000, 60_000_000, 3_600_000_000] {
                let left = carried.map(|state| new.left(state, at_us + later));
                let is_less = [is_more(used[0], used[1]), is_more(used[1], used[0])];
                prop_assert!(!(is_less[0] && left[0] > left[1]));
                prop_assert!(!(is_less[1] && left[1] > left[0]));
            }
        }
    }

    #[test]
    fn an_unchanged_limit_keeps_what_was_left(
        meter in any_meter(), visits in any_visits(), start_us in 0_u64..1 << 50,
    ) {
        // If this fails, every reload costs clients a part of their budget, or gives them one.
        let at_us = start_us + 4_000_000_000;
        let state = state_of(&meter, &visits, at_us);
        let carried = state.and_then(|state| meter.carry(&meter, state, at_us));
        for later in [0, 1_000_000, 60_000_000, 3_600_000_000] {
            let at_us = at_us + later;
            prop_assert_eq!(meter.left(carried, at_us), meter.left(state, at_us));
        }
    }

    #[test]
    fn what_is_used_up_stays_so_for_a_turn(
        meter in any_meter(), times in 1_u64..4_000, start_us in 0_u64..1 << 50,
        part in 0_u64..=1_000, near_us in 0_u64..3_000_000,
    ) {
        // If this fails, a client that was away for long is refused as if it had just been there.
        let state = after(&meter, times.min(meter.budget()), start_us);
        let full = after(&meter, meter.budget(), start_us);
        let wait = Measure::ask(&meter, full, start_us).unwrap_err();
        let turn_us = meter.turn_us();
        prop_assert!(turn_us > 5 * SWEEP_US, "{turn_us}");
        for state in [state, full].into_iter().flatten() {
            let is_used = |at_us: u64| meter.used(state, at_us) > 0;
            // The first moment at which nothing of it is left: of a sliding window later than the
            // whole budget is back.
            let later_us = (start_us + wait.full_after_us..).step_by(1_000_000);
            let back_us = later_us.take(3 * 86_400).find(|at_us| !is_used(*at_us));
            let (mut used_us, mut back_us) = (start_us, back_us.unwrap());
            while back_us - used_us > 1 {
                let between_us = used_us + (back_us - used_us) / 2;
                if is_used(between_us) { used_us = between_us } else { back_us = between_us }
            }
            for later in [0, turn_us / 1_000 * part, turn_us - near_us.min(turn_us), turn_us] {
                prop_assert!(!is_used(back_us + later), "{later} of {turn_us}");
                prop_assert_eq!(meter.left(Some(state), back_us + later), meter.budget());
            }
        }
    }
}
