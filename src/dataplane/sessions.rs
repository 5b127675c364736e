//! All sessions of a worker, and the one place that acts on what a chapter of their lives answers.

use std::sync::Arc;

use mio::Token;

use crate::policy::admit::limiter::OpenSessions;
use crate::shared::{
    Callable, CloseReason, ConnectFailure, Listener, Pool, RefuseReason, Snapshot,
};

use super::bell::Bell;
use super::clock::Tick;
use super::command::Arrival;
use super::desk::Desk;
use super::kernel::Kernel;
use super::life::next::{Next, Refusal};
use super::life::{admission, arrive, connect, cut, end, greet, line, moving, read, refuse};
use super::make_room::ask_again;
use super::ready_queue::Weight;
use super::session::stage::{Due, Stage};
use super::session::{Place, Session, Times};
use super::slots::{Addressed, SlotKey, Slots};
use super::stream::wire::Side;
use super::stream::{End, News, Readiness, Reset, Stream};

/// The sessions of one worker, with the desk at which their lives are decided.
#[derive(Debug)]
pub(super) struct Sessions<K: Kernel> {
    pub(super) table: Slots<Session<K>>,
    pub(super) desk: Desk<K>,
}

impl<K: Kernel> Sessions<K> {
    /// Acts on what comes next for a session, until it waits or is over.
    #[inline]
    pub(super) fn act(&mut self, key: SlotKey, mut next: Next) {
        loop {
            let Some(session) = self.table.get_mut(key) else { return };
            let desk = &mut self.desk;
            next = match next {
                Next::Wait => return,
                Next::Rearm => return desk.arm(session),
                Next::Again => return desk.queue(session),
                Next::Read if !is_heard(session, desk) => NO_DESCRIPTOR,
                Next::Read => read::go_on(session, desk),
                Next::Connect => connect::first(session, desk),
                Next::Retry(failure) => connect::retry(session, desk, failure),
                Next::Watch if is_watched(session, desk) => Next::Rearm,
                Next::Watch => NO_DESCRIPTOR,
                Next::LineUp if !is_heard(session, desk) => NO_DESCRIPTOR,
                Next::LineUp => line::join(session, desk),
                Next::TryLine => return self.try_line(key),
                Next::Rest if !is_heard(session, desk) => NO_DESCRIPTOR,
                Next::Rest => line::rest(session, desk),
                Next::Greet => greet::go_on(session, desk),
                Next::Move => moving::begin(session, desk),
                Next::Refuse(reason) => return self.refuse(key, reason.into()),
                Next::RefuseOver(refusal) => return self.refuse(key, *refusal),
                Next::End(end) => {
                    desk.timers.cancel(key.index);
                    let Some(session) = self.table.remove(key) else { return };
                    return end::end(session, desk, end);
                }
            };
        }
    }

    #[cold]
    fn refuse(&mut self, key: SlotKey, refusal: Refusal) {
        self.desk.timers.cancel(key.index);
        if let Some(session) = self.table.remove(key) {
            refuse::session(session, &mut self.desk, refusal);
        }
    }

    /// Begins the session of a client that has its places.
    pub(super) fn begin(&mut self, arrival: Arrival<K>) {
        let Arrival { listener, generation, client_socket, client, admitted } = arrival;
        let snapshot = self.desk.snapshot.current();
        let mut stream = Stream::new(snapshot.splice);
        if client == crate::policy::client::Client::Unix {
            stream.expect_parts(Side::Client);
        }
        let is_admitted = admitted.is_some();
        let admitted = admitted.unwrap_or_default();
        let now = self.desk.now;
        let place = Place {
            number: self.desk.books.next_number(),
            listener: listener.id,
            pool: listener.pool,
            backend: None,
            pick: crate::shared::Pick::default(),
            generation,
            counted: admitted.counted,
        };
        let inserted = self.table.insert(Session {
            stream,
            client_socket,
            backend_socket: None,
            stage: Stage::connecting(now),
            client,
            place,
            times: Times { opened: now, connected: None, waited_ms: None },
            particulars: admitted.particulars,
            key: SlotKey::NONE,
            queued: false,
            weight: Weight::Light,
            is_watched: false,
            stays: false,
        });
        match inserted {
            Ok(key) => self.open(key, &listener, is_admitted),
            Err(session) => {
                refuse::session(session, &mut self.desk, RefuseReason::MaxSessions.into());
            }
        }
        // Others compare with this number before the turn is over.
        self.desk.books.state.sessions.set(self.table.len() as u64);
    }

