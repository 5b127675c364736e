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
    /// The backend was down and is up now.
    Up,
    /// The backend was up and is down now.
    Down,
}

/// Whether one backend is believed to serve, and how close that is to changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    up: bool,
    rise: u32,
    fall: u32,
    passes: u32,
    failures: u32,
}

impl Verdict {
    /// A verdict before the first result; `rise` and `fall` of 0 count as 1.
    #[must_use]
    pub fn new(rise: u32, fall: u32, initial_up: bool) -> Self {
        Self { up: initial_up, rise: rise.max(1), fall: fall.max(1), passes: 0, failures: 0 }
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
        if self.up && self.failures >= self.fall {
            self.up = false;
            Change::Down
        } else if !self.up && self.passes >= self.rise {
            self.up = true;
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
        self.up
    }

    /// False while the latest results contradict the verdict: the next probe is due soon.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        if self.up { self.failures == 0 } else { self.passes == 0 }
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
        let mut verdict = Verdict::new(2, 3, true);
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
        let mut verdict = Verdict::new(2, 2, true);
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
        let mut verdict = Verdict::new(1, 3, true);
        for _ in 0..3 {
            verdict.record(false);
        }
        assert_eq!((verdict.failures(), verdict.passes()), (3, 0));
        verdict.record(true);
        assert_eq!((verdict.failures(), verdict.passes()), (0, 1));
    }

    proptest! {
        #[test]
        fn a_change_needs_its_whole_row(
            rise in 1_u32..6, fall in 1_u32..6, up: bool, results: Vec<bool>,
        ) {
            // If this fails, the verdict does not follow rise and fall.
            let mut verdict = Verdict::new(rise, fall, up);
            let mut up = up;
            for end in 0..results.len() {
                let change = verdict.record(results[end]);
                let row = results[..=end].iter().rev().take_while(|r| **r == results[end]).count();
                let row = u32::try_from(row).unwrap();
                let expected = match (up, results[end]) {
                    (true, false) if row >= fall => Change::Down,
                    (false, true) if row >= rise => Change::Up,
                    _ => Change::None,
                };
                prop_assert_eq!(change, expected);
                up = verdict.is_up();
            }
        }
    }
}
