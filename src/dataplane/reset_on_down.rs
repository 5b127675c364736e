//! Sessions of backends that went down, on their way to being reset.
//!
//! The control plane tells every worker of the death at once, with one pace for all of them. Each
//! notes its sessions of that backend and resets them, a bounded number in a turn, as the pool's
//! `on_down` says *now*: a reload can stop it, and so does the backend when it comes up again.
//! Sessions that begin later, in a pool that panics, stay until the panic ends: that is told anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::admit::limiter::Decision;
use crate::policy::admit::shared_rate::SharedRate;
use crate::shared::{BackendId, BackendState, CloseReason, OnDown, Snapshot};

use super::clock::Tick;
use super::kernel::Kernel;
use super::session::stage::{REST_LOOK, Stage};
use super::sessions::Sessions;
use super::slots::SlotKey;

/// Sessions looked at in one turn.
const LOOKS_PER_TURN: usize = 256;
/// How long a pace spares sessions that are not at rest.
const GRACE: Duration = Duration::from_secs(10);

/// What one worker has left to reset.
#[derive(Debug, Default)]
pub(super) struct ResetOnDown(Vec<Doomed>);

/// Sessions of one backend.
#[derive(Debug)]
struct Doomed {
    backend: BackendId,
    /// Tells this backend apart from another one that gets its id later.
    state: Arc<BackendState>,
    keys: VecDeque<SlotKey>,
    pace: Arc<SharedRate>,
    /// Until then a pace takes sessions that are at rest.
    latest: Tick,
    /// When the next session may be reset.
    next: Tick,
}

/// Whether the next session may be reset.
enum Leave {
    Now,
    At(Tick),
    Never,
}

impl ResetOnDown {
    /// Whether there is nothing to reset.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When there is something to do.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.0.iter().map(|doomed| doomed.next).min()
    }

    /// Notes the sessions of a backend that has just gone down.
    #[cold]
    pub(super) fn note<K: Kernel>(
        &mut self,
        sessions: &Sessions<K>,
        backend: BackendId,
        pace: Arc<SharedRate>,
    ) {
        let Some(down) = sessions.desk.snapshot().backend(backend) else { return };
        let state = Arc::clone(&down.state);
        let mut keys = sessions.table.keys();
        keys.retain(|key| is_moving_to(sessions, *key, backend));
        // An earlier death of the same backend: its sessions are among these.
        self.0.retain(|doomed| doomed.backend != backend);
        if !keys.is_empty() {
            let (next, latest) = (sessions.desk.now, sessions.desk.now.after(GRACE));
            self.0.push(Doomed { backend, state, keys: keys.into(), pace, latest, next });
        }
    }

    /// Resets the sessions whose time has come.
    #[cold]
    pub(super) fn run<K: Kernel>(&mut self, sessions: &mut Sessions<K>) {
        let now = sessions.desk.now;
        self.0.retain_mut(|doomed| doomed.next > now || doomed.reset_some(sessions));
    }
}

impl Doomed {
    /// Resets some; whether there are more.
    fn reset_some<K: Kernel>(&mut self, sessions: &mut Sessions<K>) -> bool {
        let now = sessions.desk.now;
        let mut is_any_at_rest = false;
        for _ in 0..self.keys.len().min(LOOKS_PER_TURN) {
            let Some(key) = self.keys.pop_front() else { return false };
            if !is_moving_to(sessions, key, self.backend) {
                continue;
            }
            if self.is_paced(sessions.desk.snapshot()) && !sessions.is_at_rest(key, self.latest) {
                self.keys.push_back(key);
                continue;
            }
            is_any_at_rest = true;
            match self.may_reset(sessions.desk.snapshot(), now) {
                Leave::Now => sessions.cut(key, CloseReason::BackendDown),
                Leave::At(next) => {
                    self.keys.push_front(key);
                    self.next = next;
                    return true;
                }
                Leave::Never => return false,
            }
        }
        if !is_any_at_rest {
            self.next = now.after(REST_LOOK);
        }
        !self.keys.is_empty()
    }

    /// Whether it may take its time.
    fn is_paced(&self, snapshot: &Snapshot) -> bool {
        let pool = snapshot.backend(self.backend).and_then(|down| snapshot.pool(down.pool));
        pool.is_some_and(|pool| matches!(pool.on_down, OnDown::Pace(_)))
    }

    fn may_reset(&self, snapshot: &Snapshot, now: Tick) -> Leave {
        let backend = snapshot.backend(self.backend);
        let Some(backend) = backend.filter(|found| Arc::ptr_eq(&found.state, &self.state)) else {
            return Leave::Never;
        };
        if backend.state.is_up() {
            return Leave::Never;
        }
        match snapshot.pool(backend.pool).map(|pool| pool.on_down) {
            None | Some(OnDown::Keep) => Leave::Never,
            Some(OnDown::Reset) => Leave::Now,
            Some(OnDown::Pace(meter)) => match self.pace.admit(now.micros(), &meter) {
                Decision::Refused { retry_after_us, .. } => {
                    Leave::At(now.after(Duration::from_micros(retry_after_us.max(1))))
                }
                _ => Leave::Now,
            },
        }
    }
}

/// Whether this is a session that moves bytes to and from the backend.
fn is_moving_to<K: Kernel>(sessions: &Sessions<K>, key: SlotKey, backend: BackendId) -> bool {
    sessions.table.get(key).is_some_and(|session| {
        session.place.backend == Some(backend) && matches!(session.stage, Stage::Moving(_))
    })
}