    /// Goes on with a session that was parked: it is registered for everything, and runs, since
    /// what its latches say may have been told elsewhere.
    #[cold]
    pub(super) fn resume(&mut self, mut session: Session<K>) {
        session.stream.registered_anew();
        (session.is_watched, session.queued) = (false, false);
        match self.table.insert(session) {
            Ok(key) => {
                let Some(session) = self.table.get_mut(key) else { return };
                session.key = key;
                if !is_watched(session, &mut self.desk) {
                    return self.break_off(key);
                }
                // It runs in any case: what it has waited for long enough is no deadline any more.
                session.resume(self.desk.now);
                self.desk.queue(session);
                self.act(key, Next::Rearm);
            }
            Err(session) => end::end(session, &mut self.desk, BROKEN_OFF),
        }
    }

    /// Ends a session that this process cannot go on with.
    #[cold]
    pub(super) fn break_off(&mut self, key: SlotKey) {
        self.act(key, Next::End(BROKEN_OFF));
    }

    /// Counts its sessions against their clients' limits, where they are counted elsewhere or not
    /// at all: a reload has added a limit, made its table larger, or changed what one client is.
    #[cold]
    pub(super) fn recount(&mut self) {
        let snapshot = self.desk.snapshot.current();
        for key in self.table.keys() {
            let Some(session) = self.table.get_mut(key) else { continue };
            if !session.stage.knows_its_client() {
                continue;
            }
            let (listener, client) = (session.place.listener, session.client);
            let is_in = |table: &Arc<OpenSessions>| session.is_counted_in(table);
            if let Some(anew) = admission::recount(is_in, listener, client, snapshot) {
                session.take_counts(anew);
            }
        }
    }

    /// Recounts a client that another worker has let in under its own snapshot.
    pub(super) fn recount_arrival(&self, arrival: &mut Arrival<K>) {
        let snapshot = self.desk.snapshot.current();
        let Some(admitted) = &mut arrival.admitted else { return };
        let (listener, client) = (arrival.listener.id, arrival.client);
        let is_in = |table: &Arc<OpenSessions>| admitted.is_counted_in(table);
        if let Some(anew) = admission::recount(is_in, listener, client, snapshot) {
            let observed = admitted.particulars.take().and_then(|its| its.observed);
            *admitted = anew;
            if observed.is_some() {
                admitted.particulars.get_or_insert_default().observed = observed;
            }
        }
    }

    fn open(&mut self, key: SlotKey, listener: &Listener, is_admitted: bool) {
        let Some(session) = self.table.get_mut(key) else { return };
        session.key = key;
        let next = arrive::begin(session, &self.desk, listener, is_admitted);
        self.act(key, next);
    }

    /// Lets an event set latches; a session that moves no bytes yet acts on it at once.
    pub(super) fn note(&mut self, key: SlotKey, side: Side, readiness: Readiness) {
        let Some(session) = self.table.get_mut(key) else { return };
        let news = session.stream.note(side, readiness);
        let is_opening = session.stage.is_opening();
        if news == News::OnlyMore && !is_opening {
            return moving::mute(session, &mut self.desk, side);
        }
        self.desk.queue(session);
        if is_opening {
            let next = opening_event(session, &mut self.desk, side, readiness);
            self.act(key, next);
        }
    }

    /// Runs the light sessions that can move.
    pub(super) fn run_light(&mut self) {
        for _ in 0..self.desk.ready.begin_light() {
            let Some(key) = self.desk.ready.next_light() else { return };
            self.run(key);
        }
    }

