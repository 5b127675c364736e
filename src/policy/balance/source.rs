//! From which of its addresses a pool connects next: each in turn, while it has ports left.
//!
//! One that has just turned out to have none is asked last for a while: to find that out costs the
//! kernel a look at every port.

/// Most sources that are told apart.
pub const SOURCES_MAX: usize = 64;
/// How long a source that had no port, or is no address of this host, is asked last.
pub const REST_US: u64 = 1_000_000;
/// One port in this many is left to other programs that connect from the address.
const HEADROOM: u32 = 64;
/// In per cent of its ports: from here on a source is scarce, until it is below the other.
const SCARCE: u64 = 80;
const AMPLE: u64 = 70;

/// How many of `ports` ports sessions may use.
#[must_use]
pub fn ports_for_sessions(ports: u32) -> u32 {
    ports - ports / HEADROOM
}

/// Whether a source is short of ports; one that was has to get well below before it is not.
#[must_use]
pub fn is_scarce(used: u64, most: u32, was_scarce: bool) -> bool {
    let bound = if was_scarce { AMPLE } else { SCARCE };
    used.saturating_mul(100) >= u64::from(most).saturating_mul(bound)
}

/// Asks sources by their position, from the one whose turn it is, until one gives something; those
/// that rest are asked after all others. Each is asked once at most.
pub fn in_turn<T>(
    turn: u64,
    count: usize,
    rests: impl Fn(usize) -> bool,
    mut ask: impl FnMut(usize) -> Option<T>,
) -> Option<T> {
    let mut resting = 0_u64;
    for position in round(turn, count) {
        if rests(position) {
            resting |= 1 << position;
        } else if let Some(given) = ask(position) {
            return Some(given);
        }
    }
    round(turn, count).filter(|position| resting >> position & 1 == 1).find_map(ask)
}

/// Every position once, from the one whose turn it is.
fn round(turn: u64, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(SOURCES_MAX);
    let first = usize::try_from(turn % count.max(1) as u64).unwrap_or(0);
    (0..count).map(move |step| (first + step) % count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // If this fails, a connect fails although a source has a port, or a source is asked twice.
        #[test]
        fn every_source_is_asked_before_giving_up(
            turn: u64,
            rests in prop::collection::vec(any::<bool>(), 0..=SOURCES_MAX),
            free in prop::option::of(0..SOURCES_MAX),
        ) {
            let count = rests.len();
            let mut asked = Vec::new();
            let given = in_turn(turn, count, |position| rests[position], |position| {
                asked.push(position);
                (Some(position) == free).then_some(position)
            });
            prop_assert_eq!(given, free.filter(|free| *free < count));
            let mut once = asked.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), asked.len());
            if given.is_none() {
                prop_assert_eq!(asked.len(), count);
            }
            // No source that rests is asked before one that does not.
            prop_assert!(asked.is_sorted_by_key(|position| rests[*position]));
        }

        // If this fails, one source gets more connections than another while all have ports.
        #[test]
        fn turns_are_even(start in 0..u64::MAX / 2, count in 1..=SOURCES_MAX) {
            let mut times = vec![0; count];
            for turn in (start..).take(3 * count) {
                let first = in_turn(turn, count, |_| false, Some);
                times[first.unwrap()] += 1;
            }
            prop_assert_eq!(times, vec![3; count]);
        }

        // If this fails, sessions take ports that there are not, or a small range gives none.
        #[test]
        fn most_ports_are_for_sessions(ports: u32) {
            let most = ports_for_sessions(ports);
            prop_assert!(most <= ports && u64::from(most) * 64 >= u64::from(ports) * 63);
        }
    }

    // If this fails, the log repeats itself while a source hovers about a bound, or says nothing.
    #[test]
    fn scarcity_has_two_bounds() {
        let mut scarce = false;
        let mut changes = Vec::new();
        for used in [79, 80, 75, 85, 70, 69, 75, 79, 80] {
            let now = is_scarce(used, 100, scarce);
            if now != scarce {
                changes.push(used);
            }
            scarce = now;
        }
        assert_eq!(changes, [80, 69, 80]);
    }
}
