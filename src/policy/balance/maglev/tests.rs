//! What section 3.4 of the paper promises, and what skipping adds to it.

use proptest::prelude::*;

use super::*;
use crate::policy::balance::hash::attempt_key;

const SMALL: u32 = 1_009;
const USUAL: u32 = 65_537;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("10.0.{}.{}:80", n / 256, n % 256)).collect()
}

fn equal(names: &[String]) -> Vec<(&str, u32)> {
    names.iter().map(|name| (name.as_str(), 1)).collect()
}

fn shares(table: &Maglev, members: usize) -> Vec<u32> {
    let mut shares = vec![0; members];
    for slot in table.slots() {
        shares[usize::from(*slot)] += 1;
    }
    shares
}

/// Well-spread keys, the same on every run.
fn keys(count: u32) -> impl Iterator<Item = u64> {
    (1..=count).map(|n| attempt_key(0x5eed, n, 0))
}

fn checksum(table: &Maglev) -> u64 {
    let bytes: Vec<u8> = table.slots().iter().flat_map(|slot| slot.to_be_bytes()).collect();
    twox_hash::XxHash3_64::oneshot(&bytes)
}

#[test]
fn golden_tables() {
    // If this fails, nodes of different versions disagree: these literals may never change.
    let names = names(10);
    let even = Maglev::new(&equal(&names), USUAL, 0).unwrap();
    assert_eq!(checksum(&even), GOLDEN_EVEN, "{:#018x}", checksum(&even));
    let weighted: Vec<(&str, u32)> = names.iter().map(String::as_str).zip(1..).collect();
    let weighted = Maglev::new(&weighted, SMALL, 42).unwrap();
    assert_eq!(checksum(&weighted), GOLDEN_WEIGHTED, "{:#018x}", checksum(&weighted));
    let picks: Vec<u16> =
        keys(12).map(|key| even.pick(key, |member| member > 6).unwrap().member).collect();
    assert_eq!(picks, GOLDEN_PICKS);
}

const GOLDEN_EVEN: u64 = 0xdec0_c9d6_db5c_b20d;
const GOLDEN_WEIGHTED: u64 = 0x98b8_084f_a31c_44cf;
const GOLDEN_PICKS: [u16; 12] = [8, 8, 9, 8, 8, 8, 7, 9, 9, 7, 8, 9];

#[test]
fn the_last_slots_are_those_of_the_plain_algorithm() {
    // If this fails, the shortcut for the last free slots builds another table than the paper's.
    for (count, size) in [(1, 2), (1, 3), (2, 5), (7, 101), (100, SMALL), (100, 8_191)] {
        let names = names(count);
        let table = Maglev::new(&equal(&names), size, 3).unwrap();
        let sorted = sorted_members(&equal(&names), size).unwrap();
        let mut turns = turns(&sorted, size, 3);
        let mut plain = vec![None; size as usize];
        let mut left = size;
        while left > 0 {
            for turn in turns.iter_mut().filter(|turn| turn.quota > 0) {
                while plain[turn.cursor as usize].is_some() {
                    turn.cursor = (turn.cursor + turn.skip) % size;
                }
                plain[turn.cursor as usize] = Some(turn.member);
                turn.quota -= 1;
                left -= 1;
            }
        }
        let plain: Vec<u16> = plain.into_iter().map(Option::unwrap).collect();
        assert_eq!(table.slots(), plain, "{count} members, {size} slots");
    }
}

#[test]
fn equal_weights_differ_by_one_slot_at_most() {
    // If this fails, equal backends get unequal load.
    for count in [1, 2, 3, 99, 100, 655, 1_000] {
        let names = names(count);
        let shares = shares(&Maglev::new(&equal(&names), USUAL, 7).unwrap(), count);
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1, "{count} members: {least} to {most}");
    }
}

#[test]
fn removing_one_moves_little_more_than_its_share() {
    // If this fails, taking a backend out of the file moves clients of the others.
    for count in [5, 20, 50] {
        let names = names(count);
        let all = equal(&names);
        let before = Maglev::new(&all, USUAL, 0).unwrap();
        for gone in [0, count / 2, count - 1] {
            let mut rest = all.clone();
            rest.remove(gone);
            let after = Maglev::new(&rest, USUAL, 0).unwrap();
            let moved = (0..USUAL)
                .filter(|slot| {
                    let was = all[usize::from(before.member_at(*slot).unwrap())].0;
                    was != rest[usize::from(after.member_at(*slot).unwrap())].0
                })
                .count();
            let bound = USUAL as usize / count + USUAL as usize / 50;
            assert!(moved <= bound, "{gone} of {count}: {moved} slots, bound {bound}");
        }
    }
}

#[test]
fn an_ineligible_member_moves_only_its_own_clients_and_spreads_them() {
    // If this fails, a backend that goes down disturbs others, or falls on one neighbour.
    let names = names(10);
    let table = Maglev::new(&equal(&names), USUAL, 0).unwrap();
    let mut inherited = [0_u32; 10];
    for key in keys(60_000) {
        let own = table.pick(key, |_| true).unwrap();
        let now = table.pick(key, |member| member != 4).unwrap();
        if own.member == 4 {
            inherited[usize::from(now.member)] += 1;
            assert!(now.attempts > 0 && now.slot == own.slot);
        } else {
            assert_eq!(own, now);
        }
    }
    assert_eq!(inherited[4], 0);
    let total: u32 = inherited.iter().sum();
    for (member, count) in inherited.iter().enumerate().filter(|(member, _)| *member != 4) {
        let fair = f64::from(total) / 9.0;
        assert!((f64::from(*count) / fair - 1.0).abs() < 0.25, "{member}: {count} of {total}");
    }
}

