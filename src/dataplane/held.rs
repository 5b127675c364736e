//! Refused connections that are held for a while: to be answered in HTTP, or kept waiting.
//!
//! None of them is a session: they cost no backend, take no place of `max_sessions` and are no
//! business of the session loop. Their number, time and bytes are bounded; where descriptors run
//! out they go first. An answer is sent once the request's head has been read; then FIN, and what
//! still comes is read and thrown away, because closing a socket with unread bytes, or receiving
//! more once it is closed, sends a reset that takes the answer from the client (RFC 9112, section
//! 9.6; RFC 2525, section 2.17).

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;

use crate::policy::answerable::{Progress, RequestHead};
use crate::policy::http_answer::{HttpAnswer, Moment};
use crate::shared::{HeldOutcome, LimitAction, Listener, SessionRecord, Snapshot};
use crate::sys::socket;

use super::clock::Tick;
use super::slots::{Addressed, SlotKey, Slots};
use super::timers::Timers;
use super::worker::Worker;

/// Refusals that a worker holds at once to answer them.
const ANSWERS_MAX: u64 = 1024;
/// Refusals that a worker keeps waiting at once.
const TARPITS_MAX: u64 = 1024;
/// Neither of the two is more than this part of the sessions that there may be.
const SESSIONS_SHARE: u64 = 8;
/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(3);
/// How long a client may be silent before it closes, once it has been answered.
const LINGER_TIME: Duration = Duration::from_secs(3);
/// How long it may go on sending.
const LINGER_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes that are thrown away meanwhile.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Reads of one connection in one turn.
const READS_PER_TURN: usize = 8;
/// How long a client is kept waiting.
const TARPIT_TIME: Duration = Duration::from_secs(10);
/// What a client that is kept waiting may send before its own kernel stops it; the least there is.
const TARPIT_BUFFER_BYTES: usize = 2048;

/// What a refused connection is held for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stay {
    /// To be answered once it has asked.
    Ask(HttpAnswer),
    /// To wait.
    Tarpit,
}

/// How far a held connection has come.
#[derive(Debug)]
enum Stage {
    Asking(RequestHead, HttpAnswer),
    Answering {
        text: Box<[u8]>,
        sent: usize,
    },
    /// FIN is sent, what still comes is thrown away, and this is what will have come of it.
    Closing(Discard, HeldOutcome),
    Waiting,
}

/// How much of what nobody wants is still read.
#[derive(Debug, Clone, Copy)]
struct Discard {
    bytes_left: usize,
    until: Tick,
}

impl Discard {
    fn from(now: Tick) -> Self {
        Self { bytes_left: DISCARD_BYTES_MAX, until: now.after(LINGER_TIME_MAX) }
    }

    /// So many bytes have come: when silence from now on ends it, or `None` when it is enough.
    fn takes(&mut self, count: usize, now: Tick) -> Option<Tick> {
        self.bytes_left = self.bytes_left.saturating_sub(count);
        let goes_on = self.bytes_left > 0 && now < self.until;
        goes_on.then(|| self.until.min(now.after(LINGER_TIME)))
    }
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Wait for the next event.
    Wait,
    /// Another step can be done at once.
    Next,
    /// Another step can be done, in the next turn.
    Later,
    /// It is over, and whether by a reset.
    Over(HeldOutcome, bool),
}

/// One held connection.
#[derive(Debug)]
pub(super) struct Guest {
    client: OwnedFd,
    pub(super) listener: Arc<Listener>,
    stage: Stage,
    /// To be logged at its end.
    pub(super) record: Option<Box<SessionRecord>>,
    /// Bytes of the answer that were sent.
    pub(super) sent: u64,
    pub(super) since: Tick,
    deadline: Tick,
    queued: bool,
}

impl Guest {
    pub(super) fn new(
        (client, listener): (OwnedFd, Arc<Listener>),
        stay: Stay,
        record: Option<SessionRecord>,
        now: Tick,
    ) -> Self {
        let (stage, time) = match stay {
            Stay::Ask(answer) => (Stage::Asking(RequestHead::default(), answer), HEAD_TIME),
            Stay::Tarpit => (Stage::Waiting, TARPIT_TIME),
        };
        let record = record.map(Box::new);
        let deadline = now.after(time);
        Self { client, listener, stage, record, sent: 0, since: now, deadline, queued: false }
    }

    /// Whether it is here to wait.
    pub(super) fn is_tarpitted(&self) -> bool {
        matches!(self.stage, Stage::Waiting)
    }

    /// Goes on as far as it can.
    fn advance(&mut self, scratch: &mut [u8], now: Tick) -> Step {
        for _ in 0..READS_PER_TURN {
            match self.step(scratch, now) {
                Step::Next => {}
                other => return other,
            }
        }
        Step::Later
    }

    fn step(&mut self, scratch: &mut [u8], now: Tick) -> Step {
        match &mut self.stage {
            Stage::Waiting => Step::Wait,
            Stage::Answering { .. } => self.send(now),
            Stage::Asking(head, _) => {
                match socket::receive(self.client.as_fd(), scratch) {
                    Ok(0) => return self.close(HeldOutcome::NotHttp, now),
                    Ok(count) => {
                        head.feed(scratch.get(..count).unwrap_or_default());
                    }
                    Err(error) => return waits(&error, HeldOutcome::Left),
                }
                self.head_came(now)
            }
            Stage::Closing(rest, outcome) => match socket::receive(self.client.as_fd(), scratch) {
                Ok(0) => Step::Over(*outcome, false),
                Ok(count) => match rest.takes(count, now) {
                    Some(deadline) => {
                        self.deadline = deadline;
                        Step::Next
                    }
                    None => Step::Over(*outcome, false),
                },
                Err(error) => waits(&error, *outcome),
            },
        }
    }

