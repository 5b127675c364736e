//! Bytes move, until both sides have ended or something ends them.

use std::time::Duration;

use crate::dataplane::clock::micros;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::Stage;
use crate::dataplane::slots::Addressed;
use crate::dataplane::stream::pacing::{Allowances, Spent};
use crate::dataplane::stream::relay::Turn;
use crate::dataplane::stream::wire::{SIDES, Side};
use crate::dataplane::stream::{End, Reset, Standing};
use crate::dataplane::wires::Wires;
use crate::shared::{CONNECT_SECONDS, CloseReason, Direction, PathKind, Snapshot};
use crate::sys::socket::KeepaliveOptions;

use super::failure_evidence;
use super::next::Next;

/// The backend is connected and has its PROXY header, if it wants one: bytes may move.
pub(crate) fn begin<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    let elapsed = connect_time(session, desk);
    let Some(backend) = session.backend(desk.snapshot.current()) else { return Next::Wait };
    let counters = backend.state.counters(desk.books.number);
    counters.sessions.add(1);
    counters.connect_seconds.record(elapsed, &CONNECT_SECONDS);
    if backend.measured {
        backend.state.observe_latency(micros(elapsed), desk.now.micros());
    }
    session.stage = Stage::moving(desk.now);
    if let Some(its) = &mut session.particulars {
        its.tried = Vec::new();
    }
    session.times.connected = Some(desk.now);
    Next::Rearm
}

/// How long the backend took to accept, and to be sent its PROXY header; after a long turn, to
/// accept alone.
fn connect_time<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>) -> Duration {
    let elapsed = desk.now.since(session.stage.since().unwrap_or(desk.now));
    match &session.backend_socket {
        // The answer may have waited for the end of a long turn.
        Some(socket) if desk.ready.was_long() => {
            desk.kernel.handshake_time(socket).map_or(elapsed, |time| time.min(elapsed))
        }
        _ => elapsed,
    }
}

/// Moves what can be moved.
#[inline]
pub(crate) fn advance<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    let Some(backend) = &session.backend_socket else { return Next::Wait };
    let snapshot = desk.snapshot.current();
    let was_half_closed = session.stream.is_half_closed();
    let before = session.stream.delivered();
    let granted = if snapshot.has_bandwidth {
        session.allowances(snapshot, desk.now)
    } else {
        Allowances::UNLIMITED
    };
    let (standing, left) = {
        let mut wire = Wires { client: &session.client_socket, backend, kernel: &mut desk.kernel };
        let mut turn = Turn {
            wire: &mut wire,
            scratch: &mut desk.scratch,
            splice: snapshot.splice,
            run_bytes: desk.ready.run_bytes(session.weight),
            is_last: false,
            allowances: granted,
        };
        (session.stream.advance(&mut turn), turn.allowances)
    };
    let after = session.stream.delivered();
    if before != after {
        if let Some(moving) = session.stage.moving_mut() {
            moving.active = desk.now;
            moving.is_asked = before[0] != after[0];
        }
        let [copied, spliced] = count_bytes(snapshot, session, desk.books.number, before);
        session.weight = desk.ready.moved(copied, spliced);
        failure_evidence::delivered(snapshot, session, before);
    }
    if snapshot.has_bandwidth {
        let spent = Spent { granted, left, more: session.stream.has_more() };
        pace(session, desk, &spent);
    }
    if session.stream.is_half_closed() && !was_half_closed {
        half_closed(session, desk);
    }
    match standing {
        Standing::Over(end) => Next::End(end),
        _ if session.stream.is_muted() && !unmute(session, desk) => {
            Next::End(End { reason: CloseReason::Internal, reset: Reset::Both })
        }
        Standing::Waiting => Next::Wait,
        Standing::Busy => Next::Again,
        Standing::Lingering => {
            if let Some(moving) = session.stage.moving_mut() {
                session.stage = Stage::Lingering(*moving);
            }
            Next::Rearm
        }
    }
}