#[test]
fn the_last_members_alive_share_by_weight() {
    // If this fails, two survivors of a large pool get most of the load and almost none.
    let names = names(100);
    let members: Vec<(&str, u32)> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (name.as_str(), if n == 7 { 3 } else { 1 }))
        .collect();
    let table = Maglev::new(&members, USUAL, 0).unwrap();
    let mut seen = [0_u32; 100];
    for key in keys(20_000) {
        let choice = table.pick(key, |member| member == 7 || member == 8).unwrap();
        seen[usize::from(choice.member)] += 1;
    }
    let share = f64::from(seen[7]) / f64::from(seen[7] + seen[8]);
    assert!((0.65..0.80).contains(&share), "{share}");
}

#[test]
fn extreme_weights_are_honoured_and_quick() {
    // If this fails, one heavy backend makes the build take seconds or starves the others.
    let names = names(1_000);
    let mut members = equal(&names);
    members[500].1 = 65_535;
    let shares = shares(&Maglev::new(&members, 655_373, 0).unwrap(), 1_000);
    let total = 65_535_u64 + 999;
    for (share, (_, weight)) in shares.iter().zip(&members) {
        let exact = u64::from(*weight) * 655_373 / total;
        assert!(u64::from(*share) == exact || u64::from(*share) == exact + 1);
    }
}

#[test]
fn what_cannot_be_built_is_an_error() {
    // If this fails, a bad configuration panics or loops instead of being reported.
    let two = [("a", 1), ("b", 1)];
    assert_eq!(Maglev::new(&[], USUAL, 0), Err(MaglevError::Empty));
    assert_eq!(Maglev::new(&[("a", 0)], USUAL, 0), Err(MaglevError::NoWeight));
    assert_eq!(Maglev::new(&two, 65_536, 0), Err(MaglevError::BadSize(65_536)));
    assert_eq!(Maglev::new(&two, 1, 0), Err(MaglevError::BadSize(1)));
    assert_eq!(Maglev::new(&two, 5_000_077, 0), Err(MaglevError::BadSize(5_000_077)));
    assert_eq!(Maglev::new(&two, 2, 0), Err(MaglevError::TooMany(2)));
    assert_eq!(Maglev::new(&[("a", 1), ("a", 2)], USUAL, 0), Err(MaglevError::Duplicate));
    assert!(is_prime(TABLE_SIZE_MAX) && Maglev::new(&two, 3, 0).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_member_gets_its_share_in_any_order(
        weights in prop::collection::vec(0_u32..1_000, 1..60), turn in 0_usize..60, seed: u64,
    ) {
        // If this fails, weights are not honoured or two nodes with reordered files disagree.
        let names = names(weights.len());
        let members: Vec<(&str, u32)> =
            names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        prop_assume!(total > 0);
        let table = Maglev::new(&members, SMALL, seed).unwrap();
        for (share, weight) in shares(&table, weights.len()).iter().zip(&weights) {
            let floor = u64::from(*weight) * u64::from(SMALL) / total;
            prop_assert!((floor..=floor + 1).contains(&u64::from(*share)));
            prop_assert!(*weight > 0 || *share == 0);
        }
        let mut turned = members.clone();
        turned.rotate_left(turn % members.len());
        turned.reverse();
        let other = Maglev::new(&turned, SMALL, seed).unwrap();
        for slot in 0..SMALL {
            let one = members[usize::from(table.member_at(slot).unwrap())].0;
            prop_assert_eq!(one, turned[usize::from(other.member_at(slot).unwrap())].0);
        }
    }

    #[test]
    fn clients_follow_the_keys_by_weight(weights in prop::collection::vec(1_u32..8, 2..8)) {
        // If this fails, the index into the table is skewed.
        let names = names(weights.len());
        let members: Vec<(&str, u32)> =
            names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let table = Maglev::new(&members, USUAL, 1).unwrap();
        let mut seen = vec![0_u32; weights.len()];
        for key in keys(20_000) {
            seen[usize::from(table.pick(key, |_| true).unwrap().member)] += 1;
        }
        let total: u32 = weights.iter().sum();
        for (count, weight) in seen.iter().zip(&weights) {
            let share = f64::from(*count) / 20_000.0;
            prop_assert!((share - f64::from(*weight) / f64::from(total)).abs() < 0.02);
        }
    }

    #[test]
    fn every_eligible_member_is_reached_and_no_other_client_moves(
        weights in prop::collection::vec(0_u32..4, 1..40), up: u64, gone in 0_usize..40, seed: u64,
    ) {
        // If this fails, a client finds no backend though one serves, or moves without need.
        let names = names(weights.len());
        let members: Vec<(&str, u32)> =
            names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let Ok(table) = Maglev::new(&members, SMALL, seed) else { return Ok(()) };
        let is_up = |member: u16| up >> member & 1 == 1;
        let can = (0..u16::try_from(weights.len()).unwrap())
            .any(|m| is_up(m) && weights[usize::from(m)] > 0);
        for key in keys(200) {
            let Some(choice) = table.pick(key, is_up) else {
                prop_assert!(!can);
                continue;
            };
            prop_assert!(is_up(choice.member) && weights[usize::from(choice.member)] > 0);
            // One more goes away: only its own clients choose anew.
            let fewer = table.pick(key, |m| is_up(m) && usize::from(m) != gone);
            if usize::from(choice.member) != gone {
                prop_assert_eq!(fewer.map(|c| c.member), Some(choice.member));
            }
        }
    }
}

proptest! {
    // If this fails, the last slots go to other members than the paper's fill gives them to.
    #[test]
    fn remainders_without_division_hold(number in 2_u64..1 << 32, value in 0_u64..1 << 63) {
        prop_assert_eq!(Modulus::new(number).remainder(value), value % number);
    }
}
