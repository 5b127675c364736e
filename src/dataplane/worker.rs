//! The event loop of one thread.
//!
//! A turn: sleep until something happens, read the clock once, take up a newer snapshot and
//! commands, let events set latches, run the sessions that can move, then accept a few new ones,
//! then look at timers. Ready sessions come before new ones, so that a place that has just become
//! free is seen; whatever was cut short by a budget goes on in the next turn, without sleeping.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Receiver;
use mio::event::Event;
use mio::{Events, Poll, Waker};

use crate::policy::pace::spin::Spin;
use crate::shared::{CloseReason, Direction, PathKind, Snapshot, Subscriber};

use super::choose::Chooser;
use super::clock::{Clock, Tick};
use super::connection::Connection;
use super::downs::Downs;
use super::held::Held;
use super::linux::pipes::PipePool;
use super::listening::{Bound, Listening};
use super::phase::Stage;
use super::queue::Bell;
use super::slots::{Addressed, SlotKey, Slots};
use super::spread::Spread;
use super::stream::pacing::{Allowances, Spent};
use super::stream::{End, News, Readiness, Reset, Standing};
use super::symptoms;
use super::timers::Timers;
use super::{Command, WorkerSetup};

/// Events taken from the kernel in one turn.
const EVENTS_PER_TURN: usize = 256;
/// The buffer through which small messages are copied.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Connections, with what is due to happen to them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) slots: Slots<Connection>,
    pub(super) timers: Timers,
    pub(super) ready: VecDeque<SlotKey>,
    pub(super) opened: u64,
}

/// What moves bytes.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) scratch: Box<[u8]>,
    pub(super) pipes: PipePool,
}

/// One data-plane thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) setup: Setup,
    pub(super) poll: Poll,
    waker: Arc<Waker>,
    commands: Receiver<Command>,
    pub(super) snapshot: Subscriber,
    pub(super) listening: Listening,
    pub(super) table: Table,
    /// Refused connections that are held; nothing until there is one.
    pub(super) held: Option<Box<Held>>,
    pub(super) tools: Tools,
    pub(super) chooser: Chooser,
    pub(super) spread: Spread,
    spin: Spin,
    pub(super) downs: Downs,
    /// By which others tell of a place for a client of this worker.
    pub(super) bell: Arc<Bell>,
    pub(super) now: Tick,
    /// Somebody has sent a command, perhaps.
    woken: bool,
    /// All sessions were reset for good: whoever is still handed over comes too late.
    over: bool,
}

/// What a worker was given at its start and never changes.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) number: usize,
    pub(super) workers: u64,
    cpu: Option<usize>,
    clock: Clock,
    pub(super) ephemeral_ports: (u16, u16),
    pub(super) state: Arc<crate::shared::WorkerState>,
    pub(super) log: crate::shared::SessionLog,
}

