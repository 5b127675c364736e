//! The workers of a schedule. Each has a scripted epoll instance, a way to it and its numbers; they
//! share the network, the snapshots and the session log, and hand new sessions to each other.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use evenkeel::dataplane::clock::Tick;
use evenkeel::dataplane::slots::{Addressed, SlotKey};
use evenkeel::dataplane::stream::Readiness;
use evenkeel::dataplane::worker::Worker;
use evenkeel::dataplane::{Command, Inbox, Peer, PipeShare, WorkerSetup};
use evenkeel::shared::{Publisher, SessionLog, WorkerState};
use mio::Token;

use super::kernel::{Rung, Scripted, SharedNetwork};
use super::setting::Setting;

/// Everything that all workers of a schedule share.
pub(crate) struct Common<'a> {
    pub(crate) network: &'a SharedNetwork,
    pub(crate) setting: &'a Setting,
    pub(crate) publisher: &'a Publisher,
    pub(crate) log: SessionLog,
    pub(crate) now: Tick,
}

/// One worker, with all by which it is reached.
pub(crate) struct Seat {
    pub(crate) worker: Worker<Scripted>,
    pub(crate) state: Arc<WorkerState>,
    commands: Sender<Command<Scripted>>,
    waker: Arc<Rung>,
    /// When it took its latest turn.
    turned: Tick,
    /// Commands that it was sent, but for what other workers hand over.
    sent: Cell<u64>,
}

impl Seat {
    /// As many workers as the setting has, each of which knows the others.
    pub(crate) fn all(common: &Common<'_>) -> Vec<Self> {
        let seats: Vec<Self> =
            (0..common.setting.workers).map(|number| Self::new(number, common)).collect();
        for (number, seat) in seats.iter().enumerate() {
            let others = seats.iter().enumerate().filter(|(other, _)| *other != number);
            seat.send(Command::Meet(others.map(|(_, other)| other.peer()).collect()));
        }
        seats
    }

    fn new(number: usize, common: &Common<'_>) -> Self {
        let (commands, inbox): (_, Receiver<Command<Scripted>>) = unbounded();
        let (waker, state) = (Arc::<Rung>::default(), Arc::<WorkerState>::default());
        let setup = WorkerSetup {
            number,
            workers: common.setting.workers,
            numbers_from: 0,
            cpu: None,
            spin: Duration::ZERO,
            pipes: PipeShare { wide: 0, narrow: 0 },
            scratch_bytes: common.setting.scratch,
            bounds: common.setting.bounds,
            start: Instant::now(),
            snapshot: common.publisher.subscribe(),
            state: Arc::clone(&state),
            log: common.log.clone(),
        };
        let inbox = Inbox { commands: inbox, waker: Arc::<Rung>::clone(&waker) };
        let kernel = Scripted { network: Rc::clone(common.network), worker: number };
        let worker = Worker::new(setup, kernel, inbox, common.now).unwrap();
        Self { worker, state, commands, waker, turned: common.now, sent: Cell::new(0) }
    }

    fn peer(&self) -> Peer<Scripted> {
        Peer {
            commands: self.commands.clone(),
            waker: Arc::<Rung>::clone(&self.waker),
            state: Arc::clone(&self.state),
        }
    }

    pub(crate) fn send(&self, command: Command<Scripted>) {
        self.commands.send(command).unwrap();
        self.sent.set(self.sent.get() + 1);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        self.waker.0.store(true, Ordering::Relaxed);
    }

    /// Whether it says that it has obeyed other commands than it had by its latest turn.
    pub(crate) fn is_disobedient(&self) -> bool {
        let (obeyed, sent) = (self.state.obeyed.value(), self.sent.get());
        if self.is_rung() { obeyed > sent } else { obeyed != sent }
    }

    /// Whether it has been woken and has not taken a turn since.
    pub(crate) fn is_rung(&self) -> bool {
        self.waker.0.load(Ordering::Relaxed)
    }

    /// Adds the event of its waker, if it has been woken.
    pub(crate) fn answer(&self, events: &mut Vec<(Token, Readiness)>) {
        if self.waker.0.swap(false, Ordering::Relaxed) {
            let readiness = Readiness { readable: true, ..Readiness::default() };
            events.push((Addressed::Waker.token(), readiness));
        }
    }

    /// Whether its poll would have returned by now without an event.
    pub(crate) fn is_due(&self, now: Tick) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// When its poll returns without an event.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        let patience = self.worker.patience(self.turned);
        patience.map(|patience| self.turned.after(patience))
    }

    /// Takes a turn; false when the worker has left.
    pub(crate) fn turn(&mut self, events: Vec<(Token, Readiness)>, now: Tick) -> bool {
        self.turned = now;
        self.worker.turn(events, now).is_continue()
    }

    /// Whether a token names a session that has ended, in a slot that another has now.
    pub(crate) fn is_stale(&self, token: Token) -> bool {
        let Addressed::Session(SlotKey { index, generation }, _) = Addressed::of(token) else {
            return false;
        };
        let mut keys = self.worker.sessions().map(|(key, _)| key);
        keys.any(|key| key.index == index && key.generation != generation)
    }

    pub(crate) fn has_sessions(&self) -> bool {
        self.worker.sessions().next().is_some()
    }
}
