//! A worker parks sessions for another process, or has them parked that another one passes, and
//! resumes them or gives them up. See `parked`.

use std::collections::HashMap;

use crate::shared::{Claim, Snapshot};

use super::desk::Desk;
use super::kernel::Kernel;
use super::leaving::Leaving;
use super::life::{admission, end};
use super::parked::{WINDOW_HELD_MAX, WINDOW_SESSIONS_MAX, Window};
use super::passed_session::{ArrivedSession, Belonging, PassedSession};
use super::session::Session;
use super::session::stage::Stage;
use super::sessions::Sessions;
use super::slots::SlotKey;
use super::stream::wire::SIDES;
use super::wires::Wires;

/// Slots looked at in one turn, as in a list of sessions.
const SLOTS_PER_TURN: u32 = 1024;

/// Parks the next sessions that another process may have: those whose bytes move. Others come to
/// that by themselves, and those that evenkeel is about to end do so here.
#[cold]
pub(super) fn park<K: Kernel>(
    window: &mut Window<K>,
    sessions: &mut Sessions<K>,
    leaving: &Leaving,
) {
    let Some(from) = window.next else { return };
    let end = u32::try_from(sessions.table.capacity()).unwrap_or(u32::MAX);
    let until = from.saturating_add(SLOTS_PER_TURN).min(end);
    let (mut index, mut held) = (from, 0);
    while index < until && window.sessions.len() < WINDOW_SESSIONS_MAX && held < WINDOW_HELD_MAX {
        let found = sessions.table.key_at(index).filter(|key| !leaving.has(*key));
        if let Some((session, passed)) = found.and_then(|key| park_one(key, sessions)) {
            held += SIDES.into_iter().map(|from| session.stream.held(from)).sum::<usize>();
            window.sessions.push(session);
            window.passed.push(passed);
        } else if found.and_then(|key| sessions.table.get(key)).is_some_and(is_opening) {
            window.not_yet += 1;
        }
        index += 1;
    }
    window.next = (index < end).then_some(index);
}

fn is_opening<K: Kernel>(session: &Session<K>) -> bool {
    session.stage.is_opening()
}

/// Takes a session out of the table and the epoll instance, where it may be parked.
fn park_one<K: Kernel>(
    key: SlotKey,
    sessions: &mut Sessions<K>,
) -> Option<(Session<K>, PassedSession)> {
    let session = sessions.table.get_mut(key)?;
    let desk = &mut sessions.desk;
    if session.stays || !matches!(session.stage, Stage::Moving(_) | Stage::Lingering(_)) {
        return None;
    }
    let backend = session.backend_socket.as_ref()?;
    let mut wire = Wires { client: &session.client_socket, backend, kernel: &mut desk.kernel };
    if session.stream.leave_pipes(&mut wire).is_err() {
        sessions.break_off(key);
        return None;
    }
    let passed = PassedSession::of(session, desk.snapshot.current())?;
    desk.kernel.deregister(&session.client_socket);
    desk.kernel.deregister(backend);
    desk.timers.cancel(key.index);
    Some((sessions.table.remove(key)?, passed))
}

/// Has the sessions parked that another process passes, with every place that they have: none of
/// them is turned away for want of one. Those that belong nowhere here are refused.
#[cold]
pub(super) fn take_in<K: Kernel>(
    arrived: Vec<ArrivedSession<K>>,
    sessions: &mut Sessions<K>,
    is_over: bool,
) -> Window<K> {
    let mut window = Window::with(Vec::with_capacity(arrived.len()));
    let mut known = HashMap::new();
    let desk = &sessions.desk;
    for arrived in arrived {
        let number = arrived.passed.number;
        let belonging = known
            .entry(place_of(&arrived.passed))
            .or_insert_with(|| belonging(&arrived.passed, desk.snapshot()).filter(|_| !is_over));
        match belonging.as_ref().and_then(|its| take_in_one(arrived, its, desk)) {
            Some(session) => window.sessions.push(session),
            None => window.refused.push(number),
        }
    }
    window
}

/// What says where a session belongs: the names of its listener, pool and backend, and its address.
type PlaceNames = [String; 4];

fn place_of(passed: &PassedSession) -> PlaceNames {
    [&passed.listener, &passed.pool, &passed.backend, &passed.address].map(String::clone)
}

/// Its listener and its backend, if the file has them: the same as a reload would take for it.
fn belonging(passed: &PassedSession, snapshot: &Snapshot) -> Option<Belonging> {
    let listener = snapshot.open_listeners().find(|known| known.name == passed.listener)?;
    let pool = snapshot.pools.iter().flatten().find(|known| known.name == passed.pool)?;
    let backend = pool.backends().find(|known| {
        known.name == passed.backend && known.address.to_string() == passed.address
    })?;
    Some(Belonging { listener: listener.clone(), backend: backend.clone() })
}

fn take_in_one<K: Kernel>(
    arrived: ArrivedSession<K>,
    belonging: &Belonging,
    desk: &Desk<K>,
) -> Option<Session<K>> {
    let snapshot = desk.snapshot();
    let Belonging { listener, backend } = belonging;
    let client = arrived.client();
    let counts = admission::recount(|_| false, listener.id, client, snapshot);
    let session = arrived.session(belonging, counts.unwrap_or_default(), snapshot)?;
    let claimed = snapshot.sessions.claim(u64::MAX)
        && listener.state.active.claim(u64::MAX)
        && backend.state.claim(None) == Claim::Taken;
    debug_assert!(claimed, "without a bound there is a place");
    Some(session)
}

/// Goes on with parked sessions.
#[cold]
pub(super) fn resume<K: Kernel>(window: Window<K>, sessions: &mut Sessions<K>) {
    for session in window.sessions {
        sessions.resume(session);
    }
}

/// Gives parked sessions up, which another process has now: their places, and this process's
/// descriptors. That one logs their end.
#[cold]
pub(super) fn give_up<K: Kernel>(window: Window<K>, desk: &Desk<K>) {
    for mut session in window.sessions {
        end::release(&mut session, desk);
    }
}
