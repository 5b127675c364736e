//! Refused connections that are held for a while: to be answered in HTTP, or kept waiting.
//!
//! None of them is a session: they cost no backend, take no place of `max_sessions` and are no
//! business of the session loop. Their number, time and bytes are bounded; where descriptors run
//! out they go first. What one of them does is in [`super::guest`].

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};

use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;

use crate::shared::HeldOutcome;
use crate::sys::socket;

use super::clock::Tick;
use super::guest::{Guest, Step};
use super::slots::{Addressed, SlotKey, Slots};
use super::timers::Timers;
use super::worker::Worker;

/// Refusals that a worker holds at once to answer them.
const ANSWERS_MAX: u64 = 1024;
/// Refusals that a worker keeps waiting at once.
const TARPITS_MAX: u64 = 1024;
/// Neither of the two is more than this part of the sessions that there may be.
const SESSIONS_SHARE: u64 = 8;

/// All that one worker holds.
#[derive(Debug)]
pub(super) struct Held {
    guests: Slots<Guest>,
    timers: Timers,
    ready: VecDeque<SlotKey>,
    tarpits: u64,
}

impl Held {
    fn new(now: Tick) -> Self {
        let timers = Timers::new(now);
        Self { guests: Slots::new(), timers, ready: VecDeque::new(), tarpits: 0 }
    }

    /// When there is something to do; at once is zero.
    pub(super) fn next_due(&self) -> Option<Tick> {
        if self.ready.is_empty() { self.timers.next_due() } else { Some(Tick::default()) }
    }

