//! One turn of a worker's loop, and what a worker is asked.
//!
//! A turn: take up a newer snapshot, let events set latches, run the light sessions that can move,
//! then accept a few new ones, then look at timers and commands, and last run bulk sessions, as far
//! as the turn has room ([`ready_queue`](super::ready_queue)). Ready sessions come before new ones,
//! so that a place that has just become free is seen; whatever was cut short by a budget goes on in
//! the next turn, without sleeping. Nothing here sleeps or reads a clock: that is
//! `thread`, or a test.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Receiver;
use mio::Token;

use crate::shared::{Address, Listener, RefuseReason, Snapshot, WorkerState};

use super::bell::Bell;
use super::clock::Tick;
use super::command::{Arrival, Command, Inbox, WorkerSetup};
use super::desk::Desk;
use super::held::room;
use super::kernel::Kernel;
use super::leaving::Leaving;
use super::life::next::Refusal;
use super::life::{admission, arrive, refuse};
use super::listening::{Accepted, Bound, Listening};
use super::looking;
use super::make_room::{ask_again, make_room};
use super::parking;
use super::session::Session;
use super::sessions::Sessions;
use super::slots::{Addressed, SlotKey, Slots};
use super::stream::Readiness;

/// Connections taken from one socket in one turn. Small batches beat large ones: the kernel
/// completes handshakes while sessions are served.
const ACCEPTS_PER_TURN: usize = 4;
/// Connections taken from a socket before it is closed; the longest accept queue there is.
const QUEUE_MAX: usize = 65_535;
/// How long accepting pauses when the process is out of descriptors or memory, and how long a
/// socket from which accept(2) fails is left alone.
const PAUSE: Duration = Duration::from_millis(100);
/// Commands obeyed in one turn. A reload that adds thousands of addresses sends one for each.
const COMMANDS_PER_TURN: usize = 64;

/// Whether to go on accepting from a socket.
enum AcceptOutcome {
    /// Another may wait.
    GoesOn,
    /// The queue is empty.
    Empty,
    /// Out of descriptors or memory.
    Exhausted,
    /// It will fail again, if it is not left alone for a while.
    Fails,
}

/// One data-plane worker over its kernel.
#[derive(Debug)]
pub struct Worker<K: Kernel> {
    sessions: Sessions<K>,
    listening: Listening<K>,
    commands: Receiver<Command<K>>,
    leaving: Leaving,
    /// Slots whose timer has come due, in this turn.
    due: Vec<u32>,
    /// A command has been sent, perhaps.
    woken: bool,
    /// All sessions were reset for good: an arrival that is still handed over comes too late.
    over: bool,
}

impl<K: Kernel> Worker<K> {
    /// A worker that accepts nowhere yet.
    ///
    /// # Errors
    /// When there is no descriptor to hold back.
    pub fn new(setup: WorkerSetup, mut kernel: K, inbox: Inbox<K>, now: Tick) -> io::Result<Self> {
        let listening = Listening::new(&setup, &mut kernel)?;
        let bell = Arc::new(Bell::new(inbox.waker));
        let desk = Desk::new(kernel, setup, bell, now);
        Ok(Self {
            sessions: Sessions { table: Slots::new(), desk },
            listening,
            commands: inbox.commands,
            leaving: Leaving::default(),
            due: Vec::new(),
            woken: true,
            over: false,
        })
    }

    /// Its kernel.
    pub fn kernel(&mut self) -> &mut K {
        &mut self.sessions.desk.kernel
    }

    /// Its numbers.
    pub fn state(&self) -> &WorkerState {
        &self.sessions.desk.books.state
    }

    /// Its sessions.
    pub fn sessions(&self) -> impl Iterator<Item = (SlotKey, &Session<K>)> {
        let table = &self.sessions.table;
        table.keys().into_iter().filter_map(|key| Some((key, table.get(key)?)))
    }

