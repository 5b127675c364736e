//! A worker looks at its sessions: one slice of a [`SessionLook`], or the sessions of a
//! [`Description`].

use super::kernel::Kernel;
use super::look::{
    DESCRIBED_PER_TURN, Description, SLOTS_PER_TURN, SessionFilter, SessionLook, SessionShown,
    Sighting,
};
use super::session::Session;
use super::session::stage::Stage;
use super::sessions::Sessions;

/// Looks at the next slice; what the one before has found is dropped.
#[cold]
pub(super) fn go_on<K: Kernel>(look: &mut SessionLook, sessions: &Sessions<K>) {
    look.found.clear();
    let Some(from) = look.next else { return };
    let end = u32::try_from(sessions.table.capacity()).unwrap_or(u32::MAX);
    let until = from.saturating_add(SLOTS_PER_TURN).min(end);
    for index in from..until {
        let Some(key) = sessions.table.key_at(index) else { continue };
        let Some(session) = sessions.table.get(key) else { continue };
        if is_meant(&look.filter, session, sessions) {
            look.found.push(sighting(session));
        }
    }
    look.next = (until < end).then_some(until);
}

/// Tells of the sessions that are wanted.
#[cold]
pub(super) fn describe<K: Kernel>(description: &mut Description, sessions: &mut Sessions<K>) {
    for key in description.wanted.drain(..).take(DESCRIBED_PER_TURN) {
        let Some(session) = sessions.table.get(key) else { continue };
        description.shown.push(show(session, &mut sessions.desk.kernel));
    }
}

fn is_meant<K: Kernel>(
    filter: &SessionFilter,
    session: &Session<K>,
    sessions: &Sessions<K>,
) -> bool {
    let SessionFilter { listeners, pools, backends, clients, number } = filter;
    let place = &session.place;
    number.is_none_or(|number| place.number == number)
        && listeners.as_ref().is_none_or(|all| all.contains(&place.listener))
        && pools.as_ref().is_none_or(|all| has_pool(session) && all.contains(&place.pool))
        && backends.as_ref().is_none_or(|all| place.backend.is_some_and(|its| all.contains(&its)))
        && (clients.is_none()
            || filter.means_client(sessions.desk.snapshot().nat64.see(session.client)))
}

/// Whether the pool of a session is known: while its first bytes are read, it is not.
fn has_pool<K: Kernel>(session: &Session<K>) -> bool {
    !matches!(session.stage, Stage::Reading(_))
}

fn sighting<K: Kernel>(session: &Session<K>) -> Sighting {
    let opened = session.times.opened;
    let active = match &session.stage {
        Stage::Moving(moving) | Stage::Lingering(moving) => moving.active,
        Stage::Cut(cut) => cut.since,
        _ => opened,
    };
    Sighting {
        key: session.key,
        number: session.place.number,
        opened_us: opened.micros(),
        active_us: active.micros(),
        bytes: session.stream.delivered().iter().map(|(copied, spliced)| copied + spliced).sum(),
    }
}

fn show<K: Kernel>(session: &Session<K>, kernel: &mut K) -> SessionShown {
    let Sighting { number, opened_us, active_us, .. } = sighting(session);
    let client = &session.client_socket;
    let backend = session.backend_socket.as_ref();
    SessionShown {
        number,
        listener: session.place.listener,
        pool: has_pool(session).then_some(session.place.pool),
        backend: session.place.backend,
        stage: word(&session.stage),
        client: session.client,
        // A peer that is gone meanwhile has no address any more.
        client_leg: [kernel.peer_address(client).ok(), kernel.local_address(client).ok()],
        backend_leg: [
            backend.and_then(|socket| kernel.local_address(socket).ok()),
            backend.and_then(|socket| kernel.peer_address(socket).ok()),
        ],
        opened_us,
        active_us,
        bytes: session.stream.delivered().map(|(copied, spliced)| copied + spliced),
    }
}

fn word(stage: &Stage) -> &'static str {
    match stage {
        Stage::Reading(_) => "reading",
        Stage::Waiting { .. } => "waiting",
        Stage::Resting { .. } => "resting",
        Stage::Connecting { .. } => "connecting",
        Stage::Greeting { .. } => "greeting",
        Stage::Moving(_) => "moving",
        Stage::Lingering(_) => "lingering",
        Stage::Cut(_) => "ending",
    }
}