/// Stops the events of arrivals at one side.
#[cold]
pub(crate) fn mute<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>, side: Side) {
    let token = Addressed::Session(session.key, side).token();
    let socket = match side {
        Side::Client => Some(&session.client_socket),
        Side::Backend => session.backend_socket.as_ref(),
    };
    if let Some(socket) = socket
        && session.stream.mute(side)
    {
        // If this fails the side still raises events, which costs wake-ups and nothing else.
        let _is_muted = desk.kernel.mute(socket, token);
    }
}

/// Sets keepalive on the backend's socket, and the TCP_USER_TIMEOUT that follows from it.
#[cold]
pub(crate) fn keep_alive<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>) -> Next {
    let snapshot = desk.snapshot.current();
    if let Some(socket) = &session.backend_socket
        && let Some(listener) = snapshot.listener(session.place.listener)
        && !session.backend(snapshot).is_some_and(|backend| backend.address.is_unix())
    {
        let options = KeepaliveOptions {
            idle: listener.terms.keepalive.idle,
            interval: listener.terms.keepalive.interval,
            count: listener.terms.keepalive.count,
        };
        // One that is configured was set before the connect.
        let terms = &listener.terms;
        let derived = terms.user_timeout.is_none().then(|| terms.keepalive.patience());
        desk.kernel.set_keepalive(socket, &options, derived);
    }
    Next::Rearm
}

/// Asks for every event again at the sides where that is due; false when the kernel refuses: the
/// session would never learn of its bytes.
#[cold]
fn unmute<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> bool {
    for side in SIDES {
        let token = Addressed::Session(session.key, side).token();
        let socket = match side {
            Side::Client => Some(&session.client_socket),
            Side::Backend => session.backend_socket.as_ref(),
        };
        if session.stream.unmute(side)
            && let Some(socket) = socket
            && desk.kernel.unmute(socket, token).is_err()
        {
            return false;
        }
    }
    true
}

/// One side has ended. Whatever follows: with work left over, too, the shorter bound holds from
/// here on.
fn half_closed<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) {
    if let Some(moving) = session.stage.moving_mut() {
        moving.active = moving.active.max(desk.now);
    }
    desk.arm(session);
    failure_evidence::half_closed(desk.snapshot.current(), session, desk.now);
}

/// Counts what a turn has taken of the bandwidth; a session that has to wait is woken by its timer.
#[cold]
fn pace<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>, spent: &Spent) {
    let snapshot = desk.snapshot.current();
    let waits = session.pace(snapshot, spent, desk.now);
    if !waits.contains(&true) {
        return;
    }
    if let Some(listener) = snapshot.listener(session.place.listener) {
        let counters = listener.state.counters(desk.books.number);
        for (counter, waits) in counters.bandwidth_waits.iter().zip(waits) {
            counter.add(u64::from(waits));
        }
    }
    desk.arm(session);
}

/// Counts what has moved since `before`; how much that is, copied and spliced.
fn count_bytes<K: Kernel>(
    snapshot: &Snapshot,
    session: &Session<K>,
    worker: usize,
    before: [(u64, u64); 2],
) -> [u64; 2] {
    let [up_before, down_before] = before;
    let [up, down] = session.stream.delivered();
    let up = [up.0 - up_before.0, up.1 - up_before.1];
    let down = [down.0 - down_before.0, down.1 - down_before.1];
    if let Some(listener) = snapshot.listener(session.place.listener) {
        let counters = listener.state.counters(worker);
        for (direction, [copied, spliced]) in Direction::ALL.into_iter().zip([up, down]) {
            counters.bytes_moved(direction, PathKind::Copy).add(copied);
            counters.bytes_moved(direction, PathKind::Splice).add(spliced);
        }
    }
    if let Some(backend) = session.backend(snapshot) {
        let counters = backend.state.counters(worker);
        for (direction, [copied, spliced]) in Direction::ALL.into_iter().zip([up, down]) {
            counters.bytes_moved(direction).add(copied + spliced);
        }
    }
    [up[0] + down[0], up[1] + down[1]]
}