impl Worker {
    pub(super) fn new(setup: WorkerSetup, commands: Receiver<Command>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Addressed::Waker.token())?);
        let bell = Arc::new(Bell::new(Arc::clone(&waker)));
        let clock = Clock::new(setup.start);
        let now = clock.now();
        Ok(Self {
            poll,
            waker,
            commands,
            snapshot: setup.snapshot,
            listening: Listening::new()?,
            table: Table {
                slots: Slots::new(),
                timers: Timers::new(now),
                ready: VecDeque::new(),
                opened: 0,
            },
            held: None,
            tools: Tools {
                scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
                pipes: PipePool::new(setup.pipes),
            },
            chooser: Chooser::new(setup.number),
            spread: Spread::default(),
            spin: Spin::new(setup.spin),
            downs: Downs::default(),
            bell,
            now,
            woken: true,
            over: false,
            setup: Setup {
                number: setup.number,
                workers: setup.workers as u64,
                cpu: setup.cpu,
                clock,
                ephemeral_ports: crate::sys::process::ephemeral_ports(),
                state: setup.state,
                log: setup.log,
            },
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) {
        if let Some(cpu) = self.setup.cpu {
            // The CPU was usable at start; if it has gone since, running anywhere is right.
            let _runs_anywhere = crate::sys::process::pin_thread(cpu);
        }
        self.setup.state.thread.set(crate::sys::process::thread_id());
        self.take_up_snapshot();
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut due = Vec::new();
        loop {
            self.sleep(&mut events);
            if self.snapshot.is_stale() {
                self.take_up_snapshot();
            }
            for event in &events {
                self.note(event);
            }
            self.run_ready();
            if self.held.is_some() {
                self.run_held();
            }
            self.accept_pending();
            self.check_timers(&mut due);
            if !self.downs.is_empty() {
                self.reset_doomed();
            }
            if std::mem::take(&mut self.woken) && self.wake_up().is_break() {
                return;
            }
            self.report();
        }
    }

    /// Waits for events, but not when work is left over.
    fn sleep(&mut self, events: &mut Events) {
        let timeout = self.patience();
        let waited = if self.spin.is_off() || timeout == Some(Duration::ZERO) {
            self.poll.poll(events, timeout)
        } else {
            self.spin_then_sleep(events)
        };
        if waited.is_err() {
            // EINTR leaves nothing to see; anything else would repeat and is no worse for it.
            events.clear();
        }
        self.now = self.setup.clock.now();
    }

    /// Looks for events without sleeping for as long as that is promising.
    fn spin_then_sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let clock = self.setup.clock;
        let from = clock.now();
        let until = from.after(self.spin.patience());
        self.now = from;
        let mut waited = Ok(());
        while waited.is_ok() && self.now < until {
            waited = self.poll.poll(events, Some(Duration::ZERO));
            self.now = clock.now();
            if !events.is_empty() {
                break;
            }
        }
        if waited.is_ok() && events.is_empty() {
            waited = self.poll.poll(events, self.patience());
        }
        self.spin.learn(clock.now().since(from));
        waited
    }

    /// How long the kernel may keep us: not at all while work is left over.
    fn patience(&self) -> Option<Duration> {
        if !self.table.ready.is_empty() || self.listening.has_pending(self.now) {
            return Some(Duration::ZERO);
        }
        let mut next = earlier(self.table.timers.next_due(), self.listening.resumes_at());
        if let Some(held) = &self.held {
            next = earlier(next, held.next_due());
        }
        if !self.downs.is_empty() {
            next = earlier(next, self.downs.next_due());
        }
        next.map(|next| next.since(self.now))
    }

    /// Lets an event set latches, and queues whom it concerns.
    fn note(&mut self, event: &Event) {
        match Addressed::of(event.token()) {
            Addressed::Waker => self.woken = true,
            Addressed::Listener(position) => self.listening.note(position),
            Addressed::Refusal(key) => self.held_event(key, event),
            Addressed::Connection(key, side) => {
                let Some(connection) = self.table.slots.get_mut(key) else { return };
                let readiness = readiness_of(event);
                let news = connection.stream.note(side, readiness);
                let is_opening = connection.phase.stage.is_opening();
                if news == News::OnlyMore && !is_opening {
                    return self.mute(key, side);
                }
                if !connection.queued {
                    connection.queued = true;
                    self.table.ready.push_back(key);
                }
                if is_opening {
                    self.opening_event(key, side, readiness);
                }
            }
        }
    }

    /// Runs every session that was ready when this turn began.
    fn run_ready(&mut self) {
        for _ in 0..self.table.ready.len() {
            let Some(key) = self.table.ready.pop_front() else { return };
            if let Some(connection) = self.table.slots.get_mut(key) {
                connection.queued = false;
                if !connection.phase.stage.is_opening() {
                    self.advance(key);
                }
            }
        }
    }

    /// Moves the bytes of one session and acts on how it stands.
    pub(super) fn advance(&mut self, key: SlotKey) {
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        let Some(backend) = &connection.backend else { return };
        let snapshot = self.snapshot.current();
        let was_half_closed = connection.stream.is_half_closed();
        let before = connection.stream.delivered();
        let granted = if snapshot.has_bandwidth {
            connection.allowances(snapshot, self.now)
        } else {
            Allowances::UNLIMITED
        };
        let (standing, left) = {
            let mut wire = super::stream::wire::KernelWire {
                client: &connection.client,
                backend,
                pipes: &mut self.tools.pipes,
            };
            let mut turn = super::stream::relay::Turn {
                wire: &mut wire,
                scratch: &mut self.tools.scratch,
                splice: snapshot.splice,
                is_last: false,
                allowances: granted,
            };
            (connection.stream.advance(&mut turn), turn.allowances)
        };
        let after = connection.stream.delivered();
        if before != after {
            connection.phase.active = self.now;
            count_bytes(snapshot, connection, self.setup.number, [before, after]);
            symptoms::delivered(snapshot, connection, before);
        }
        if snapshot.has_bandwidth {
            let spent = Spent { granted, left, more: connection.stream.has_more() };
            let waits = connection.pace(snapshot, &spent, self.now);
            if waits.contains(&true) {
                count_waits(snapshot, connection, self.setup.number, waits);
                self.table.timers.arm(key.index, connection.next_check(snapshot, self.now));
            }
        }
        let half_closed_now = connection.stream.is_half_closed() && !was_half_closed;
        if half_closed_now {
            // Whatever follows: with work left over, too, the shorter bound holds from here on.
            connection.phase.active = connection.phase.active.max(self.now);
            let check = connection.next_check(snapshot, self.now);
            self.table.timers.arm(key.index, check);
            symptoms::half_closed(snapshot, connection, self.now);
        }
        let goes_on = !matches!(standing, Standing::Over(_));
        if goes_on && connection.stream.is_muted() && self.unmute(key).is_err() {
            let end = End { reason: CloseReason::Internal, reset: Reset::Both };
            return self.end(key, end);
        }
        self.act_on(key, standing);
    }

    fn act_on(&mut self, key: SlotKey, standing: Standing) {
        let Some(connection) = self.table.slots.get_mut(key) else { return };
        match standing {
            Standing::Waiting => {}
            Standing::Busy if connection.queued => {}
            Standing::Busy => {
                connection.queued = true;
                self.table.ready.push_back(key);
            }
            Standing::Lingering => {
                connection.phase.stage = Stage::Lingering;
                self.rearm(key);
            }
            Standing::Over(end) => self.end(key, end),
        }
    }

    fn check_timers(&mut self, due: &mut Vec<u32>) {
        self.table.timers.expire(self.now, due);
        for slot in due.drain(..) {
            if let Some(key) = self.table.slots.key_at(slot) {
                self.timer_fired(key);
            }
        }
    }

    fn wake_up(&mut self) -> std::ops::ControlFlow<()> {
        if self.bell.has_rung() {
            self.serve_lines();
        }
        self.obey_commands()
    }

    fn obey_commands(&mut self) -> std::ops::ControlFlow<()> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Listen { address, listener, socket, is_shared } => {
                    if self.snapshot.is_stale() {
                        self.take_up_snapshot();
                    }
                    self.listen(Bound { address, socket, is_shared }, listener);
                }
                Command::Retune { address, options } => self.listening.retune(&address, &options),
                Command::Meet(peers) => self.spread.meet(peers),
                Command::Take(arrival) => {
                    if self.snapshot.is_stale() {
                        self.take_up_snapshot();
                    }
                    self.take(*arrival);
                    if self.over {
                        self.reset_all();
                    }
                }
                Command::StopListening => {
                    self.stop_listening();
                    self.hurry_held();
                }
                Command::ResetAll => {
                    self.over = true;
                    self.reset_all();
                }
                Command::BackendDown { backend, pace } => self.backend_down(backend, pace),
                Command::Exit => return std::ops::ControlFlow::Break(()),
            }
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Takes the newest snapshot; listeners that are gone are emptied under the old one first.
    pub(super) fn take_up_snapshot(&mut self) {
        let latest = self.snapshot.latest();
        self.close_gone_listeners(&latest);
        self.listening.take_up(&latest);
        let generation = latest.generation.0;
        drop(self.snapshot.take_up(latest));
        self.release_tarpits();
        self.setup.state.generation.store(generation, Ordering::Release);
    }

    fn report(&self) {
        let state = &self.setup.state;
        state.turns.add(1);
        state.pipes_in_use.set(self.tools.pipes.lent() as u64);
        state.sessions.set(self.table.slots.len() as u64);
    }
}