    /// Takes one turn at `now` with these events. `Break`: it was asked to leave.
    // A part of the one loop that calls it: a call of its own costs a fiftieth of a small request.
    #[inline(always)]
    pub fn turn(
        &mut self,
        events: impl IntoIterator<Item = (Token, Readiness)>,
        now: Tick,
    ) -> ControlFlow<()> {
        self.sessions.desk.now = now;
        if self.sessions.desk.snapshot.is_stale() {
            self.take_up_snapshot();
        }
        for (token, readiness) in events {
            self.note(token, readiness);
        }
        self.sessions.run_light();
        if self.sessions.desk.held.is_some() {
            room::run(&mut self.sessions.desk);
        }
        self.accept_pending();
        self.sessions.check_timers(&mut self.due);
        if !self.leaving.is_empty() {
            self.leaving.run(&mut self.sessions);
        }
        if std::mem::take(&mut self.woken) && self.wake_up().is_break() {
            return ControlFlow::Break(());
        }
        if self.sessions.desk.ready.has_bulk() {
            self.sessions.run_bulk();
        }
        self.report();
        ControlFlow::Continue(())
    }

    /// How long a poll may sleep: not at all while work is left over, `None` until an event.
    pub fn patience(&self, now: Tick) -> Option<Duration> {
        let desk = &self.sessions.desk;
        if self.woken || !desk.ready.is_empty() || self.listening.has_pending(now) {
            return Some(Duration::ZERO);
        }
        let mut next = earlier(desk.timers.next_due(), self.listening.resumes_at());
        if let Some(held) = &desk.held {
            next = earlier(next, held.next_due());
        }
        if !self.leaving.is_empty() {
            next = earlier(next, self.leaving.next_due());
        }
        next.map(|next| next.since(now))
    }

    /// Takes the newest snapshot; listeners that are gone are emptied under the old one first.
    pub fn take_up_snapshot(&mut self) {
        let latest = self.sessions.desk.snapshot.latest();
        self.close_gone_listeners(&latest);
        self.listening.take_up(&latest, &mut self.sessions.desk.kernel);
        let generation = latest.generation.0;
        let is_to_recount = admission::is_to_recount(&latest, self.sessions.desk.snapshot());
        let desk = &mut self.sessions.desk;
        let old = desk.snapshot.take_up(latest);
        room::release_tarpits(desk);
        if is_to_recount {
            self.sessions.recount();
        }
        self.sessions.follow(&old);
        drop(old);
        let desk = &self.sessions.desk;
        desk.books.state.generation.store(generation, Ordering::Release);
    }

    #[inline]
    fn note(&mut self, token: Token, readiness: Readiness) {
        match Addressed::of(token) {
            Addressed::Session(key, side) => self.sessions.note(key, side, readiness),
            Addressed::Waker => self.woken = true,
            Addressed::Listener(position) => self.listening.note(position),
            Addressed::Held(key) => room::event(&mut self.sessions.desk, key, readiness),
        }
    }