    /// Runs bulk sessions that can move, as many as the turn has room for.
    #[inline(never)]
    pub(super) fn run_bulk(&mut self) {
        for _ in 0..self.desk.ready.begin_bulk() {
            let Some(key) = self.desk.ready.next_bulk() else { return };
            self.run(key);
        }
    }

    #[inline]
    fn run(&mut self, key: SlotKey) {
        let Some(session) = self.table.get_mut(key) else { return };
        session.queued = false;
        if !session.stage.has_stream() {
            return;
        }
        let next = moving::advance(session, &mut self.desk);
        if next != Next::Wait {
            self.act(key, next);
        }
    }

    /// Looks at every session whose timer has come due.
    pub(super) fn check_timers(&mut self, due: &mut Vec<u32>) {
        self.desk.timers.expire(self.desk.now, due);
        for slot in due.drain(..) {
            if let Some(key) = self.table.key_at(slot) {
                self.timer_fired(key);
            }
        }
    }

    fn timer_fired(&mut self, key: SlotKey) {
        let now = self.desk.now;
        let Some(session) = self.table.get_mut(key) else { return };
        let desk = &mut self.desk;
        if session.resume(now) && session.stage.has_stream() {
            desk.queue(session);
        }
        let next = match session.due(desk.snapshot.current(), now) {
            Due::Later => Next::Rearm,
            Due::Unsaid => read::timed_out(session, desk),
            Due::TryAgain => connect::again(session, desk),
            Due::Retry => Next::Retry(ConnectFailure::Timeout),
            Due::Ask => line::look(session, desk),
            Due::NoPlace => Next::Refuse(RefuseReason::NoBackend),
            Due::Look => moving::advance(session, desk),
            Due::Flush => cut::flush(session, desk),
            Due::Silent => cut::silent(session, desk),
            Due::Aged(life) => cut::aged(session, desk, life),
            Due::Overdue => cut::cut(session, desk, CloseReason::Lifetime),
            Due::Keepalive => moving::keep_alive(session, desk),
        };
        self.act(key, next);
    }

    /// Ends a session, once the kernel has delivered what it holds.
    pub(super) fn cut(&mut self, key: SlotKey, reason: CloseReason) {
        let Some(session) = self.table.get_mut(key) else { return };
        let next = cut::cut(session, &mut self.desk, reason);
        self.act(key, next);
    }

    /// Whether the end of a session would cut nothing off; at `latest` it may.
    pub(super) fn is_at_rest(&mut self, key: SlotKey, latest: Tick) -> bool {
        let session = self.table.get(key);
        session.is_none_or(|session| cut::is_at_rest(session, &mut self.desk, latest))
    }

    /// Resets every session.
    pub(super) fn reset_all(&mut self) {
        for key in self.table.keys() {
            self.cut(key, CloseReason::Drain);
        }
    }

    /// Waits in the line; a session behind others is called when it is first.
    #[cold]
    fn try_line(&mut self, key: SlotKey) {
        let Some(session) = self.table.get_mut(key) else { return };
        self.desk.arm(session);
        let number = session.place.number;
        let pool = self.desk.snapshot().pool(session.place.pool).cloned();
        if let Some(pool) = pool
            && pool.state.line.first().is_some_and(|first| first.number == number)
        {
            self.serve_line(&pool);
        }
    }

    /// Offers places to those of this worker's sessions that are first in a line.
    #[cold]
    pub(super) fn serve_lines(&mut self) {
        let pools: Vec<Arc<Pool>> = self.desk.snapshot().pools.iter().flatten().cloned().collect();
        for pool in pools.iter().filter(|pool| !pool.state.line.is_empty()) {
            self.serve_line(pool);
        }
    }

