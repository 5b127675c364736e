//! Slow start: a backend that has just come up is given its share little by little.
//!
//! Its weight grows along a line over a configured time, from nearly nothing. Balances that look at
//! weights look at that one. A Maglev table is built from whole weights, so there a newcomer's
//! slots are thinned instead: each client has a level of its own, from its key, and is let in as
//! soon as the newcomer has grown to it. Only clients whose slot is the newcomer's wait elsewhere,
//! where its absence had put them, and each comes back once.

use super::hash::attempt_key;

/// The whole share. Weights are multiplied by it, so that a part of a weight of 1 is a number.
pub const WHOLE: u32 = 256;
/// Which further key of a client is its level; the others are steps of the skip sequence.
const LEVEL: u32 = 4;

/// The share of a backend that came up at `since_us`, from 1 to [`WHOLE`], when it is given its
/// whole one after `ramp_us`. A `since_us` of 0 is from the start.
#[must_use]
pub fn share(since_us: u64, now_us: u64, ramp_us: u64) -> u32 {
    let age = now_us.saturating_sub(since_us);
    if since_us == 0 || age >= ramp_us {
        return WHOLE;
    }
    let part = u128::from(age) * u128::from(WHOLE) / u128::from(ramp_us);
    u32::try_from(part).unwrap_or(WHOLE).max(1)
}

/// A weight of which only a share counts, multiplied by [`WHOLE`]; not 0 unless the weight is.
#[must_use]
pub fn scaled(weight: u32, share: u32) -> u32 {
    weight.saturating_mul(share)
}

/// Whether a client with this stable key is let in by a backend that has grown to `share`.
#[must_use]
pub fn lets_in(key: u64, seed: u64, share: u32) -> bool {
    share >= WHOLE || attempt_key(key, LEVEL, seed) >> 56 < u64::from(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::balance::maglev::Maglev;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_share_grows_along_a_line() {
        // If this fails, a backend that has just started is hit by its whole load.
        let share_at = |age: u64| share(5 * SECOND, 5 * SECOND + age, 10 * SECOND);
        assert_eq!(share_at(0), 1);
        assert_eq!(share_at(SECOND), 25);
        assert_eq!(share_at(5 * SECOND), 128);
        assert_eq!(share_at(10 * SECOND), WHOLE);
        assert_eq!(share_at(1_000 * SECOND), WHOLE);
        assert_eq!(share(0, SECOND, 10 * SECOND), WHOLE, "from the start");
        assert_eq!(share(9, 9, 0), WHOLE, "without a time");
        assert_eq!(share(9 * SECOND, 8 * SECOND, SECOND), 1, "a clock that is behind");
    }

    #[test]
    fn a_growing_backend_takes_only_its_own_clients_and_each_once() {
        // If this fails, a backend that comes back moves clients of others, or moves its own
        // back and forth.
        let names: Vec<String> = (0..7).map(|number| format!("b{number}")).collect();
        let list: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let table = Maglev::new(&list, 1009, 3).unwrap();
        let at = |key, grown| table.pick(key, |m| m != 2 || lets_in(key, 3, grown)).unwrap().member;
        let mut before = 0;
        let keys: Vec<u64> = (1..4_000).map(|number| attempt_key(number, 9, 3)).collect();
        let home = |key| table.pick(key, |_| true).unwrap().member;
        let away = |key| table.pick(key, |m| m != 2).unwrap().member;
        let all = keys.iter().filter(|key| home(**key) == 2).count();
        for grown in [1, 20, 64, 128, 200, 255, WHOLE] {
            let mut moved = 0;
            for &key in &keys {
                let now = at(key, grown);
                assert!(now == home(key) || (home(key) == 2 && now == away(key)));
                let is_back = home(key) == 2 && now == 2;
                assert!(is_back || home(key) != 2 || !lets_in(key, 3, grown));
                moved += usize::from(is_back);
            }
            assert!(moved >= before, "{moved} after {before}");
            let wanted = all * usize::try_from(grown).unwrap() / 256;
            assert!(moved.abs_diff(wanted) < 60, "{moved} of {all} at {grown}");
            before = moved;
        }
        assert_eq!(before, all);
    }

    proptest! {
        #[test]
        fn a_client_that_is_let_in_stays(
            key: u64, seed: u64, one in 1_u32..=WHOLE, other in 1_u32..=WHOLE,
        ) {
            // If this fails, a client changes back and forth while a backend grows.
            let (less, more) = (one.min(other), one.max(other));
            prop_assert!(!lets_in(key, seed, less) || lets_in(key, seed, more));
            prop_assert!(lets_in(key, seed, WHOLE));
        }

        #[test]
        fn a_share_only_grows(since in 1_u64.., ramp: u64, ages in any::<[u64; 2]>()) {
            // If this fails, a backend loses clients while it warms up.
            let [one, other] = ages.map(|age| (age, share(since, since.saturating_add(age), ramp)));
            let (less, more) = if one.0 <= other.0 { (one, other) } else { (other, one) };
            prop_assert!(less.1 <= more.1 && (1..=WHOLE).contains(&less.1));
            prop_assert!(scaled(65_535, more.1) > 0 && scaled(0, more.1) == 0);
        }
    }
}
