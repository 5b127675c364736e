//! Ends that evenkeel decides: silence, a long life, a backend that has to be left, a stop.
//!
//! A peer that is not done must not take what it has for the whole: unless it was given the other
//! side's FIN, it sees a reset. A reset throws away what the kernel still holds for the peer, so
//! that is delivered first, for a bounded time. See docs/adr/0012 and 0039.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Session;
use crate::dataplane::session::stage::{CutOff, OldAge, Stage};
use crate::dataplane::stream::port::Port;
use crate::dataplane::stream::wire::{SIDES, Side, Wire};
use crate::dataplane::stream::{End, Reset};
use crate::dataplane::wires::Wires;
use crate::policy::terms::OnIdle;
use crate::shared::CloseReason;

use super::next::Next;

/// How long a process that stops waits for what the kernel holds for peers.
const AT_STOP: Duration = Duration::from_secs(1);
/// Silence that counts as rest.
const REST_MIN: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_millis(500);

/// No byte has moved for as long as may be. A peer that has acknowledged more since the last look
/// is slow, not silent; and as long as the kernel holds bytes for it, the first look tells nothing.
#[cold]
pub(crate) fn silent<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    let held = unacknowledged(session, desk);
    let moved: u64 =
        session.stream.delivered().iter().map(|(copied, spliced)| copied + spliced).sum();
    let acknowledged = acknowledged(moved, held);
    let now = desk.now;
    let reason =
        if session.stream.is_half_closed() { CloseReason::HalfClosed } else { CloseReason::Idle };
    if let Some(moving) = session.stage.moving_mut() {
        let is_silent = match moving.acknowledged.replace(acknowledged) {
            Some(before) => before == acknowledged,
            None => held == [0, 0],
        };
        if !is_silent {
            moving.active = now;
            return Next::Rearm;
        }
    }
    let reset =
        if may_close(session, desk, reason, held) { Reset::None } else { session.stream.cut_off() };
    begin(session, desk, End { reason, reset })
}

/// Whether silence may end it with FIN: its peers never said anything, so there is nothing that
/// could look complete, or its listener wants that for sessions of which nothing is on its way.
/// What one side has said and the other did not take was thrown away, so that nothing is complete.
fn may_close<K: Kernel>(
    session: &Session<K>,
    desk: &Desk<K>,
    reason: CloseReason,
    held: [usize; 2],
) -> bool {
    let stream = &session.stream;
    if stream.is_broken() {
        return false;
    }
    if !stream.has_moved() {
        return true;
    }
    let listener = desk.snapshot().listener(session.place.listener);
    listener.is_some_and(|its| its.terms.on_idle == OnIdle::Close)
        && reason == CloseReason::Idle
        && held == [0, 0]
        && SIDES.into_iter().all(|side| stream.held(side) == 0)
}

/// The session has lasted for as long as may be: it ends once it is at rest.
#[cold]
pub(crate) fn aged<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>, life: OldAge) -> Next {
    if is_at_rest(session, desk, life.latest) {
        cut(session, desk, CloseReason::Lifetime)
    } else {
        Next::Rearm
    }
}

/// Whether an end would cut nothing off, as far as may be told without knowing the protocol: what
/// moved last went to the client alone, a while ago, and nothing is on its way. The while gets
/// shorter as `latest` comes near; from then on any moment will do.
#[cold]
pub(crate) fn is_at_rest<K: Kernel>(
    session: &Session<K>,
    desk: &mut Desk<K>,
    latest: Tick,
) -> bool {
    let now = desk.now;
    let Stage::Moving(moving) = &session.stage else { return true };
    if latest <= now {
        return true;
    }
    let stream = &session.stream;
    let silence = (latest.since(now) / 8).clamp(REST_MIN, REST_MAX);
    !moving.is_asked
        && moving.active.after(silence) <= now
        && SIDES.into_iter().all(|side| stream.held(side) == 0)
        && unacknowledged(session, desk) == [0, 0]
}

/// Ends a session for a reason of evenkeel's own.
#[cold]
pub(crate) fn cut<K: Kernel>(
    session: &mut Session<K>,
    desk: &mut Desk<K>,
    reason: CloseReason,
) -> Next {
    if let Stage::Cut(cut) = &mut session.stage {
        if reason == CloseReason::Drain {
            cut.until = cut.until.min(desk.now.after(AT_STOP));
        }
        return Next::Rearm;
    }
    let reset = session.stream.cut_off();
    begin(session, desk, End { reason, reset })
}

/// Looks whether what the kernel held for the peers has arrived.
#[cold]
pub(crate) fn flush<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>) -> Next {
    match &session.stage {
        Stage::Cut(cut) if cut.until <= desk.now || is_flushed(session, desk, cut.end.reason) => {
            Next::End(cut.end)
        }
        _ => Next::Rearm,
    }
}

fn begin<K: Kernel>(session: &mut Session<K>, desk: &mut Desk<K>, end: End) -> Next {
    if session.stage.is_opening() {
        return Next::End(End { reset: Reset::Both, ..end });
    }
    if is_flushed(session, desk, end.reason) {
        return Next::End(end);
    }
    let until = desk.now.after(patience(session, desk, end.reason));
    session.stage = Stage::Cut(Box::new(CutOff { end, since: desk.now, until }));
    Next::Rearm
}

/// How long the kernel may take to deliver what it holds.
fn patience<K: Kernel>(session: &Session<K>, desk: &Desk<K>, reason: CloseReason) -> Duration {
    if reason == CloseReason::Drain {
        return AT_STOP;
    }
    let listener = desk.snapshot().listener(session.place.listener);
    listener.map_or(AT_STOP, |its| its.terms.half_closed_timeout.min(its.terms.idle_timeout))
}

/// Whether the kernel holds nothing more for a peer that may take it.
fn is_flushed<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>, reason: CloseReason) -> bool {
    let held = unacknowledged(session, desk);
    SIDES.into_iter().zip(held).all(|(side, held)| {
        let is_down = side == Side::Backend && reason == CloseReason::BackendDown;
        held == 0 || is_down || session.stream.port(side).contains(Port::FAILED)
    })
}

/// Bytes that the kernel holds for the client and for the backend.
fn unacknowledged<K: Kernel>(session: &Session<K>, desk: &mut Desk<K>) -> [usize; 2] {
    let Some(backend) = &session.backend_socket else { return [0; 2] };
    let client = &session.client_socket;
    let mut wire = Wires { client, backend, kernel: &mut desk.kernel };
    SIDES.map(|side| wire.unacknowledged(side))
}

/// Bytes that both peers have acknowledged of those that moved, up to a constant: of a PROXY header
/// and a FIN, which the kernel counts and the stream does not. Modulo 2^31, above a lowest bit that
/// is always set: two numbers differ as long as fewer bytes than that lie between them.
fn acknowledged(moved: u64, held: [usize; 2]) -> NonZeroU32 {
    let bytes = held.iter().fold(moved, |bytes, held| bytes.wrapping_sub(*held as u64));
    let low = u32::try_from(bytes & u64::from(u32::MAX)).unwrap_or(0);
    NonZeroU32::MIN | low.wrapping_shl(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    // If this fails, a peer that reads slowly is taken for one that reads nothing.
    #[test]
    fn every_byte_read_is_seen() {
        // The kernel may hold more than what moved: a header of ours, and a FIN.
        let seen: BTreeSet<_> = (0..2_200).map(|held| acknowledged(2_127, [held, 1])).collect();
        assert_eq!(seen.len(), 2_200);
    }
}
