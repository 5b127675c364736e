//! The pipes of one worker: lent while bytes are in flight, kept for the next session otherwise.
//!
//! A pair per session would meet the kernel's bound for unprivileged users (64 MiB of pipes in
//! all) at a few hundred sessions; lent this way a handful serves thousands. When none can be
//! made the caller copies instead.

use crate::sys::splice::Pipe;

/// Empty pipes kept for later; more than this many are closed when they come back.
const KEPT_MAX: usize = 64;
/// How many requests are turned down after the kernel has refused a pipe: asking costs more than
/// the copy it would save.
const PAUSE: u32 = 256;

/// Idle pipes, and how many are out.
#[derive(Debug, Default)]
pub(crate) struct PipePool {
    idle: Vec<Pipe>,
    lent: usize,
    lent_max: usize,
    /// Requests to turn down before the kernel is asked again.
    pause: u32,
}

impl PipePool {
    /// A pool that never lends more than `lent_max` pipes at once.
    pub(crate) fn new(lent_max: usize) -> Self {
        Self { idle: Vec::new(), lent: 0, lent_max, pause: 0 }
    }

    /// An empty pipe; `None` when too many are out or the kernel gives no more.
    pub(crate) fn lend(&mut self) -> Option<Pipe> {
        if self.lent >= self.lent_max {
            return None;
        }
        let pipe = self.idle.pop().or_else(|| self.make())?;
        self.lent += 1;
        Some(pipe)
    }

    fn make(&mut self) -> Option<Pipe> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        // Out of descriptors or pipe memory: copying needs neither.
        let made = Pipe::new().ok();
        if made.is_none() {
            self.pause = PAUSE;
        }
        made
    }

    /// Takes a pipe back. One that still holds bytes is closed: they belong to another session.
    pub(crate) fn take_back(&mut self, pipe: Pipe) {
        debug_assert!(self.lent > 0, "a pipe came back that was never lent");
        self.lent -= 1;
        if pipe.held() == 0 && self.idle.len() < KEPT_MAX {
            self.idle.push(pipe);
        }
    }

    /// Pipes that are out.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// Closes the idle ones, to free descriptors.
    pub(crate) fn release_idle(&mut self) {
        self.idle.clear();
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
        let mut pool = PipePool::new(1);
        let mut pipe = pool.lend().unwrap();
        assert!(pool.lend().is_none(), "no more than allowed are out");
        peer.write_all(b"for one session only").unwrap();
        assert_eq!(pipe.fill(inside.as_fd()).unwrap(), 20);
        pool.take_back(pipe);
        assert!(pool.idle.is_empty());
        let pipe = pool.lend().unwrap();
        pool.take_back(pipe);
        assert_eq!((pool.idle.len(), pool.lent()), (1, 0));
    }
}
