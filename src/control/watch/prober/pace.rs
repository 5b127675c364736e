//! The time of a backend's next probe, and the verdict of its results.
//!
//! Settled and up: every `interval`. Between two verdicts, and before the first: every
//! `fast_interval`. Down while another backend of the pool serves: from `fast_interval` upwards
//! with full jitter, at most `down_backoff` apart; one pass brings the fast interval back, so that
//! a backend that recovers rises quickly. Down in a pool without a healthy backend: every
//! `fast_interval`, so that a new leader is seen at once. A backend that is down may ask for a
//! later probe (`Retry-After`), within bounds. Pure: no clock, no random source.

use std::time::Duration;

use crate::config::Health;
use crate::policy::health::backoff::{Backoff, jitter};
use crate::policy::health::rise_fall::{Belief, Change, Verdict};

/// Intervals vary by this much, so that probes of many backends do not fall into step.
const JITTER_PERCENT: u8 = 10;
/// The shortest time between two probes, whatever is configured.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(10);

/// The longest wait that a backend can ask for, unless `interval` is longer: a mistake in its
/// answer must not keep it out for a day.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(5 * 60);

/// Whether the pool of a backend has another that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// At least one is healthy.
    Serve,
    /// None is.
    Fail,
}

/// The verdict on one backend and the pace of its probes.
#[derive(Debug)]
pub(super) struct Pace {
    verdict: Verdict,
    backoff: Backoff,
    /// The present wait is one of the back-off.
    backs_off: bool,
    interval: Duration,
    fast_interval: Duration,
    down_backoff: Duration,
}

impl Pace {
    /// Before the first result.
    pub(super) fn new(health: &Health, belief: Belief) -> Self {
        let verdict = Verdict::new(health.rise, health.fall, belief);
        // A fast interval above `interval` is a default that does not fit it.
        let fast_interval = health.fast_interval.min(health.interval);
        let down_backoff = health.down_backoff;
        let reach = down_backoff.saturating_sub(fast_interval);
        let backoff = Backoff::new(fast_interval.min(reach), reach);
        let interval = health.interval;
        Self { verdict, backoff, backs_off: false, interval, fast_interval, down_backoff }
    }

    /// Takes other settings; the verdict and the row of results stay.
    pub(super) fn retune(&mut self, health: &Health) {
        let mut verdict = self.verdict;
        verdict.retune(health.rise, health.fall);
        *self = Self { verdict, ..Self::new(health, verdict.belief()) };
    }

    /// Starts the row anew and keeps the verdict: old results form no row with those to come.
    pub(super) fn interrupt(&mut self, health: &Health) {
        *self = Self::new(health, self.verdict.belief());
    }

    /// Counts one result.
    pub(super) fn record(&mut self, passed: bool) -> Change {
        if passed {
            self.backoff.reset();
        }
        self.verdict.record(passed)
    }

    /// The number of results in a row of the latest kind.
    pub(super) fn row(&self) -> u32 {
        self.verdict.passes().max(self.verdict.failures())
    }

    /// From the start of one probe to the start of the next.
    pub(super) fn wait(&mut self, others: Others, random: u64) -> Duration {
        self.backs_off = false;
        if !self.verdict.is_settled() {
            return self.soon(random);
        }
        if self.verdict.is_up() {
            return jitter(self.interval, JITTER_PERCENT, random).max(WAIT_MIN);
        }
        if others == Others::Fail {
            return self.soon(random).min(self.down_backoff).max(WAIT_MIN);
        }
        self.backs_off = true;
        let wait = self.fast_interval.saturating_add(self.backoff.next(random));
        wait.min(self.down_backoff).max(WAIT_MIN)
    }

    /// As [`Self::wait`], after a backend has asked for `asked`. Its wish counts once it is down: a
    /// busy backend that is up is judged as fast as any other. Never sooner than `interval`; up to
    /// a tenth later, so that backends with one wish are not probed at once.
    pub(super) fn wait_as_asked(
        &mut self,
        asked: Duration,
        others: Others,
        random: u64,
    ) -> Duration {
        let usual = self.wait(others, random);
        if self.verdict.is_up() || !self.verdict.is_settled() {
            return usual;
        }
        self.backs_off = false;
        let longest = RETRY_AFTER_MAX.max(self.interval);
        let asked = asked.clamp(self.interval, longest);
        let reach = asked / 10;
        let later = Backoff::new(reach, reach).next(random);
        asked.saturating_add(later).min(longest).max(WAIT_MIN)
    }

