//! The verdict on one backend by rise and fall, as HAProxy and Envoy judge it.
//!
//! `fall` failures in a row take a backend down, `rise` passes in a row bring it up; one result of
//! the other kind restarts the count. This file knows neither probes nor their intervals: the
//! prober feeds results, and uses the fast interval while [`Verdict::is_settled`] is false.

/// The effect of one result on a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The verdict is as before.
    None,
    /// The backend was down, or not judged, and is up now.
    Up,
    /// The backend was up, or not judged, and is down now.
    Down,
}

/// What is believed of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// It serves.
    Up,
    /// It does not serve.
    Down,
    /// It gets no sessions until a verdict says that it serves.
    Unjudged,
}

impl Belief {
    /// What has been said of it: whether it serves; `None` when nothing has.
    #[must_use]
    pub const fn verdict(self) -> Option<bool> {
        match self {
            Self::Up => Some(true),
            Self::Down => Some(false),
            Self::Unjudged => None,
        }
    }
}

/// The belief about one backend, and how close it is to changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    belief: Belief,
    rise: u32,
    fall: u32,
    passes: u32,
    failures: u32,
}

impl Verdict {
    /// A verdict before the first result; `rise` and `fall` of 0 count as 1.
    #[must_use]
    pub fn new(rise: u32, fall: u32, belief: Belief) -> Self {
        Self { belief, rise: rise.max(1), fall: fall.max(1), passes: 0, failures: 0 }
    }

    /// Counts one result.
    pub fn record(&mut self, passed: bool) -> Change {
        if passed {
            self.passes = self.passes.saturating_add(1);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.passes = 0;
        }
        if self.belief != Belief::Down && self.failures >= self.fall {
            self.belief = Belief::Down;
            Change::Down
        } else if self.belief != Belief::Up && self.passes >= self.rise {
            self.belief = Belief::Up;
            Change::Up
        } else {
            Change::None
        }
    }

    /// Judges by other numbers from the next result on; the verdict and the counts stay.
    pub fn retune(&mut self, rise: u32, fall: u32) {
        self.rise = rise.max(1);
        self.fall = fall.max(1);
    }

    /// Whether the backend is believed to serve.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.belief == Belief::Up
    }

    /// What is believed of the backend.
    #[must_use]
    pub fn belief(&self) -> Belief {
        self.belief
    }

    /// False while the latest results contradict the verdict, or there is none: the next probe is
    /// due soon.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.belief {
            Belief::Up => self.failures == 0,
            Belief::Down => self.passes == 0,
            Belief::Unjudged => false,
        }
    }

    /// Passes in a row up to now.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// Failures in a row up to now.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fall_in_a_row_takes_it_down_and_rise_brings_it_back() {
        // If this fails, one lost probe takes a backend out, or a dead one stays in.
        let mut verdict = Verdict::new(2, 3, Belief::Up);
        let changes: Vec<Change> = [false, false, true, false, false, false, false, true, true]
            .into_iter()
            .map(|passed| verdict.record(passed))
            .collect();
        use Change::{Down, None, Up};
        assert_eq!(changes, [None, None, None, None, None, Down, None, None, Up]);
    }

    #[test]
    fn it_is_unsettled_only_while_results_contradict_it() {
        // If this fails, the prober stays in its fast interval, or never enters it.
        let mut verdict = Verdict::new(2, 2, Belief::Up);
        assert!(verdict.is_settled());
        verdict.record(false);
        assert!(!verdict.is_settled());
        verdict.record(false);
        assert!(!verdict.is_up() && verdict.is_settled());
        verdict.record(true);
        assert!(!verdict.is_settled());
        verdict.record(true);
        assert!(verdict.is_up() && verdict.is_settled());
    }

    #[test]
    fn counts_for_the_log_are_those_in_a_row() {
        // If this fails, the numbers in "3 of 3 probes failed" are wrong.
        let mut verdict = Verdict::new(1, 3, Belief::Up);
        for _ in 0..3 {
            verdict.record(false);
        }
        assert_eq!((verdict.failures(), verdict.passes()), (3, 0));
        verdict.record(true);
        assert_eq!((verdict.failures(), verdict.passes()), (0, 1));
    }

    #[test]
    fn before_the_first_verdict_it_is_neither_up_nor_settled() {
        // If this fails, a backend that waits for its first verdict waits for a long interval.
        let mut verdict = Verdict::new(2, 2, Belief::Unjudged);
        assert!(!verdict.is_up() && !verdict.is_settled());
        assert_eq!(verdict.record(false), Change::None);
        assert!(!verdict.is_settled());
        assert_eq!(verdict.record(false), Change::Down);
        assert!(verdict.is_settled());
    }

    proptest! {
        #[test]
        fn a_change_needs_its_whole_row(
            rise in 1_u32..6, fall in 1_u32..6, results: Vec<bool>,
            belief in prop_oneof![Just(Belief::Up), Just(Belief::Down), Just(Belief::Unjudged)],
        ) {
            // If this fails, the verdict does not follow rise and fall.
            let mut verdict = Verdict::new(rise, fall, belief);
            let mut belief = belief;
            for end in 0..results.len() {
                let change = verdict.record(results[end]);
                let row = results[..=end].iter().rev().take_while(|r| **r == results[end]).count();
                let row = u32::try_from(row).unwrap();
                let expected = match (belief, results[end]) {
                    (Belief::Up | Belief::Unjudged, false) if row >= fall => Change::Down,
                    (Belief::Down | Belief::Unjudged, true) if row >= rise => Change::Up,
                    _ => Change::None,
                };
                prop_assert_eq!(change, expected);
                belief = verdict.belief();
            }
        }
    }
}
