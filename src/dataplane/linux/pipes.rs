//! The pipes of one worker: lent while bytes are in flight, kept for the next session otherwise.
//!
//! A pair per session would meet the kernel's bound for unprivileged users (64 MiB of pipes in
//! all) at a few hundred sessions; lent this way a handful serves thousands. Wide ones go first,
//! then narrow ones, which also serve where the kernel refuses a wide one. Once more than half of a
//! kind are out, no more may stay with directions that wait: see docs/adr/0053. When none can be
//! made the caller copies instead.

use crate::sys::splice::{Capacity, Pipe};

/// Empty pipes of a size kept for later; more than this many are closed when they come back.
const KEPT_MAX: usize = 64;
/// How many requests are turned down after the kernel has refused a pipe: asking costs more than
/// the copy it would save.
const PAUSE: u32 = 256;
/// Bytes of a batch where pipes run short, after one that its target did not take although it
/// seemed to have room: what is left then is kept in a buffer, no larger than that of one that
/// copies.
const SCARCE_BATCH_LEAST: usize = 64 * 1024;
/// How much larger each batch may be than the one before, until the next such surprise.
const SCARCE_BATCH_STEP: usize = 4 * 1024;

/// How many pipes a worker may have out at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeShare {
    /// Of [`Capacity::Wide`].
    pub wide: usize,
    /// Of [`Capacity::Narrow`], beside them.
    pub narrow: usize,
}

/// Pipes of one size: the idle ones, and how many are out.
#[derive(Debug)]
struct Kind {
    capacity: Capacity,
    idle: Vec<Pipe>,
    lent: usize,
    lent_max: usize,
    /// Requests to turn down before the kernel is asked again.
    pause: u32,
}

impl Kind {
    fn new(capacity: Capacity, lent_max: usize) -> Self {
        Self { capacity, idle: Vec::new(), lent: 0, lent_max, pause: 0 }
    }

    /// An empty pipe of this kind; `make` asks the kernel for one.
    fn lend(&mut self, make: impl FnOnce(Capacity) -> Option<Pipe>) -> Option<Pipe> {
        if self.lent >= self.lent_max {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None if self.pause > 0 => {
                self.pause -= 1;
                return None;
            }
            None => match make(self.capacity) {
                Some(pipe) => pipe,
                None => {
                    self.pause = PAUSE;
                    return None;
                }
            },
        };
        self.lent += 1;
        Some(pipe)
    }
}

/// All pipes of a worker.
#[derive(Debug)]
pub(crate) struct PipePool {
    /// In the order in which they are lent.
    kinds: [Kind; 2],
    /// Bytes of the next batch where pipes run short, at most.
    scarce_batch: usize,
}

impl PipePool {
    /// A pool that never lends more than `share` at once.
    pub(crate) fn new(share: PipeShare) -> Self {
        let wide = Kind::new(Capacity::Wide, share.wide);
        let kinds = [wide, Kind::new(Capacity::Narrow, share.narrow)];
        Self { kinds, scarce_batch: Capacity::Wide.bytes() }
    }

    /// An empty pipe; `None` when too many are out or the kernel gives no more.
    pub(crate) fn lend(&mut self) -> Option<Pipe> {
        // Out of descriptors or pipe memory: copying needs neither.
        self.lend_made_by(|capacity| Pipe::new(capacity).ok())
    }

    fn lend_made_by(&mut self, make: impl Fn(Capacity) -> Option<Pipe>) -> Option<Pipe> {
        self.kinds.iter_mut().find_map(|kind| kind.lend(&make))
    }

    /// Takes a pipe back. One that still holds bytes is closed: they belong to another session.
    pub(crate) fn take_back(&mut self, pipe: Pipe) {
        let is_of = |kind: &&mut Kind| kind.capacity == pipe.capacity();
        let Some(kind) = self.kinds.iter_mut().find(is_of) else { return };
        debug_assert!(kind.lent > 0, "a pipe came back that was never lent");
        kind.lent -= 1;
        if pipe.held() == 0 && kind.idle.len() < KEPT_MAX {
            kind.idle.push(pipe);
        }
    }

    /// Whether more than half of the pipes of this capacity are out.
    pub(crate) fn runs_short_of(&self, capacity: Capacity) -> bool {
        let is_short = |kind: &Kind| kind.capacity == capacity && kind.lent > kind.lent_max / 2;
        self.kinds.iter().any(is_short)
    }

    /// Bytes of a batch that begins where pipes run short, at most.
    pub(crate) fn next_scarce_batch(&mut self) -> usize {
        let batch = self.scarce_batch;
        self.scarce_batch = (batch + SCARCE_BATCH_STEP).min(Capacity::Wide.bytes());
        batch
    }

    /// This many bytes had to be taken out of a pipe that came back early.
    pub(crate) fn note_unloaded(&mut self, bytes: usize) {
        if bytes > SCARCE_BATCH_LEAST {
            self.scarce_batch = SCARCE_BATCH_LEAST;
        }
    }

    /// Pipes that are out.
    pub(crate) fn lent(&self) -> usize {
        self.kinds.iter().map(|kind| kind.lent).sum()
    }

