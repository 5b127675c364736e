//! Has workers look at their sessions, slice by slice. It waits for them: not on the thread
//! `control`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use crate::control::plane::workers::Workers;
use crate::dataplane::{
    Command, DESCRIBED_PER_TURN, Description, SessionFilter, SessionLook, SessionShown, Sighting,
    SlotKey, WorkerHandle,
};

/// How long a worker may take for one slice.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker that did not answer: it is stuck, or the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SilentWorker(usize);

impl fmt::Display for SilentWorker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worker, seconds) = (self.0, PATIENCE.as_secs());
        write!(out, "worker {worker} did not answer within {seconds} s")
    }
}

/// Shows every session that the filter means to `see`, with the worker that has it, a slice at a
/// time.
///
/// # Errors
/// A worker does not answer.
pub(crate) fn scan(
    workers: &Workers,
    filter: &Arc<SessionFilter>,
    mut see: impl FnMut(usize, &[Sighting]),
) -> Result<(), SilentWorker> {
    for (number, worker) in workers.handles.iter().enumerate() {
        if filter.number.is_some_and(|session| worker_of(session, workers) != number) {
            continue;
        }
        let mut look = Box::new(SessionLook::new(Arc::clone(filter)));
        while !look.is_over() {
            look = ask(worker, look, Command::Look).ok_or(SilentWorker(number))?;
            see(number, &look.found);
        }
    }
    Ok(())
}

/// The worker that gave a session its number.
fn worker_of(session: u64, workers: &Workers) -> usize {
    let count = workers.handles.len().max(1) as u64;
    usize::try_from(session % count).unwrap_or(0)
}

/// What is to be shown of these sessions of one worker; those that have ended are left out.
///
/// # Errors
/// The worker does not answer.
pub(crate) fn describe(
    workers: &Workers,
    number: usize,
    keys: &[SlotKey],
) -> Result<Vec<SessionShown>, SilentWorker> {
    let mut shown = Vec::with_capacity(keys.len());
    let Some(worker) = workers.handles.get(number) else { return Ok(shown) };
    for slice in keys.chunks(DESCRIBED_PER_TURN) {
        let wanted = Box::new(Description { wanted: slice.to_vec(), shown });
        shown = ask(worker, wanted, Command::Describe).ok_or(SilentWorker(number))?.shown;
    }
    Ok(shown)
}

fn ask<T>(
    worker: &WorkerHandle,
    question: Box<T>,
    command: impl FnOnce(Box<T>, Sender<Box<T>>) -> Command,
) -> Option<Box<T>> {
    let (back, answer) = bounded(1);
    worker.send(command(question, back)).ok()?;
    answer.recv_timeout(PATIENCE).ok()
}
