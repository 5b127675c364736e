//! Which of the sessions that can move run in a turn, and in which order.
//!
//! A turn is as long as what runs in it, and everything that happens meanwhile waits for its end.
//! So a turn has a bound, and light sessions go first: all of them run in each turn, for a short
//! while each. A session that used up its while is a bulk session from then on, until it moves
//! little again; bulk sessions share what is left of a turn, in the order in which they came. So a
//! small request waits for a turn, not for every download. See docs/adr/0046.
//!
//! Work is counted in bytes that are spliced.

use std::collections::VecDeque;

/// Copying a byte costs as much as splicing this many (docs/performance.md).
const COPY_WORK: u64 = 4;

/// How much work a turn holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnBounds {
    /// Bytes that a light session moves in one direction before it is a bulk session; the batch
    /// that reaches the bound is finished.
    pub light_run: u64,
    /// Bytes that a bulk session moves in one direction in one run, in the same way.
    pub bulk_run: u64,
    /// Runs of either kind in a turn.
    pub runs: usize,
    /// Work of all light sessions in a turn; the run that reaches the bound is finished.
    pub light: u64,
    /// Work of all bulk sessions in a turn, in the same way.
    pub bulk: u64,
}

impl TurnBounds {
    /// Those of a worker that serves: about a millisecond of bulk, and as many light runs as a
    /// turn has events.
    pub const SERVING: Self = Self {
        light_run: 64 * 1024,
        bulk_run: 1024 * 1024,
        runs: 256,
        light: 4 * 1024 * 1024,
        bulk: 2 * 1024 * 1024,
    };
}

/// To which kind a session belongs, by what it moved when it last moved anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Weight {
    /// Little.
    #[default]
    Light,
    /// Much.
    Bulk,
}

/// The sessions that can move.
#[derive(Debug)]
pub struct ReadyQueue<T> {
    light: VecDeque<T>,
    bulk: VecDeque<T>,
    bounds: TurnBounds,
    /// Work that may still be done in this part of the turn.
    left: u64,
    /// Bulk moved since the last light sessions ran.
    was_long: bool,
}