/// The earlier of two moments that may not come.
fn earlier(one: Option<Tick>, other: Option<Tick>) -> Option<Tick> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn readiness_of(event: &Event) -> Readiness {
    Readiness {
        readable: event.is_readable(),
        // A write after HUP fails at once, which is how the session learns of it.
        writable: event.is_writable() || event.is_write_closed(),
        read_closed: event.is_read_closed() && !event.is_error(),
        error: event.is_error(),
        urgent: event.is_priority(),
    }
}

fn count_bytes(
    snapshot: &Snapshot,
    connection: &Connection,
    worker: usize,
    [before, after]: [[(u64, u64); 2]; 2],
) {
    let Some(listener) = snapshot.listener(connection.place.listener) else { return };
    let counters = listener.state.counters(worker);
    let directions = Direction::ALL.into_iter().zip(before.into_iter().zip(after));
    for (direction, ((copied, spliced), (copied_now, spliced_now))) in directions {
        counters.bytes_moved(direction, PathKind::Copy).add(copied_now - copied);
        counters.bytes_moved(direction, PathKind::Splice).add(spliced_now - spliced);
    }
}

fn count_waits(snapshot: &Snapshot, connection: &Connection, worker: usize, waits: [bool; 2]) {
    let Some(listener) = snapshot.listener(connection.place.listener) else { return };
    let counters = listener.state.counters(worker);
    for (counter, waits) in counters.bandwidth_waits.iter().zip(waits) {
        counter.add(u64::from(waits));
    }
}
