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

/// The pipes that all workers share. Once more than half are out, none stays with a direction that
/// waits.
#[derive(Debug)]
pub(crate) struct Pipes {
    idle: Vec<Pipe>,
    /// Pipes that can still be made.
    left: usize,
    pub(crate) lent: usize,
    /// How many there can be.
    total: usize,
    /// Directions that wait keep their pipes, however few there are: a fault to be found.
    pub(crate) never_short: bool,
    /// A pipe that holds bytes is lent again: a fault to be found.
    pub(crate) keeps_dirty: bool,
}

impl Pipes {
    pub(crate) fn new(left: usize) -> Self {
        let total = left;
        Self { idle: Vec::new(), left, lent: 0, total, never_short: false, keeps_dirty: false }
    }

    /// A pipe; a new one takes two of the descriptors that are left.
    pub(crate) fn lend(
        &mut self,
        random: &mut fastrand::Rng,
        descriptors: &mut usize,
    ) -> Option<Pipe> {
        let mut pipe = self.idle.pop().or_else(|| {
            (self.left, *descriptors) = (self.left.checked_sub(1)?, descriptors.checked_sub(2)?);
            Some(Pipe::default())
        })?;
        // A pipe has sixteen slots or more, each of which may hold very little.
        pipe.capacity = [16, 23_168, 262_144][random.usize(..3)];
        self.lent += 1;
        Some(pipe)
    }

    /// How many descriptors are free by that; `None` for one that was never lent.
    pub(crate) fn take_back(&mut self, pipe: Pipe) -> Option<usize> {
        self.lent = self.lent.checked_sub(1)?;
        if pipe.batches.is_empty() || self.keeps_dirty {
            self.idle.push(pipe);
            return Some(0);
        }
        // Closed; another can be made.
        self.left += 1;
        Some(2)
    }

    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// Whether those that wait are told to give way.
    pub(crate) fn runs_short(&self) -> bool {
        self.is_over_half() && !self.never_short
    }

    /// Whether more than half of them are out.
    pub(crate) fn is_over_half(&self) -> bool {
        self.lent > self.total / 2
    }

    /// How many were closed.
    pub(crate) fn close_idle(&mut self) -> usize {
        let closed = self.idle.len();
        self.left += closed;
        self.idle.clear();
        closed
    }
}
