//! What the algorithms' tests share: a pool in which a fixed number of sessions is open, and the
//! comparison of what each backend got with its weight.

/// Choices in one run.
const CHOICES: u32 = 100_000;

/// Sessions that come one after the other; the oldest ends when more than `open` are.
pub(super) struct Closed {
    open: usize,
    loads: Vec<u32>,
}

impl Closed {
    pub(super) fn new(open: usize, members: usize) -> Self {
        Self { open, loads: vec![0; members] }
    }

    /// With sessions on one member that do not end.
    pub(super) fn beside(mut self, member: usize, sessions: u32) -> Self {
        self.loads[member] = sessions;
        self
    }

    /// How many of the choices each member gets.
    pub(super) fn shares(mut self, mut choose: impl FnMut(&[u32]) -> u16) -> Vec<u32> {
        let mut seen = vec![0; self.loads.len()];
        let mut running = std::collections::VecDeque::new();
        for _ in 0..CHOICES {
            if running.len() > self.open {
                let ended: usize = running.pop_front().unwrap();
                self.loads[ended] -= 1;
            }
            let member = usize::from(choose(&self.loads));
            seen[member] += 1;
            self.loads[member] += 1;
            running.push_back(member);
        }
        seen
    }
}

/// Pearson's chi-square of what was seen against the weights.
fn chi_square(seen: &[u32], weights: &[u32]) -> f64 {
    let all: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let total: f64 = seen.iter().map(|count| f64::from(*count)).sum();
    let term = |(count, weight): (&u32, &u32)| {
        let wanted = total * f64::from(*weight) / all;
        (f64::from(*count) - wanted).powi(2) / wanted
    };
    seen.iter().zip(weights).map(term).sum()
}

/// Asserts that shares follow the weights: chi-square is below its 99.99th percentile for up to
/// four degrees of freedom.
#[track_caller]
pub(super) fn assert_shares(seen: &[u32], weights: &[u32], case: &str) {
    assert!(weights.len() <= 5, "the bound is for four degrees of freedom");
    let chi_square = chi_square(seen, weights);
    assert!(chi_square < 23.5, "{weights:?}, {case}: {seen:?}, chi-square {chi_square}");
}

/// Asserts that shares are within `per_cent` of their expectation.
#[track_caller]
pub(super) fn assert_close(seen: &[u32], weights: &[u32], per_cent: u64) {
    let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let total: u64 = seen.iter().map(|count| u64::from(*count)).sum();
    for (count, weight) in seen.iter().zip(weights) {
        let (got, wanted) = (u64::from(*count) * all, total * u64::from(*weight));
        assert!(got.abs_diff(wanted) * 100 <= wanted * per_cent, "{weights:?}: {seen:?}");
    }
}
