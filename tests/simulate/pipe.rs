//! Scripted pipes: they run short, and hold little.

use std::collections::VecDeque;

use evenkeel::dataplane::stream::wire::Holds;

use super::socket::SocketId;

/// Bytes of one socket's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) from: SocketId,
    pub(crate) start: u64,
    pub(crate) count: u64,
}

/// A pipe, with the bytes that are in it.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) batches: VecDeque<Batch>,
    pub(crate) capacity: u64,
}

impl Holds for Pipe {
    fn held(&self) -> usize {
        self.batches.iter().map(|batch| batch.count as usize).sum()
    }
}

/// The pipes of one worker.
#[derive(Debug)]
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    /// Pipes that can still be made.
    left: usize,
    pub(crate) lent: usize,
    /// A pipe that holds bytes is lent again: a fault to be found.
    pub(crate) keeps_dirty: bool,
}

impl Pipes {
    pub(crate) fn new(left: usize) -> Self {
        Self { idle: Vec::new(), left, lent: 0, keeps_dirty: false }
    }

    pub(crate) fn lend(&mut self, random: &mut fastrand::Rng) -> Option<Pipe> {
        let mut pipe = self.idle.pop().or_else(|| {
            self.left = self.left.checked_sub(1)?;
            Some(Pipe::default())
        })?;
        // A pipe has sixteen slots or more, each of which may hold very little.
        pipe.capacity = [16, 23_168, 262_144][random.usize(..3)];
        self.lent += 1;
        Some(pipe)
    }

    /// False for one that was never lent.
    pub(crate) fn take_back(&mut self, pipe: Pipe) -> bool {
        let Some(lent) = self.lent.checked_sub(1) else { return false };
        self.lent = lent;
        if pipe.batches.is_empty() || self.keeps_dirty {
            self.idle.push(pipe);
        } else {
            // Closed; another can be made.
            self.left += 1;
        }
        true
    }

    pub(crate) fn close_idle(&mut self) {
        self.left += self.idle.len();
        self.idle.clear();
    }
}
