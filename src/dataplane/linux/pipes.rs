//! The pipes of one worker: lent while bytes are in flight, kept for the next session otherwise.
//!
//! A pair per session would meet the kernel's bound for unprivileged users (64 MiB of pipes in
//! all) at a few hundred sessions; lent this way a handful serves thousands. Wide ones go first;
//! while many are out at once, more get a narrow one than would get a wide one. When none can be
//! made the caller copies instead.

use crate::sys::splice::{Capacity, Pipe};

/// Empty pipes of a size kept for later; more than this many are closed when they come back.
const KEPT_MAX: usize = 64;
/// How many requests are turned down after the kernel has refused a pipe: asking costs more than
/// the copy it would save.
const PAUSE: u32 = 256;

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
}

impl Kind {
    fn new(capacity: Capacity, lent_max: usize) -> Self {
        Self { capacity, idle: Vec::new(), lent: 0, lent_max }
    }
}

/// All pipes of a worker.
#[derive(Debug)]
pub(crate) struct PipePool {
    /// In the order in which they are lent.
    kinds: [Kind; 2],
    /// Requests to turn down before the kernel is asked again.
    pause: u32,
}

impl PipePool {
    /// A pool that never lends more than `share` at once.
    pub(crate) fn new(share: PipeShare) -> Self {
        let wide = Kind::new(Capacity::Wide, share.wide);
        Self { kinds: [wide, Kind::new(Capacity::Narrow, share.narrow)], pause: 0 }
    }

    /// An empty pipe; `None` when too many are out or the kernel gives no more.
    pub(crate) fn lend(&mut self) -> Option<Pipe> {
        let kind = self.kinds.iter_mut().find(|kind| kind.lent < kind.lent_max)?;
        let pipe = match kind.idle.pop() {
            Some(pipe) => pipe,
            None if self.pause > 0 => {
                self.pause -= 1;
                return None;
            }
            // Out of descriptors or pipe memory: copying needs neither.
            None => match Pipe::new(kind.capacity) {
                Ok(pipe) => pipe,
                Err(_) => {
                    self.pause = PAUSE;
                    return None;
                }
            },
        };
        kind.lent += 1;
        Some(pipe)
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

    /// Pipes that are out.
    pub(crate) fn lent(&self) -> usize {
        self.kinds.iter().map(|kind| kind.lent).sum()
    }

    /// Closes the idle ones, to free descriptors.
    pub(crate) fn release_idle(&mut self) {
        self.kinds.iter_mut().for_each(|kind| kind.idle.clear());
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
}
