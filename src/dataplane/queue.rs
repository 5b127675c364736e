//! Sessions that wait for a place, because every backend of their pool is full.
//!
//! The line is the pool's and holds the clients of all workers. Only its first is offered a place;
//! its worker is called when one becomes free, and looks by itself now and then, for what calls
//! nobody: a backend that comes up, a reload. Until then the client's bytes stay in the kernel,
//! unless it has ended: only they tell then whether it waits for an answer.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::Waker;

use crate::shared::{Backend, Callable, Pool, RefuseReason, Snapshot, Waiting};
use crate::sys::socket;

use super::connect::Dead;
use super::connection::Connection;
use super::phase::Stage;
use super::slots::{Addressed, SlotKey};
use super::stream::Readiness;
use super::stream::wire::Side;
use super::worker::Worker;

/// How others reach a worker whose client is first in a line.
#[derive(Debug)]
pub(super) struct Bell {
    waker: Arc<Waker>,
    has_rung: AtomicBool,
}

impl Bell {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self { waker, has_rung: AtomicBool::new(false) }
    }

    /// Whether somebody has called since this was asked last.
    pub(super) fn has_rung(&self) -> bool {
        self.has_rung.swap(false, Ordering::Acquire)
    }
}

impl Callable for Bell {
    fn call(&self) {
        self.has_rung.store(true, Ordering::Release);
        // The eventfd of a worker that is gone needs no waking.
        let _gone = self.waker.wake();
    }
}

/// Whether a pool that has no place now may have one when a session ends.
pub(super) fn is_only_full(pool: &Pool) -> bool {
    let panicking = pool.state.is_panicking();
    pool.queue.is_some() && pool.backends().any(|backend| backend.is_usable(panicking))
}

/// Whether a newcomer has to line up behind others.
pub(super) fn has_line(pool: &Pool) -> bool {
    pool.queue.is_some() && !pool.state.line.is_empty()
}

/// Tells who waits that there may be a place; after it has been given back.
pub(super) fn place_is_free(backend: &Backend) {
    if let Some(line) = &backend.line {
        line.place_is_free();
    }
}

/// Takes a session out of its line, if it stands in one.
pub(super) fn leave(snapshot: &Snapshot, connection: &Connection) {
    if connection.phase.stage != Stage::Waiting {
        return;
    }
    if let Some(pool) = snapshot.pool(connection.place.pool)
        && pool.state.line.leave(connection.place.number)
    {
        // It may have been called to a place that it leaves to the next.
        pool.state.line.place_is_free();
    }
}

impl Worker {
    /// Lets a session that is in the table, and has no backend, wait for a place.
    pub(super) fn wait_in_line(&mut self, key: SlotKey) {
        let now = self.now;
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let number = connection.place.number;
        let Some(pool) = self.snapshot.current().pool(connection.place.pool).cloned() else {
            return self.give_up(key, Dead::Refused(RefuseReason::NoBackend.into()));
        };
        let worker: Arc<dyn Callable> = Arc::<Bell>::clone(&self.bell);
        let token = Addressed::Connection(key, Side::Client).token().0 as u64;
        let max = pool.queue.map_or(0, |queue| queue.max);
        if !pool.state.line.join(Waiting { number, token, worker }, max) {
            return self.give_up(key, Dead::Refused(RefuseReason::NoBackend.into()));
        }
        if let Some(connection) = self.table.slots.get_mut(key) {
            connection.phase.waits(now);
        }
        self.rearm(key);
        self.serve_if_first(&pool, number);
    }

    /// Whoever is behind others is called when it is first.
    fn serve_if_first(&mut self, pool: &Pool, number: u64) {
        if pool.state.line.first().is_some_and(|first| first.number == number) {
            self.serve_line(pool);
        }
    }

    /// Offers places to those of this worker's sessions that are first in a line.
    #[cold]
    pub(super) fn serve_lines(&mut self) {
        let pools: Vec<Arc<Pool>> =
            self.snapshot.current().pools.iter().flatten().cloned().collect();
        for pool in pools.iter().filter(|pool| !pool.state.line.is_empty()) {
            self.serve_line(pool);
        }
    }

    /// Offers places to the first in line for as long as those are this worker's and there are
    /// places; then it is for another worker to go on.
    fn serve_line(&mut self, pool: &Pool) {
        let mine: Arc<dyn Callable> = Arc::<Bell>::clone(&self.bell);
        while let Some(first) = pool.state.line.first() {
            if !Arc::ptr_eq(&first.worker, &mine) {
                return first.worker.call();
            }
            let token = usize::try_from(first.token).map_or(mio::Token(usize::MAX), mio::Token);
            let found = match Addressed::of(token) {
                Addressed::Connection(key, _) => self.offer_place(key, first.number),
                _ => None,
            };
            match found {
                Some(true) => {}
                Some(false) => return,
                // Whoever it was is gone.
                None => {
                    pool.state.line.leave(first.number);
                }
            }
        }
    }

    /// Looks for a backend for a session that is first in line: whether it has left the line by
    /// that, `None` when there is no such session.
    fn offer_place(&mut self, key: SlotKey, number: u64) -> Option<bool> {
        let is_it = |connection: &Connection| {
            connection.phase.stage == Stage::Waiting && connection.place.number == number
        };
        self.table.slots.get(key).filter(|connection| is_it(connection))?;
        let mut connection = self.table.slots.lift(key)?;
        let joined = connection.phase.attempted;
        let outcome = self.attempt(&mut connection);
        if matches!(outcome, Err(Dead::Full)) {
            connection.phase.attempted = joined;
            self.table.slots.put_back(key, connection);
            return Some(false);
        }
        if let Some(pool) = self.snapshot.current().pool(connection.place.pool) {
            pool.state.line.leave(number);
        }
        connection.phase.stage = Stage::Connecting;
        connection.times.waited(self.now.since(joined));
        self.table.slots.put_back(key, connection);
        self.take_outcome(key, outcome);
        Some(true)
    }

    /// Something happened to a client that waits.
    pub(super) fn waiting_event(&mut self, key: SlotKey, readiness: Readiness) {
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        if readiness.error {
            return self.give_up(key, Dead::Gone);
        }
        if !readiness.read_closed || connection.stream.held(Side::Client) > 0 {
            return;
        }
        // A client that has said nothing and finished is gone; after a word it may be waiting for
        // the answer.
        match socket::receive(connection.client.as_fd(), &mut self.tools.scratch) {
            Ok(received @ 1..) => {
                let bytes = self.tools.scratch.get(..received).unwrap_or_default();
                connection.preload((self.snapshot.current(), self.now), bytes);
            }
            _ => self.give_up(key, Dead::Gone),
        }
    }

    /// A look at the line, or the end of patience.
    pub(super) fn look_at_line(&mut self, key: SlotKey) {
        let Some(connection) = self.table.slots.get(key) else { return };
        let number = connection.place.number;
        let pool = self.snapshot.current().pool(connection.place.pool).cloned();
        match pool.filter(|pool| pool.queue.is_some()) {
            Some(pool) => {
                self.rearm(key);
                self.serve_if_first(&pool, number);
            }
            // A reload has taken the queue, or the pool, away.
            None => self.give_up(key, Dead::Refused(RefuseReason::NoBackend.into())),
        }
    }
}
