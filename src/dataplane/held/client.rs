//! One refused client that is held: reading a request to answer it, sending the answer, closing
//! so that it arrives, or waiting.
//!
//! An answer is sent once the request's head has been read; then FIN, and what still comes is read
//! and thrown away, because closing a socket with unread bytes, or receiving more once it is
//! closed, sends a reset that takes the answer from the client (RFC 9112, section 9.6; RFC 2525,
//! section 2.17).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use crate::policy::admit::http_answer::{HttpAnswer, Moment};
use crate::policy::first_bytes::request_start::{Progress, RequestHead};
use crate::shared::{HeldOutcome, Limit, LimitAction, Listener, SessionRecord, Snapshot};

use crate::dataplane::clock::Tick;
use crate::dataplane::kernel::Kernel;

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

/// Bytes that a client that is kept waiting may send before its own kernel stops it; the smallest
/// buffer that the kernel gives.
const TARPIT_BUFFER_BYTES: usize = 2048;

/// The purpose of holding a refused connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stay {
    /// To be answered once it has asked.
    Ask(HttpAnswer),
    /// To be sent the listener's bytes at once.
    Say,
    /// To wait.
    Tarpit,
}

/// How far a held connection has come.
#[derive(Debug)]
enum HeldStage {
    Asking(RequestHead, HttpAnswer),
    Answering {
        text: Arc<[u8]>,
        sent: usize,
    },
    /// FIN is sent, what still comes is thrown away, and this is what will have come of it.
    Closing(Discard, HeldOutcome),
    Waiting,
}

/// How much of what is thrown away is still read.
#[derive(Debug, Clone, Copy)]
struct Discard {
    bytes_left: usize,
    until: Tick,
}

impl Discard {
    fn from(now: Tick) -> Self {
        Self { bytes_left: DISCARD_BYTES_MAX, until: now.after(LINGER_TIME_MAX) }
    }

    /// This many bytes have come: when silence from now on ends it, or `None` when it is enough.
    fn takes(&mut self, count: usize, now: Tick) -> Option<Tick> {
        self.bytes_left = self.bytes_left.saturating_sub(count);
        let goes_on = self.bytes_left > 0 && now < self.until;
        goes_on.then(|| self.until.min(now.after(LINGER_TIME)))
    }
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for the next event.
    Wait,
    /// Another step can be done at once.
    Next,
    /// Another step can be done, in the next turn.
    Later,
    /// It is over, and whether by a reset.
    Over(HeldOutcome, bool),
}

/// One held client.
#[derive(Debug)]
pub(crate) struct HeldClient<K: Kernel> {
    pub(super) socket: K::Socket,
    pub(super) listener: Arc<Listener>,
    stage: HeldStage,
    /// To be logged at its end.
    pub(super) record: Option<Box<SessionRecord>>,
    /// Bytes of the answer that were sent.
    pub(super) sent: u64,
    pub(super) since: Tick,
    pub(super) deadline: Tick,
    pub(super) queued: bool,
}

impl<K: Kernel> HeldClient<K> {
    pub(crate) fn new(socket: K::Socket, listener: Arc<Listener>, stay: Stay, now: Tick) -> Self {
        let (stage, time) = match stay {
            Stay::Ask(answer) => (HeldStage::Asking(RequestHead::default(), answer), HEAD_TIME),
            Stay::Say => {
                let text = listener.refusal.bytes.clone().unwrap_or_default();
                (HeldStage::Answering { text, sent: 0 }, LINGER_TIME)
            }
            Stay::Tarpit => (HeldStage::Waiting, TARPIT_TIME),
        };
        let deadline = now.after(time);
        Self { socket, listener, stage, record: None, sent: 0, since: now, deadline, queued: false }
    }

    /// With what is to be logged at its end.
    pub(crate) fn with_record(self, record: Option<SessionRecord>) -> Self {
        Self { record: record.map(Box::new), ..self }
    }

    /// Whether it is here to wait.
    pub(super) fn is_tarpitted(&self) -> bool {
        matches!(self.stage, HeldStage::Waiting)
    }