    /// The pool has lost its last healthy backend: the time to the next probe from now, if the
    /// present wait is one of the back-off.
    pub(super) fn hurry(&mut self, random: u64) -> Option<Duration> {
        let backs_off = std::mem::take(&mut self.backs_off);
        backs_off.then(|| Backoff::new(self.fast_interval, self.fast_interval).next(random))
    }

    /// The fast interval, whatever the verdict.
    pub(super) fn soon(&self, random: u64) -> Duration {
        jitter(self.fast_interval, JITTER_PERCENT, random).max(WAIT_MIN)
    }

    /// A moment within the interval: backends that get new settings at once stay apart.
    pub(super) fn anywhere(&self, random: u64) -> Duration {
        Backoff::new(self.interval, self.interval).next(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Probe;

    const MIDDLE: u64 = u64::MAX / 2;

    fn health() -> Health {
        Health {
            probe: Probe::Tcp,
            tls: None,
            port: None,
            listener_port: None,
            interval: Duration::from_secs(5),
            fast_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            down_backoff: Duration::from_secs(30),
            initial_up: true,
            send_proxy: None,
            source: Vec::new(),
        }
    }

    fn waits(pace: &mut Pace, results: &[bool], random: u64) -> Vec<u128> {
        let mut step = |passed: &bool| {
            pace.record(*passed);
            (pace.wait(Others::Serve, random).as_millis() + 5) / 10 * 10
        };
        results.iter().map(&mut step).collect()
    }

    // If this fails, a dead backend is noticed late, or a live one is probed too often.
    #[test]
    fn a_contradiction_is_looked_into_fast() {
        let mut pace = Pace::new(&health(), Belief::Up);
        let results = [true, false, false, true, true];
        assert_eq!(waits(&mut pace, &results, MIDDLE), [5_000, 1_000, 1_000, 5_000, 5_000]);
    }

    // If this fails, a dead backend is probed without end, or one that recovers is forgotten.
    #[test]
    fn down_backs_off_up_to_the_cap_and_one_pass_makes_it_fast() {
        let mut pace = Pace::new(&health(), Belief::Up);
        let longest = waits(&mut pace, &[false; 9], u64::MAX);
        assert_eq!(longest[2..], [2_000, 3_000, 5_000, 9_000, 17_000, 30_000, 30_000]);
        assert_eq!(waits(&mut pace, &[true, false], 0), [900, 1_000]);
        assert_eq!(waits(&mut pace, &[true, true], MIDDLE), [1_000, 5_000]);
    }

    // If this fails, a server that says when it will be back is asked before, or forgotten, or one
    // that is only busy keeps its clients for as long as it likes.
    #[test]
    fn a_wish_for_a_later_probe_counts_once_down_and_within_bounds() {
        let mut pace = Pace::new(&health(), Belief::Up);
        let asked = |pace: &mut Pace, seconds, random| {
            pace.record(false);
            pace.wait_as_asked(Duration::from_secs(seconds), Others::Serve, random).as_millis()
        };
        assert_eq!(asked(&mut pace, 60, MIDDLE).div_ceil(10), 100, "still up");
        assert_eq!(asked(&mut pace, 60, MIDDLE).div_ceil(10), 100, "still up");
        assert_eq!(asked(&mut pace, 60, 0), 60_000);
        assert_eq!(asked(&mut pace, 60, u64::MAX), 66_000);
        assert_eq!(asked(&mut pace, 0, 0), 5_000, "never sooner than the interval");
        let longest = RETRY_AFTER_MAX.as_millis();
        assert_eq!(asked(&mut pace, u64::MAX, u64::MAX), longest);
        pace.record(true);
        let rising = pace.wait_as_asked(Duration::from_secs(60), Others::Serve, MIDDLE).as_millis();
        assert_eq!(rising.div_ceil(10), 100, "one pass makes it fast");
    }

    /// Backends of one pool on a clock of their own, probed as the prober does it.
    struct Fleet {
        now: Duration,
        paces: Vec<Pace>,
        due: Vec<Duration>,
    }

    impl Fleet {
        fn new(size: usize, health: &Health) -> Self {
            let pace = |_| Pace::new(health, Belief::Up);
            let paces: Vec<Pace> = (0..size).map(pace).collect();
            let due = (0..).take(size).map(|index| health.interval / 16 * index).collect();
            Self { now: Duration::ZERO, paces, due }
        }

        fn up(&self) -> usize {
            self.paces.iter().filter(|pace| pace.verdict.is_up()).count()
        }

        /// Makes the next probe; `passes` says which backends pass.
        fn step(&mut self, passes: impl Fn(usize) -> bool, random: &mut fastrand::Rng) {
            let next = (0..self.due.len()).min_by_key(|index| self.due[*index]).unwrap();
            self.now = self.due[next];
            let change = self.paces[next].record(passes(next));
            let others = if self.up() > 0 { Others::Serve } else { Others::Fail };
            self.due[next] = self.now + self.paces[next].wait(others, random.u64(..));
            if change == Change::Down && others == Others::Fail {
                self.hurry(random);
            }
        }

        fn hurry(&mut self, random: &mut fastrand::Rng) {
            for (pace, due) in self.paces.iter_mut().zip(&mut self.due) {
                let wait = pace.hurry(random.u64(..));
                *due = wait.map_or(*due, |wait| (*due).min(self.now + wait));
            }
        }
    }

    // If this fails, a new leader is found only after the back-off of its probes.
    #[test]
    fn sixteen_promoted_at_once_are_up_within_two_intervals() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut fleet = Fleet::new(16, &health());
            while fleet.now < Duration::from_secs(600) {
                fleet.step(|_| false, &mut random);
            }
            let promoted = fleet.now;
            while fleet.up() < 16 {
                fleet.step(|_| true, &mut random);
            }
            // A fast interval with its jitter for each of two passes.
            let took = fleet.now - promoted;
            assert!(took <= Duration::from_millis(2 * 1_100), "{took:?} with seed {seed}");
        }
    }