    fn wake_up(&mut self) -> ControlFlow<()> {
        if self.sessions.desk.bell.has_rung() {
            self.sessions.serve_lines();
        }
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { return ControlFlow::Continue(()) };
            let is_of_control = !matches!(command, Command::Take(_));
            self.obey(command)?;
            if is_of_control {
                self.state().obeyed.add(1);
            }
        }
        self.woken = true;
        ControlFlow::Continue(())
    }

    fn obey(&mut self, command: Command<K>) -> ControlFlow<()> {
        match command {
            Command::Listen { address, listener, socket, is_shared } => {
                self.see_newest_snapshot();
                self.listen(Bound { address, socket, is_shared }, listener);
            }
            Command::Retune { addresses, options } => {
                self.listening.retune(&addresses, &options, &mut self.sessions.desk.kernel);
            }
            Command::PutGates => self.listening.put_gates(&mut self.sessions.desk.kernel),
            Command::Meet(peers) => self.sessions.desk.handover.meet(peers),
            Command::Take(mut arrival) => {
                self.see_newest_snapshot();
                self.sessions.recount_arrival(&mut arrival);
                self.sessions.begin(*arrival);
                self.state().arriving.fetch_sub(1, Ordering::Relaxed);
                if self.over {
                    self.reset_all();
                }
            }
            Command::StopListening => self.stop_listening(),
            Command::LetGo { passed } => {
                for position in self.listening.positions(|address| passed.contains(address)) {
                    self.listening.close(position, &mut self.sessions.desk.kernel);
                }
                self.stop_listening();
            }
            Command::ResetAll => {
                self.over = true;
                self.reset_all();
            }
            Command::Leave(order) => {
                self.see_newest_snapshot();
                self.leaving.note(&self.sessions, order);
            }
            Command::LeaveNamed(order, keys) => {
                self.leaving.note_named(order, keys, self.sessions.desk.now);
            }
            Command::Look(mut look, back) => {
                looking::go_on(&mut look, &self.sessions);
                // Nothing comes of it where its asker has gone.
                let _gone = back.try_send(look);
            }
            Command::Describe(mut description, back) => {
                looking::describe(&mut description, &mut self.sessions);
                let _gone = back.try_send(description);
            }
            Command::Park(mut window, back) => {
                self.see_newest_snapshot();
                parking::park(&mut window, &mut self.sessions, &self.leaving);
                // Its asker has gone: they are not lost with it.
                if let Err(unsent) = back.try_send(window) {
                    parking::resume(*unsent.into_inner(), &mut self.sessions);
                }
            }
            Command::TakeIn(arrived, back) => {
                self.see_newest_snapshot();
                let window = parking::take_in(arrived, &mut self.sessions, self.over);
                if let Err(unsent) = back.try_send(Box::new(window)) {
                    parking::give_up(*unsent.into_inner(), &self.sessions.desk);
                }
            }
            Command::Resume(window) => {
                parking::resume(*window, &mut self.sessions);
                if self.over {
                    self.reset_all();
                }
            }
            Command::GiveUp(window) => parking::give_up(*window, &self.sessions.desk),
            Command::Exit => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn stop_listening(&mut self) {
        self.close_listening(|_| true);
        room::hurry(&mut self.sessions.desk);
    }

    fn see_newest_snapshot(&mut self) {
        if self.sessions.desk.snapshot.is_stale() {
            self.take_up_snapshot();
        }
    }

    /// Resets every session, and ends every refused client that is held.
    fn reset_all(&mut self) {
        self.sessions.reset_all();
        room::end_all(&mut self.sessions.desk);
    }

    fn report(&self) {
        let state = self.state();
        state.turns.add(1);
        state.pipes_in_use.set(self.sessions.desk.kernel.pipes_lent() as u64);
        state.sessions.set(self.sessions.table.len() as u64);
    }

    /// Starts to accept on a socket that was opened for this listener.
    fn listen(&mut self, bound: Bound<K>, listener: Arc<Listener>) {
        let current = self.sessions.desk.snapshot().listener_on(&bound.address).cloned();
        let Some(listener) = current else {
            // Gone again before this worker heard of it; a client that has connected meanwhile is
            // served.
            let address = bound.address.clone();
            self.listening.add(listener, bound);
            return self.close_listening(|its| *its == address);
        };
        let position = self.listening.add(listener, bound);
        let desk = &mut self.sessions.desk;
        let mut watch = |kernel: &mut K| self.listening.watch(position, kernel);
        let watched = watch(&mut desk.kernel);
        if watched.or_else(|error| ask_again(desk, error, watch)).is_err() {
            // Without an epoll entry this queue would never be served; better that the kernel
            // gives its share to the other workers.
            self.listening.close(position, &mut desk.kernel);
        }
        self.state().listening.set(self.listening.count() as u64);
    }

    /// Empties and closes the sockets on addresses that a snapshot no longer has.
    fn close_gone_listeners(&mut self, latest: &Snapshot) {
        self.close_listening(|address| latest.listener_on(address).is_none());
    }

    fn close_listening(&mut self, is_gone: impl Fn(&Address) -> bool) {
        for position in self.listening.positions(is_gone) {
            let Some(listener) = self.listening.listener(position) else { continue };
            for _ in 0..QUEUE_MAX {
                if !matches!(self.accept_one(position, &listener), AcceptOutcome::GoesOn) {
                    break;
                }
            }
            self.listening.close(position, &mut self.sessions.desk.kernel);
        }
        self.state().listening.set(self.listening.count() as u64);
    }

    /// Accepts a few connections from every socket on which some wait.
    fn accept_pending(&mut self) {
        let now = self.sessions.desk.now;
        if !self.listening.has_pending(now) {
            return;
        }
        self.listening.resume(now);
        let mut turn = 0;
        while let Some(position) = self.listening.pending_at(turn) {
            if self.accept_batch(position).is_err() {
                self.listening.paused_until = Some(now.after(PAUSE));
                return;
            }
            // One whose queue is empty has left its place to the next.
            turn += usize::from(self.listening.pending_at(turn) == Some(position));
        }
    }

    fn accept_batch(&mut self, position: usize) -> Result<(), ()> {
        let Some(listener) = self.listening.listener(position) else { return Ok(()) };
        for _ in 0..ACCEPTS_PER_TURN {
            match self.accept_one(position, &listener) {
                AcceptOutcome::GoesOn => {}
                AcceptOutcome::Empty => {
                    self.listening.is_drained(position);
                    return Ok(());
                }
                AcceptOutcome::Exhausted => return Err(()),
                AcceptOutcome::Fails => {
                    self.listening.rest(position, self.sessions.desk.now.after(PAUSE));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn accept_one(&mut self, position: usize, listener: &Arc<Listener>) -> AcceptOutcome {
        let desk = &mut self.sessions.desk;
        match self.listening.accept(position, &mut desk.kernel) {
            Accepted::Client(client_socket, client) => {
                desk.bans.follow();
                match arrive::judge(desk, listener, client) {
                    Ok(admitted) => {
                        let generation = desk.snapshot().generation;
                        let listener = Arc::clone(listener);
                        let arrival =
                            Arrival { listener, generation, client_socket, client, admitted };
                        self.place(arrival);
                    }
                    Err(refusal) => {
                        refuse::newcomer(desk, listener, client_socket, client, refusal);
                    }
                }
                AcceptOutcome::GoesOn
            }
            Accepted::Gone => AcceptOutcome::GoesOn,
            Accepted::Empty => AcceptOutcome::Empty,
            Accepted::Exhausted if make_room(desk) => AcceptOutcome::GoesOn,
            Accepted::Exhausted => self.shed(position, listener),
            Accepted::Failed => AcceptOutcome::Fails,
        }
    }

    /// Spends the descriptor held back to turn one client away.
    #[cold]
    fn shed(&mut self, position: usize, listener: &Arc<Listener>) -> AcceptOutcome {
        let desk = &mut self.sessions.desk;
        let shed = self.listening.shed(position, &mut desk.kernel);
        let Some((socket, client)) = shed else { return AcceptOutcome::Exhausted };
        listener.state.counters(desk.books.number).accepted.add(1);
        let refusal = Refusal::from(RefuseReason::Descriptors);
        refuse::newcomer(desk, listener, socket, client, refusal);
        self.listening.hold_back(&mut desk.kernel);
        AcceptOutcome::GoesOn
    }

    /// Begins a session that has its places, here or at a worker with clearly fewer.
    fn place(&mut self, arrival: Arrival<K>) {
        let own = self.sessions.table.len() as u64;
        match self.sessions.desk.handover.pass_on(arrival, own) {
            Some(arrival) => self.sessions.begin(arrival),
            None => self.state().handed_over.add(1),
        }
    }
}

/// The earlier of two moments that may not come.
fn earlier(one: Option<Tick>, other: Option<Tick>) -> Option<Tick> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
