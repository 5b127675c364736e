//! Sessions of backends that went down, on their way to being reset.
//!
//! The control plane tells every worker of the death at once, with one pace for all of them. Each
//! notes its sessions of that backend and resets them, a bounded number in a turn, as the pool's
//! `on_down` says *now*: a reload can stop it, and so does the backend when it comes up again.
//! Sessions that begin later, in a pool that panics, are not concerned.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::admit::limiter::Decision;
use crate::policy::admit::shared_rate::SharedRate;
use crate::shared::{BackendId, BackendState, CloseReason, OnDown};

use super::clock::Tick;
use super::phase::Stage;
use super::slots::SlotKey;
use super::stream::{End, Reset};
use super::worker::Worker;

/// Sessions looked at in one turn.
const LOOKS_PER_TURN: usize = 256;

/// What one worker has left to reset.
#[derive(Debug, Default)]
pub(super) struct Downs(Vec<Doomed>);

/// Sessions of one backend.
#[derive(Debug)]
struct Doomed {
    backend: BackendId,
    /// By which another backend that is given the id is told apart.
    state: Arc<BackendState>,
    keys: Vec<SlotKey>,
    pace: Arc<SharedRate>,
    /// When the next may be reset.
    next: Tick,
}

/// What may be done to the next session.
enum Leave {
    Now,
    At(Tick),
    Never,
}

impl Downs {
    /// Whether there is nothing to reset.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When there is something to do.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.0.iter().map(|doomed| doomed.next).min()
    }
}

impl Worker {
    /// Notes the sessions of a backend that has just gone down.
    #[cold]
    pub(super) fn backend_down(&mut self, backend: BackendId, pace: Arc<SharedRate>) {
        if self.snapshot.is_stale() {
            self.take_up_snapshot();
        }
        let Some(down) = self.snapshot.current().backend(backend) else { return };
        let state = Arc::clone(&down.state);
        let mut keys = self.table.slots.keys();
        keys.retain(|key| self.is_moving_to(*key, backend));
        // An earlier death of the same backend: its sessions are among these.
        self.downs.0.retain(|doomed| doomed.backend != backend);
        if !keys.is_empty() {
            self.downs.0.push(Doomed { backend, state, keys, pace, next: self.now });
        }
    }

    /// Resets as many as may be reset by now.
    #[cold]
    pub(super) fn reset_doomed(&mut self) {
        let mut downs = std::mem::take(&mut self.downs.0);
        downs.retain_mut(|doomed| doomed.next > self.now || self.reset_some_of(doomed));
        self.downs.0 = downs;
    }

    /// Whether there are more.
    fn reset_some_of(&mut self, doomed: &mut Doomed) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            let Some(&key) = doomed.keys.last() else { return false };
            if !self.is_moving_to(key, doomed.backend) {
                doomed.keys.pop();
                continue;
            }
            match self.may_reset(doomed) {
                Leave::Now => {
                    doomed.keys.pop();
                    self.end(key, End { reason: CloseReason::BackendDown, reset: Reset::Both });
                }
                Leave::At(next) => {
                    doomed.next = next;
                    return true;
                }
                Leave::Never => return false,
            }
        }
        !doomed.keys.is_empty()
    }

    /// Whether this is a session that moves bytes to and from the backend.
    fn is_moving_to(&self, key: SlotKey, backend: BackendId) -> bool {
        self.table.slots.get(key).is_some_and(|connection| {
            connection.place.backend == Some(backend)
                && matches!(connection.phase.stage, Stage::Young | Stage::Settled)
        })
    }

    fn may_reset(&self, doomed: &Doomed) -> Leave {
        let snapshot = self.snapshot.current();
        let backend = snapshot.backend(doomed.backend);
        let Some(backend) = backend.filter(|found| Arc::ptr_eq(&found.state, &doomed.state)) else {
            return Leave::Never;
        };
        if backend.state.is_up() {
            return Leave::Never;
        }
        match snapshot.pool(backend.pool).map(|pool| pool.on_down) {
            None | Some(OnDown::Keep) => Leave::Never,
            Some(OnDown::Reset) => Leave::Now,
            Some(OnDown::Pace(meter)) => match doomed.pace.admit(self.now.micros(), &meter) {
                Decision::Refused { retry_after_us, .. } => {
                    Leave::At(self.now.after(Duration::from_micros(retry_after_us.max(1))))
                }
                _ => Leave::Now,
            },
        }
    }
}