    /// Offers places to the first in line for as long as those are this worker's and there are
    /// places; then it is for another worker to go on.
    fn serve_line(&mut self, pool: &Pool) {
        let mine: Arc<dyn Callable> = Arc::<Bell>::clone(&self.desk.bell);
        while let Some(first) = pool.state.line.first() {
            if !Arc::ptr_eq(&first.worker, &mine) {
                return first.worker.call();
            }
            let token = usize::try_from(first.token).map_or(Token(usize::MAX), Token);
            let found = match Addressed::of(token) {
                Addressed::Session(key, _) => self.offer_place(key, first.number),
                _ => None,
            };
            match found {
                Some(true) => {}
                Some(false) => return,
                // The session is gone.
                None => {
                    pool.state.line.leave(first.number, self.desk.now.micros());
                }
            }
        }
    }

    /// Looks for a backend for a session that is first in line: whether it has left the line by
    /// that, `None` when there is no such session.
    fn offer_place(&mut self, key: SlotKey, number: u64) -> Option<bool> {
        let session = self.table.get_mut(key)?;
        let Stage::Waiting { first, since } = session.stage else { return None };
        if session.place.number != number {
            return None;
        }
        let desk = &mut self.desk;
        let next = connect::attempt(session, desk);
        if next == Next::LineUp {
            session.stage = Stage::Waiting { first, since };
            return Some(false);
        }
        let pool = desk.snapshot().pool(session.place.pool).cloned();
        line::leave(session, desk, pool.as_ref(), since);
        self.act(key, next);
        Some(true)
    }

    /// Has those that wait in a line go where a newer snapshot says, in the order of the line.
    pub(super) fn follow(&mut self, old: &Snapshot) {
        if old.pools.iter().flatten().all(|pool| pool.state.line.is_empty()) {
            return;
        }
        let first_of = |key: &SlotKey| match self.table.get(*key)?.stage {
            Stage::Waiting { first, .. } => Some((first, *key)),
            _ => None,
        };
        let mut waiting: Vec<_> = self.table.keys().iter().filter_map(first_of).collect();
        waiting.sort_by_key(|(first, _)| *first);
        for (_, key) in waiting {
            let Some(session) = self.table.get_mut(key) else { continue };
            let next = line::follow(session, &self.desk, old);
            self.act(key, next);
        }
    }
}

/// The end of a session for a reason that lies in this process.
const BROKEN_OFF: End = End { reason: CloseReason::Internal, reset: Reset::Both };
/// The kernel has no room to tell of a socket.
const NO_DESCRIPTOR: Next = Next::Refuse(RefuseReason::Descriptors);

/// Starts to hear of the client, unless that is so already; false when the kernel refuses.
fn is_heard<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> bool {
    if !session.is_watched {
        let token = Addressed::Session(session.key, Side::Client).token();
        session.is_watched = is_registered(&session.client_socket, token, desk);
    }
    session.is_watched
}

/// Starts to hear of the client, and of the backend that is being connected.
fn is_watched<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> bool {
    let token = Addressed::Session(session.key, Side::Backend).token();
    is_heard(session, desk)
        && session.backend_socket.as_ref().is_none_or(|socket| is_registered(socket, token, desk))
}

/// Registers a socket; false when the kernel refuses although all has given way that may.
fn is_registered<K: Kernel>(socket: &K::Socket, token: Token, desk: &mut Desk<K>) -> bool {
    let first = desk.kernel.register(socket, token);
    let again = |error| ask_again(desk, error, |kernel| kernel.register(socket, token));
    first.or_else(again).is_ok()
}

/// Something happened to a session that moves no bytes yet.
fn opening_event<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    side: Side,
    readiness: Readiness,
) -> Next {
    match session.stage {
        Stage::Reading(_) => read::go_on(session, desk),
        Stage::Waiting { .. } | Stage::Resting { .. } => line::event(session, desk, readiness),
        Stage::Connecting { .. } => connect::event(session, desk, side, readiness),
        Stage::Greeting { .. } => greet::event(side, readiness.error),
        Stage::Moving(_) | Stage::Lingering(_) | Stage::Cut(_) => Next::Wait,
    }
}
