//! Sessions that have to leave their backend, on their way to being reset.
//!
//! The control plane gives every worker the same order at once ([`LeaveOrder`]): a backend is down,
//! a primary can serve again, or an operator empties a backend. A worker notes the sessions that
//! the backend has by then and resets them, a bounded number in a turn, as long and in the way as
//! the order holds *now*. Sessions that begin later stay, unless another order comes. An operator
//! who kills sessions has them named to their worker, and they go the same way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::shared::{Leave, LeaveOrder};

use super::clock::Tick;
use super::kernel::Kernel;
use super::session::stage::{REST_LOOK, Stage};
use super::sessions::Sessions;
use super::slots::SlotKey;

/// Sessions looked at in one turn.
const LOOKS_PER_TURN: usize = 256;
/// How long a pace waits for sessions to be at rest. Then it takes others, too, when it finds none.
const GRACE: Duration = Duration::from_secs(10);

/// What one worker has left to reset.
#[derive(Debug, Default)]
pub(super) struct Leaving(Vec<Leavers>);

/// Sessions of one backend, or that were named.
#[derive(Debug)]
struct Leavers {
    order: Arc<LeaveOrder>,
    keys: VecDeque<SlotKey>,
    /// When the grace of a pace is over; `None` before the first may leave.
    latest: Option<Tick>,
    /// When to look again.
    next: Tick,
}

/// How a session stands that has to leave a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaverState {
    /// It is not there any more, or already on its way.
    Gone,
    /// The backend is being connected: it leaves once it moves bytes.
    Opening,
    /// It moves bytes, or has to end wherever it is.
    MayLeave,
}

impl Leaving {
    /// Whether there is nothing to reset.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a session is to be reset.
    pub(super) fn has(&self, key: SlotKey) -> bool {
        self.0.iter().any(|leavers| leavers.keys.contains(&key))
    }

    /// When there is something to do.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.0.iter().map(|leavers| leavers.next).min()
    }

    /// Notes the sessions that an order is about.
    #[cold]
    pub(super) fn note<K: Kernel>(&mut self, sessions: &Sessions<K>, order: Arc<LeaveOrder>) {
        let mut keys = sessions.table.keys();
        keys.retain(|key| state_of(sessions, *key, &order) != LeaverState::Gone);
        // Those of an earlier order are among these.
        self.0.retain(|leavers| !order.replaces(&leavers.order));
        self.note_named(order, keys, sessions.desk.now);
    }

    /// Notes sessions that are named; those that have ended by now are passed over.
    #[cold]
    pub(super) fn note_named(&mut self, order: Arc<LeaveOrder>, keys: Vec<SlotKey>, now: Tick) {
        if !keys.is_empty() {
            self.0.push(Leavers { order, keys: keys.into(), latest: None, next: now });
        }
    }

    /// Resets the sessions whose time has come.
    #[cold]
    pub(super) fn run<K: Kernel>(&mut self, sessions: &mut Sessions<K>) {
        let now = sessions.desk.now;
        self.0.retain_mut(|leavers| leavers.next > now || leavers.reset_some(sessions));
    }
}

impl Leavers {
    /// Resets some; whether there are more.
    fn reset_some<K: Kernel>(&mut self, sessions: &mut Sessions<K>) -> bool {
        let (now, snapshot) = (sessions.desk.now, sessions.desk.snapshot());
        let leave = self.order.leave(snapshot);
        let from = Tick::from_micros(self.order.from_us(snapshot));
        if leave == Leave::Keep {
            return false;
        }
        if from > now {
            self.next = from;
            return true;
        }
        let latest = *self.latest.get_or_insert(now.after(GRACE));
        let is_paced = matches!(leave, Leave::Pace(_));
        let rest_by = is_paced.then(|| latest.max(now.after(REST_LOOK)));
        self.next = now;
        let has_any = self.look(sessions, leave, rest_by)
            || (is_paced && latest <= now && self.look(sessions, leave, None));
        if !has_any {
            self.next = now.after(REST_LOOK);
        }
        !self.keys.is_empty()
    }

    /// Looks at some once, and resets those that may leave: only at rest, where they have until
    /// `rest_by` for that. Returns whether there was any.
    fn look<K: Kernel>(
        &mut self,
        sessions: &mut Sessions<K>,
        leave: Leave,
        rest_by: Option<Tick>,
    ) -> bool {
        let now = sessions.desk.now;
        let mut has_any = false;
        for _ in 0..self.keys.len().min(LOOKS_PER_TURN) {
            let Some(key) = self.keys.pop_front() else { break };
            let may_leave = match state_of(sessions, key, &self.order) {
                LeaverState::Gone => continue,
                LeaverState::Opening => false,
                LeaverState::MayLeave => rest_by.is_none_or(|by| sessions.is_at_rest(key, by)),
            };
            if !may_leave {
                self.keys.push_back(key);
                continue;
            }
            has_any = true;
            if let Leave::Pace(meter) = leave
                && let Err(wait) = self.order.next(now.micros(), &meter)
            {
                self.keys.push_front(key);
                self.next = now.after(wait);
                break;
            }
            sessions.cut(key, self.order.reason());
        }
        has_any
    }
}

fn state_of<K: Kernel>(sessions: &Sessions<K>, key: SlotKey, order: &LeaveOrder) -> LeaverState {
    let (found, backend) = (sessions.table.get(key), order.backend());
    let found = found.filter(|it| backend.is_none() || it.place.backend == backend);
    match found.map(|session| &session.stage) {
        Some(Stage::Moving(_)) => LeaverState::MayLeave,
        Some(stage) if stage.is_opening() && backend.is_none() => LeaverState::MayLeave,
        Some(stage) if stage.is_opening() => LeaverState::Opening,
        _ => LeaverState::Gone,
    }
}