    // If this fails, the followers of a dead leader are asked only after their back-off, or they
    // are asked without end while the leader serves.
    #[test]
    fn followers_back_off_until_the_leader_is_lost() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut fleet = Fleet::new(3, &health());
            let mut probes = 0;
            while fleet.now < Duration::from_secs(600) {
                fleet.step(|index| index == 0, &mut random);
                probes += 1;
            }
            assert!(fleet.up() == 1 && probes < 120 + 2 * 70, "{probes} probes in 10 minutes");
            while fleet.up() > 0 {
                fleet.step(|_| false, &mut random);
            }
            let lost = fleet.now;
            while fleet.up() == 0 {
                fleet.step(|index| index == 1, &mut random);
            }
            let took = fleet.now - lost;
            assert!(took <= Duration::from_millis(2 * 1_100), "{took:?} with seed {seed}");
        }
    }

    // If this fails, some configuration makes the prober spin.
    #[test]
    fn no_setting_makes_it_spin() {
        let millisecond = Duration::from_millis(1);
        for (interval, fast_interval, down_backoff) in [
            (millisecond, millisecond, millisecond),
            (Duration::from_secs(1), Duration::from_secs(2), millisecond),
        ] {
            let health = Health { interval, fast_interval, down_backoff, ..health() };
            let mut pace = Pace::new(&health, Belief::Up);
            for result in [true, false, false, false, false, false, true, true] {
                pace.record(result);
                assert!(pace.wait(Others::Serve, 0) >= WAIT_MIN);
                assert!(pace.wait(Others::Fail, 0) >= WAIT_MIN);
            }
        }
    }

    // If this fails, the default fast interval slows down a shorter configured interval.
    #[test]
    fn fast_is_never_slower_than_usual() {
        let mut pace =
            Pace::new(&Health { interval: Duration::from_millis(200), ..health() }, Belief::Up);
        assert_eq!(waits(&mut pace, &[false, false], MIDDLE), [200, 200]);
    }

    // If this fails, a reload forgets how close a verdict is, or that it was down at all.
    #[test]
    fn retune_keeps_the_verdict_and_the_row() {
        let mut pace = Pace::new(&health(), Belief::Up);
        pace.record(false);
        pace.retune(&Health { fall: 2, ..health() });
        assert_eq!((pace.record(false), pace.row()), (Change::Down, 2));
        pace.interrupt(&health());
        assert_eq!((pace.record(true), pace.record(true)), (Change::None, Change::Up));
    }
}