    /// Closes the idle ones, to free descriptors; how many that were. What they are needed for goes
    /// before splicing: new ones are made only after a while.
    pub(crate) fn release_idle(&mut self) -> usize {
        let mut released = 0;
        for kind in &mut self.kinds {
            released += kind.idle.len();
            kind.idle = Vec::new();
            kind.pause = PAUSE;
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    // If this fails, a session is sent what another's peer said; or every batch costs a new pipe.
    #[test]
    fn a_pipe_that_holds_bytes_is_closed_and_an_empty_one_kept() {
        let (mut peer, inside) = UnixStream::pair().unwrap();
        let mut pool = PipePool::new(PipeShare { wide: 1, narrow: 0 });
        let mut pipe = pool.lend().unwrap();
        assert!(pool.lend().is_none(), "no more than allowed are out");
        peer.write_all(b"for one session only").unwrap();
        assert_eq!(pipe.fill(inside.as_fd(), 99).unwrap(), 20);
        pool.take_back(pipe);
        assert!(pool.kinds[0].idle.is_empty());
        let pipe = pool.lend().unwrap();
        pool.take_back(pipe);
        assert_eq!((pool.kinds[0].idle.len(), pool.lent()), (1, 0));
    }

    // If this fails, many slow readers at once leave later sessions without a pipe, or bulk to few
    // takes several times the calls.
    #[test]
    fn wide_pipes_go_first_and_narrow_ones_follow() {
        let mut pool = PipePool::new(PipeShare { wide: 2, narrow: 3 });
        let lent: Vec<Pipe> = std::iter::from_fn(|| pool.lend()).collect();
        let sizes: Vec<Capacity> = lent.iter().map(Pipe::capacity).collect();
        let (wide, narrow) = (Capacity::Wide, Capacity::Narrow);
        assert_eq!(sizes, [wide, wide, narrow, narrow, narrow]);
        lent.into_iter().rev().for_each(|pipe| pool.take_back(pipe));
        assert_eq!(pool.lent(), 0);
        assert_eq!(pool.lend().unwrap().capacity(), wide);
    }

    // If this fails, a user whose pipe memory is used up copies although narrow pipes are to be
    // had, or asks the kernel in vain for each batch.
    #[test]
    fn narrow_pipes_serve_where_wide_ones_are_refused() {
        let mut pool = PipePool::new(PipeShare { wide: 2, narrow: 2 });
        let asked = std::cell::Cell::new(0);
        let refuse_wide = |capacity| {
            asked.set(asked.get() + usize::from(capacity == Capacity::Wide));
            (capacity == Capacity::Narrow).then(|| Pipe::new(capacity).unwrap())
        };
        for _ in 0..PAUSE {
            let pipe = pool.lend_made_by(refuse_wide).unwrap();
            assert_eq!(pipe.capacity(), Capacity::Narrow);
            pool.take_back(pipe);
        }
        assert_eq!((asked.get(), pool.lent()), (1, 0));
        pool.lend_made_by(refuse_wide).unwrap();
        pool.lend_made_by(refuse_wide).unwrap();
        assert_eq!(asked.get(), 2, "asked again after a while");
    }

    // If this fails, all pipes are taken by directions that wait, and the others copy; or few wait
    // and their batches are small for nothing.
    #[test]
    fn pipes_run_short_once_more_than_half_are_out() {
        let mut pool = PipePool::new(PipeShare { wide: 3, narrow: 2 });
        let mut lent = Vec::new();
        let mut seen = Vec::new();
        while let Some(pipe) = pool.lend() {
            seen.push(pool.runs_short_of(pipe.capacity()));
            lent.push(pipe);
        }
        assert_eq!(seen, [false, true, true, false, true]);
        lent.into_iter().for_each(|pipe| pool.take_back(pipe));
        assert!(!pool.runs_short_of(Capacity::Wide) && !pool.runs_short_of(Capacity::Narrow));
    }

    // If this fails, a host short of memory has each reader that stops keep a megabyte of bytes in
    // a buffer; or batches stay small for ever.
    #[test]
    fn after_a_surprise_batches_are_small_for_a_while() {
        let mut pool = PipePool::new(PipeShare { wide: 1, narrow: 1 });
        let largest = Capacity::Wide.bytes();
        assert_eq!(pool.next_scarce_batch(), largest);
        pool.note_unloaded(SCARCE_BATCH_LEAST);
        assert_eq!(pool.next_scarce_batch(), largest, "that is no surprise");
        pool.note_unloaded(SCARCE_BATCH_LEAST + 1);
        let batches: Vec<usize> = (0..1000).map(|_| pool.next_scarce_batch()).collect();
        let [first, .., last] = *batches else { panic!("a thousand batches") };
        assert_eq!((first, last, batches.is_sorted()), (SCARCE_BATCH_LEAST, largest, true));
        assert!(batches.iter().filter(|batch| **batch < largest / 2).count() > 100);
    }

    // If this fails, closing idle pipes frees nothing for long: the next batch makes new ones.
    #[test]
    fn pipes_that_gave_way_are_not_made_again_at_once() {
        let mut pool = PipePool::new(PipeShare { wide: 1, narrow: 1 });
        let lent = [pool.lend().unwrap(), pool.lend().unwrap()];
        lent.into_iter().for_each(|pipe| pool.take_back(pipe));
        assert_eq!((pool.release_idle(), pool.release_idle()), (2, 0));
        assert!(pool.lend().is_none());
        assert!((0..PAUSE).any(|_| pool.lend().is_some()));
    }
}