    /// Acts on what is known of the head.
    fn head_came(&mut self, now: Tick) -> Step {
        let Stage::Asking(head, answer) = &self.stage else { return Step::Wait };
        match head.progress() {
            Progress::More => Step::Next,
            Progress::Complete => self.answer(*answer, head.is_for_head(), now),
            Progress::NotHttp if matches!(answer, HttpAnswer::Unavailable) => {
                Step::Over(HeldOutcome::NotHttp, true)
            }
            Progress::NotHttp => self.close(HeldOutcome::NotHttp, now),
        }
    }

    fn answer(&mut self, answer: HttpAnswer, head_only: bool, now: Tick) -> Step {
        let waited_us = u64::try_from(now.since(self.since).as_micros()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        let text = answer.text(head_only, Moment { waited_us, unix_us });
        self.stage = Stage::Answering { text: text.into_bytes().into(), sent: 0 };
        // What was sent later than this has not been read in time.
        self.deadline = now.after(LINGER_TIME);
        Step::Next
    }

    fn send(&mut self, now: Tick) -> Step {
        let Stage::Answering { text, sent } = &mut self.stage else { return Step::Wait };
        match socket::send(self.client.as_fd(), text.get(*sent..).unwrap_or_default()) {
            Ok(count) => {
                *sent += count;
                self.sent += count as u64;
                if *sent < text.len() {
                    return Step::Next;
                }
                self.close(HeldOutcome::Answered, now)
            }
            Err(error) => waits(&error, HeldOutcome::Left),
        }
    }

    /// Sends FIN; what still comes goes nowhere.
    fn close(&mut self, outcome: HeldOutcome, now: Tick) -> Step {
        if socket::shutdown_write(self.client.as_fd()).is_err() {
            // It has been reset, with or without having read the answer.
            return Step::Over(outcome, true);
        }
        self.stage = Stage::Closing(Discard::from(now), outcome);
        self.deadline = now.after(LINGER_TIME);
        Step::Next
    }

    /// Its time is over.
    fn time_over(&mut self, now: Tick) -> Step {
        match &self.stage {
            Stage::Waiting => Step::Over(HeldOutcome::Tarpitted, true),
            Stage::Closing(_, outcome) => Step::Over(*outcome, false),
            Stage::Answering { .. } => Step::Over(HeldOutcome::Left, true),
            // A slow request is answered before its end, and then has little time left; a
            // connection made in advance is closed so that its client may make another one.
            Stage::Asking(head, answer) if head.has_method() => {
                self.answer(*answer, head.is_for_head(), now)
            }
            Stage::Asking(..) => self.close(HeldOutcome::NotHttp, now),
        }
    }

    /// Ends it, and says what came of it.
    fn give_up(&self) -> HeldOutcome {
        match self.stage {
            Stage::Closing(_, outcome) => outcome,
            _ => {
                socket::reset_on_close(self.client.as_fd());
                HeldOutcome::GivenUp
            }
        }
    }

    /// Whether a newer snapshot still has it wait.
    fn is_to_wait(&self, snapshot: &Snapshot) -> bool {
        let tarpits = |listener: &Arc<Listener>| {
            Arc::ptr_eq(&listener.state, &self.listener.state)
                && listener.limit.as_ref().is_some_and(|it| it.action == LimitAction::Tarpit)
        };
        snapshot.open_listeners().any(tarpits)
    }
}

/// What an error of a read or a write means.
fn waits(error: &io::Error, outcome: HeldOutcome) -> Step {
    match error.kind() {
        ErrorKind::WouldBlock => Step::Wait,
        ErrorKind::Interrupted => Step::Next,
        _ => Step::Over(outcome, true),
    }
}

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
        match &mut guest.stage {
            Stage::Asking(head, _) => {
                head.feed(early);
            }
            _ => socket::shrink_receive_buffer(guest.client.as_fd(), TARPIT_BUFFER_BYTES),
        }
        let raw = guest.client.as_raw_fd();
        let deadline = guest.deadline;
        let key = match held.guests.insert(guest) {
            Ok(key) => key,
            Err(guest) => return self.part(guest, HeldOutcome::NoRoom),
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
            if matches!(guest.stage, Stage::Asking(..)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_sending_is_heard_for_longer_but_not_for_ever() {
        // If this fails, a slow upload ends in a reset, or keeps a place as long as it likes.
        let start = Tick::from_micros(5_000_000);
        let mut rest = Discard::from(start);
        let mut now = start;
        let mut heard = Duration::ZERO;
        while let Some(deadline) = rest.takes(1000, now) {
            assert!(deadline > now && deadline.since(now) <= LINGER_TIME);
            heard = now.since(start);
            now = now.after(Duration::from_millis(250));
        }
        assert!(heard > LINGER_TIME && heard < LINGER_TIME_MAX, "{heard:?}");
        let mut rest = Discard::from(start);
        assert!(rest.takes(DISCARD_BYTES_MAX - 1, start).is_some());
        assert!(rest.takes(1, start).is_none());
    }
}