    /// Whether its request has not come yet.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.stage, HeldStage::Asking(..))
    }

    /// Begins, with what has been read already.
    pub(super) fn take_in(&mut self, kernel: &mut K, early: &[u8]) {
        match &mut self.stage {
            HeldStage::Asking(head, _) => {
                head.feed(early);
            }
            HeldStage::Answering { .. } | HeldStage::Closing(..) => {}
            HeldStage::Waiting => kernel.shrink_receive_buffer(&self.socket, TARPIT_BUFFER_BYTES),
        }
    }

    /// Goes on as far as it can.
    pub(super) fn advance(&mut self, kernel: &mut K, scratch: &mut [u8], now: Tick) -> Step {
        for _ in 0..READS_PER_TURN {
            match self.step(kernel, scratch, now) {
                Step::Next => {}
                other => return other,
            }
        }
        Step::Later
    }

    fn step(&mut self, kernel: &mut K, scratch: &mut [u8], now: Tick) -> Step {
        match &mut self.stage {
            HeldStage::Waiting => Step::Wait,
            HeldStage::Answering { .. } => self.send(kernel, now),
            HeldStage::Asking(head, _) => {
                match kernel.receive(&self.socket, scratch) {
                    Ok(0) => return self.finish(kernel, HeldOutcome::NotHttp, now),
                    Ok(count) => {
                        head.feed(scratch.get(..count).unwrap_or_default());
                    }
                    Err(error) => return waits(&error, HeldOutcome::Left),
                }
                self.head_came(kernel, now)
            }
            HeldStage::Closing(rest, outcome) => match kernel.receive(&self.socket, scratch) {
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

    /// Acts on what is known of the head; goes on at once where none is waited for.
    pub(super) fn head_came(&mut self, kernel: &mut K, now: Tick) -> Step {
        let HeldStage::Asking(head, answer) = &self.stage else { return Step::Next };
        match head.progress() {
            Progress::More => Step::Next,
            Progress::Complete => self.answer(kernel, *answer, now),
            Progress::NotHttp if matches!(answer, HttpAnswer::Unavailable) => {
                Step::Over(HeldOutcome::NotHttp, true)
            }
            Progress::NotHttp => self.finish(kernel, HeldOutcome::NotHttp, now),
        }
    }

    fn answer(&mut self, kernel: &K, answer: HttpAnswer, now: Tick) -> Step {
        let head_only = matches!(&self.stage, HeldStage::Asking(head, _) if head.is_for_head());
        let waited_us = u64::try_from(now.since(self.since).as_micros()).unwrap_or(u64::MAX);
        let unix = kernel.time_of_day().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        let at = Moment { waited_us, unix_us };
        let text = answer.text(head_only, at, &self.listener.refusal.headers);
        self.stage = HeldStage::Answering { text: text.into_bytes().into(), sent: 0 };
        // What was sent later than this has not been read in time.
        self.deadline = now.after(LINGER_TIME);
        Step::Next
    }

    fn send(&mut self, kernel: &mut K, now: Tick) -> Step {
        let HeldStage::Answering { text, sent } = &mut self.stage else { return Step::Wait };
        match kernel.send_last(&self.socket, text.get(*sent..).unwrap_or_default()) {
            Ok(count) => {
                *sent += count;
                self.sent += count as u64;
                if *sent < text.len() {
                    return Step::Next;
                }
                self.finish(kernel, HeldOutcome::Answered, now)
            }
            Err(error) => waits(&error, HeldOutcome::Left),
        }
    }

    /// Sends FIN; what still comes goes nowhere.
    fn finish(&mut self, kernel: &mut K, outcome: HeldOutcome, now: Tick) -> Step {
        if kernel.shutdown_write(&self.socket).is_err() {
            // It has been reset, with or without having read the answer.
            return Step::Over(outcome, true);
        }
        self.stage = HeldStage::Closing(Discard::from(now), outcome);
        self.deadline = now.after(LINGER_TIME);
        Step::Next
    }

    /// Its time is over.
    pub(super) fn time_over(&mut self, kernel: &mut K, now: Tick) -> Step {
        match &self.stage {
            HeldStage::Waiting => Step::Over(HeldOutcome::Tarpitted, true),
            HeldStage::Closing(_, outcome) => Step::Over(*outcome, false),
            HeldStage::Answering { .. } => Step::Over(HeldOutcome::Left, true),
            // A slow request is answered before its end, and then has little time left; a
            // connection made in advance is closed so that its client may make another one.
            HeldStage::Asking(head, answer) if head.has_method() => {
                self.answer(kernel, *answer, now)
            }
            HeldStage::Asking(..) => self.finish(kernel, HeldOutcome::NotHttp, now),
        }
    }

    /// Ends it, and says what came of it.
    pub(super) fn give_up(&self, kernel: &mut K) -> HeldOutcome {
        match self.stage {
            HeldStage::Closing(_, outcome) => outcome,
            _ => {
                kernel.reset_on_close(&self.socket);
                HeldOutcome::GivenUp
            }
        }
    }

    /// Whether a newer snapshot still has it wait.
    pub(super) fn is_to_wait(&self, snapshot: &Snapshot) -> bool {
        // Another listener may have the id by now.
        let is_own = |it: &&Arc<Listener>| Arc::ptr_eq(&it.state, &self.listener.state);
        let own = snapshot.listener(self.listener.id).filter(is_own);
        own.is_some_and(|own| {
            let tarpits = |limit: &Limit| limit.action == LimitAction::Tarpit;
            snapshot.is_open(own) && own.limits.iter().any(tarpits)
        })
    }
}

/// The step that follows an error of a read or a write.
fn waits(error: &io::Error, outcome: HeldOutcome) -> Step {
    match error.kind() {
        ErrorKind::WouldBlock => Step::Wait,
        ErrorKind::Interrupted => Step::Next,
        _ => Step::Over(outcome, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_keeps_sending_is_heard_for_longer_but_not_for_ever() {
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
