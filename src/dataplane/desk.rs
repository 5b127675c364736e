//! What a chapter of a session's life may touch beside the session.
//!
//! The table of sessions is not here: a session and the desk can be borrowed together.

use std::sync::Arc;

use crate::shared::{BanReader, SessionLog, Snapshot, Subscriber, WorkerState};

use super::bell::Bell;
use super::choose::chooser::Chooser;
use super::clock::Tick;
use super::command::WorkerSetup;
use super::handover::Handover;
use super::held::table::HeldClients;
use super::kernel::Kernel;
use super::ready_queue::ReadyQueue;
use super::session::Session;
use super::slots::SlotKey;
use super::timers::Timers;

/// The desk of one worker.
#[derive(Debug)]
pub(super) struct Desk<K: Kernel> {
    pub(super) kernel: K,
    /// Read once in a turn.
    pub(super) now: Tick,
    pub(super) snapshot: Subscriber,
    pub(super) bans: BanReader,
    pub(super) scratch: Box<[u8]>,
    pub(super) timers: Timers,
    /// Sessions that can move.
    pub(super) ready: ReadyQueue<SlotKey>,
    pub(super) chooser: Chooser,
    pub(super) handover: Handover<K>,
    /// Refused clients that are held; nothing until there is one.
    pub(super) held: Option<Box<HeldClients<K>>>,
    /// By which others tell of a place for a client of this worker.
    pub(super) bell: Arc<Bell>,
    pub(super) books: Books,
}

/// The numbers of one worker, and where they go.
#[derive(Debug)]
pub(super) struct Books {
    /// The worker's number.
    pub(super) number: usize,
    /// How many workers there are.
    pub(super) workers: u64,
    pub(super) state: Arc<WorkerState>,
    pub(super) log: SessionLog,
}

impl Books {
    fn new(setup: &WorkerSetup) -> Self {
        let (workers, state) = (setup.workers as u64, Arc::clone(&setup.state));
        state.numbered.set(setup.numbers_from.div_ceil(workers.max(1)));
        Self { number: setup.number, workers, state, log: setup.log.clone() }
    }

    /// The number of a new session or of a client that becomes none, unique within the process
    /// and among those of earlier ones whose sessions it has.
    pub(super) fn next_number(&self) -> u64 {
        self.state.numbered.add(1);
        self.state.numbered.value() * self.workers + self.number as u64
    }
}

impl<K: Kernel> Desk<K> {
    pub(super) fn new(kernel: K, setup: WorkerSetup, bell: Arc<Bell>, now: Tick) -> Self {
        let books = Books::new(&setup);
        Self {
            kernel,
            now,
            bans: BanReader::new(Arc::clone(&setup.snapshot.current().bans)),
            snapshot: setup.snapshot,
            scratch: vec![0; setup.scratch_bytes].into_boxed_slice(),
            timers: Timers::new(now),
            ready: ReadyQueue::new(setup.bounds),
            chooser: Chooser::new(books.number),
            handover: Handover::new(),
            held: None,
            bell,
            books,
        }
    }

    /// The snapshot that this turn works with.
    pub(super) fn snapshot(&self) -> &Snapshot {
        self.snapshot.current()
    }

    /// Arms the timer of a session for what it waits for now.
    pub(super) fn arm(&mut self, session: &Session<K>) {
        let check = session.next_check(self.snapshot.current(), self.now);
        self.timers.arm(session.key.index, check);
    }

    /// Has a session run when its turn comes.
    pub(super) fn queue(&mut self, session: &mut Session<K>) {
        if !session.queued {
            session.queued = true;
            self.ready.push(session.key, session.weight);
        }
    }
}