impl<T> ReadyQueue<T> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: TurnBounds) -> Self {
        let (light, bulk) = (VecDeque::new(), VecDeque::new());
        Self { light, bulk, bounds, left: 0, was_long: false }
    }

    /// Whether no session can move.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.light.is_empty() && self.bulk.is_empty()
    }

    /// Whether bulk sessions wait.
    #[must_use]
    pub fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// Whether bulk moved since the last light sessions ran, so that what happened meanwhile was
    /// seen late.
    #[must_use]
    pub fn was_long(&self) -> bool {
        self.was_long
    }

    /// Adds a session that is not in it.
    pub fn push(&mut self, session: T, weight: Weight) {
        match weight {
            Weight::Light => self.light.push_back(session),
            Weight::Bulk => self.bulk.push_back(session),
        }
    }

    /// Begins the part of a turn that runs light sessions: how many may run, those that wait by
    /// now.
    #[inline]
    pub fn begin_light(&mut self) -> usize {
        self.left = self.bounds.light;
        self.was_long = false;
        self.light.len().min(self.bounds.runs)
    }

    /// The next light session, as long as this part of the turn has room.
    #[inline]
    pub fn next_light(&mut self) -> Option<T> {
        if self.left == 0 { None } else { self.light.pop_front() }
    }

    /// Begins the part of a turn that runs bulk sessions: how many may run, those that wait by now.
    pub fn begin_bulk(&mut self) -> usize {
        self.left = self.bounds.bulk;
        self.was_long = true;
        self.bulk.len().min(self.bounds.runs)
    }

    /// The next bulk session, as long as this part of the turn has room.
    pub fn next_bulk(&mut self) -> Option<T> {
        if self.left == 0 { None } else { self.bulk.pop_front() }
    }

    /// Bytes that a session of this kind may move in one direction in one run.
    #[must_use]
    pub fn run_bytes(&self, weight: Weight) -> u64 {
        match weight {
            Weight::Light => self.bounds.light_run,
            Weight::Bulk => self.bounds.bulk_run,
        }
    }

    /// Counts bytes that a run has moved, at least one; what its session is from now on.
    #[inline]
    pub fn moved(&mut self, copied: u64, spliced: u64) -> Weight {
        let work = spliced + copied * COPY_WORK;
        self.left = self.left.saturating_sub(work);
        if copied + spliced >= self.bounds.light_run { Weight::Bulk } else { Weight::Light }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: TurnBounds = TurnBounds::SERVING;

    /// A session that always has as much to move as this share of what it may.
    #[derive(Debug, Clone, Copy)]
    struct Sample {
        weight: Weight,
        since: u64,
        share: u16,
        copies: bool,
    }

    impl Sample {
        fn moves(self, most: u64) -> (u64, u64) {
            let bytes = most * u64::from(self.share) / u64::from(u16::MAX) + 1;
            if self.copies { (bytes, 0) } else { (0, bytes) }
        }
    }

    prop_compose! {
        fn samples()(is_bulk: bool, share: u16, copies: bool) -> Sample {
            let weight = if is_bulk { Weight::Bulk } else { Weight::Light };
            Sample { weight, since: 0, share, copies }
        }
    }

    /// Runs one part of a turn; what it cost, and the longest wait of a session that ran, in turns.
    fn run(queue: &mut ReadyQueue<Sample>, part: Weight, turn: u64) -> (u64, u64) {
        let next = match part {
            Weight::Light => ReadyQueue::next_light,
            Weight::Bulk => ReadyQueue::next_bulk,
        };
        let runs = match part {
            Weight::Light => queue.begin_light(),
            Weight::Bulk => queue.begin_bulk(),
        };
        assert!(runs <= BOUNDS.runs, "{runs} runs in a turn");
        let (mut work, mut longest) = (0, 0);
        for _ in 0..runs {
            let Some(sample) = next(queue) else { break };
            assert_eq!(sample.weight, part);
            let (copied, spliced) = sample.moves(queue.run_bytes(part));
            work += spliced + copied * COPY_WORK;
            longest = longest.max(turn - sample.since);
            let weight = queue.moved(copied, spliced);
            queue.push(Sample { weight, since: turn, ..sample }, weight);
        }
        (work, longest)
    }

    proptest! {
        // If this fails, some session waits for others without a bound, or a turn has none.
        #[test]
        fn every_session_runs_in_time_and_every_turn_ends(
            samples in prop::collection::vec(samples(), 1..600),
            turns in 1_u64..60,
        ) {
            let mut queue = ReadyQueue::new(BOUNDS);
            for sample in &samples {
                queue.push(*sample, sample.weight);
            }
            for turn in 1..=turns {
                for (part, bound, run_bytes) in [
                    (Weight::Light, BOUNDS.light, BOUNDS.light_run),
                    (Weight::Bulk, BOUNDS.bulk, BOUNDS.bulk_run),
                ] {
                    let dearest = (run_bytes + 1) * COPY_WORK;
                    let runs = (bound / dearest).clamp(1, BOUNDS.runs as u64);
                    let (work, longest) = run(&mut queue, part, turn);
                    prop_assert!(work <= bound + dearest, "{work} in a turn");
                    prop_assert!(longest <= samples.len() as u64 / runs + 1, "{longest} turns");
                }
            }
        }
    }

    // If this fails, a download is taken for a small request, or stays what it was for good.
    #[test]
    fn what_a_session_moved_last_tells_its_kind() {
        let mut queue = ReadyQueue::<u32>::new(TurnBounds::SERVING);
        assert_eq!(queue.moved(64 * 1024 - 1, 0), Weight::Light);
        assert_eq!(queue.moved(1024, 63 * 1024), Weight::Bulk);
        assert_eq!(queue.moved(0, 1), Weight::Light);
    }

    // If this fails, sessions that come back within a turn keep it from ending.
    #[test]
    fn a_session_runs_once_in_a_part_of_a_turn() {
        let mut queue = ReadyQueue::new(TurnBounds::SERVING);
        queue.push(1, Weight::Light);
        assert_eq!(queue.begin_light(), 1);
        assert_eq!(queue.next_light(), Some(1));
        queue.push(1, Weight::Light);
        assert!(!queue.has_bulk() && !queue.is_empty() && !queue.was_long());
    }
}