    fn queue(&mut self, key: SlotKey) {
        if let Some(guest) = self.guests.get_mut(key)
            && !std::mem::replace(&mut guest.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    fn has_room(&self, is_tarpit: bool, share: u64) -> bool {
        let answers = self.guests.len() as u64 - self.tarpits;
        let (held, most) =
            if is_tarpit { (self.tarpits, TARPITS_MAX) } else { (answers, ANSWERS_MAX) };
        held < most.min(share).max(1)
    }
}

impl Worker {
    /// Holds a refused connection, of which these bytes have been read already.
    #[cold]
    pub(super) fn hold(&mut self, mut guest: Guest, early: &[u8]) {
        let share = self.snapshot.current().sessions_max / SESSIONS_SHARE / self.setup.workers;
        let now = self.now;
        let held = self.held.get_or_insert_with(|| Box::new(Held::new(now)));
        let is_tarpit = guest.is_tarpitted();
        if !held.has_room(is_tarpit, share) {
            socket::reset_on_close(guest.client.as_fd());
            return self.part(guest, HeldOutcome::NoRoom);
        }
        guest.take_in(early);
        let raw = guest.client.as_raw_fd();
        let deadline = guest.deadline;
        let key = match held.guests.insert(guest) {
            Ok(key) => key,
            Err(guest) => {
                socket::reset_on_close(guest.client.as_fd());
                return self.part(guest, HeldOutcome::NoRoom);
            }
        };
        held.tarpits += u64::from(is_tarpit);
        held.timers.arm(key.index, deadline);
        let registry = self.poll.registry();
        let (token, interest) =
            (Addressed::Refusal(key).token(), Interest::READABLE | Interest::WRITABLE);
        let mut source = SourceFd(&raw);
        let registered = match registry.register(&mut source, token, interest) {
            // It was that of a session before.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                registry.reregister(&mut source, token, interest)
            }
            registered => registered,
        };
        self.report_held();
        if registered.is_err() {
            return self.act(key, Step::Over(HeldOutcome::GivenUp, true));
        }
        let Some(guest) = self.guest(key) else { return };
        let first = if is_tarpit { Step::Wait } else { guest.head_came(now) };
        if first == Step::Next { self.run_guest(key) } else { self.act(key, first) }
    }

    fn guest(&mut self, key: SlotKey) -> Option<&mut Guest> {
        self.held.as_mut()?.guests.get_mut(key)
    }

    /// Something happened to a held connection.
    #[cold]
    pub(super) fn held_event(&mut self, key: SlotKey, event: &Event) {
        let Some(guest) = self.guest(key) else { return };
        if !guest.is_tarpitted() {
            if let Some(held) = &mut self.held {
                held.queue(key);
            }
        } else if event.is_error() || event.is_read_closed() {
            // What it sends is not read, but when it leaves its place is free.
            self.act(key, Step::Over(HeldOutcome::Left, true));
        }
    }

    /// Runs what was ready when this turn began, then looks at timers.
    #[cold]
    pub(super) fn run_held(&mut self) {
        let count = self.held.as_ref().map_or(0, |held| held.ready.len());
        for _ in 0..count {
            let Some(key) = self.held.as_mut().and_then(|held| held.ready.pop_front()) else {
                break;
            };
            if let Some(guest) = self.guest(key) {
                guest.queued = false;
                self.run_guest(key);
            }
        }
        let now = self.now;
        let mut due = Vec::new();
        let Some(held) = &mut self.held else { return };
        held.timers.expire(now, &mut due);
        for slot in due {
            self.held_timer(slot);
        }
    }

    fn held_timer(&mut self, slot: u32) {
        let now = self.now;
        let Some(held) = &mut self.held else { return };
        let Some(key) = held.guests.key_at(slot) else { return };
        let Some(guest) = held.guests.get_mut(key) else { return };
        if guest.deadline > now {
            let deadline = guest.deadline;
            return held.timers.arm(slot, deadline);
        }
        let step = guest.time_over(now);
        self.act(key, step);
    }

    fn run_guest(&mut self, key: SlotKey) {
        let now = self.now;
        let Some(guest) = self.held.as_mut().and_then(|held| held.guests.get_mut(key)) else {
            return;
        };
        let step = guest.advance(&mut self.tools.scratch, now);
        self.act(key, step);
    }

    /// Does what a step has come to.
    fn act(&mut self, key: SlotKey, step: Step) {
        let Some(held) = &mut self.held else { return };
        match step {
            Step::Over(outcome, reset) => {
                held.timers.cancel(key.index);
                let Some(guest) = held.guests.remove(key) else { return };
                held.tarpits -= u64::from(guest.is_tarpitted());
                if reset {
                    socket::reset_on_close(guest.client.as_fd());
                }
                self.part(guest, outcome);
                self.report_held();
            }
            Step::Next | Step::Later => {
                self.rearm_held(key);
                if let Some(held) = &mut self.held {
                    held.queue(key);
                }
            }
            Step::Wait => self.rearm_held(key),
        }
    }

    fn rearm_held(&mut self, key: SlotKey) {
        let Some(held) = &mut self.held else { return };
        if let Some(guest) = held.guests.get(key) {
            held.timers.arm(key.index, guest.deadline);
        }
    }

    /// Gives up the held connections that satisfy a condition; how many that were.
    fn give_up_held(&mut self, wanted: impl Fn(&Guest) -> bool) -> usize {
        let Some(held) = &self.held else { return 0 };
        let is_wanted = |key: &SlotKey| held.guests.get(*key).is_some_and(&wanted);
        let keys: Vec<SlotKey> = held.guests.keys().into_iter().filter(is_wanted).collect();
        for key in &keys {
            if let Some(guest) = self.guest(*key) {
                let outcome = guest.give_up();
                self.act(*key, Step::Over(outcome, false));
            }
        }
        keys.len()
    }

    /// Ends what waits for a listener that is gone, or does not keep anybody waiting any more.
    pub(super) fn release_tarpits(&mut self) {
        if self.held.as_ref().is_some_and(|held| held.tarpits > 0) {
            let latest = self.snapshot.latest();
            self.give_up_held(|guest| guest.is_tarpitted() && !guest.is_to_wait(&latest));
        }
    }

    /// The process stops: nobody is kept waiting, and who has not asked yet is closed or answered.
    pub(super) fn hurry_held(&mut self) {
        self.give_up_held(Guest::is_tarpitted);
        let now = self.now;
        let keys = self.held.as_ref().map(|held| held.guests.keys()).unwrap_or_default();
        for key in keys {
            let Some(guest) = self.guest(key) else { continue };
            if guest.is_asking() {
                let step = guest.time_over(now);
                self.act(key, step);
            }
        }
    }

    /// Ends them all.
    pub(super) fn end_held(&mut self) {
        self.give_up_held(|_| true);
    }

    /// Makes descriptors free: by who is kept waiting, else by who is still to be answered. False
    /// when nobody is.
    #[cold]
    pub(super) fn held_give_way(&mut self) -> bool {
        self.give_up_held(Guest::is_tarpitted) > 0 || self.give_up_held(|_| true) > 0
    }

    fn report_held(&self) {
        let count = self.held.as_ref().map_or(0, |held| held.guests.len());
        self.setup.state.refusals_held.set(count as u64);
    }
}
