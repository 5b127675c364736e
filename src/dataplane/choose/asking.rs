//! For whom a backend is chosen, and which backends were passed over for it.

use std::cell::Cell;

use crate::policy::client::Client;
use crate::shared::{Backend, BackendId, Generation, Obstacle, Skip, note_skip};

/// The client that a choice is for.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// The client.
    pub(crate) client: Client,
    /// What is hashed instead of its address.
    pub(crate) key: Option<u64>,
    /// The time, in microseconds since the process started.
    pub(crate) now_us: u64,
    /// Backends that failed this session already.
    pub(crate) tried: &'a [BackendId],
    /// The snapshot asked; under a newer one turns start afresh.
    pub(crate) generation: Generation,
    /// Where the backends that are passed over are noted.
    pub(crate) passed_over: &'a PassedOver,
}

impl Asking<'_> {
    /// Notes why a backend is passed over.
    #[cold]
    #[inline(never)]
    pub(super) fn note(&self, backend: &Backend, panicking: bool) {
        let obstacle = || backend.obstacle(panicking);
        let failed = self.tried.contains(&backend.id).then_some(Obstacle::Failed);
        // A place that has become free in between was taken when it counted.
        let why = failed.or_else(obstacle).unwrap_or(Obstacle::Full);
        self.passed_over.note(backend.id, why);
    }
}

/// The backends that were passed over in one choice. Owns nothing until there is one.
#[derive(Default)]
pub(crate) struct PassedOver(Cell<Vec<Skip>>);

impl PassedOver {
    /// Notes one backend; the first reason stays.
    #[cold]
    pub(super) fn note(&self, backend: BackendId, why: Obstacle) {
        let mut list = self.0.take();
        note_skip(&mut list, Skip { backend, why });
        self.0.set(list);
    }

    pub(crate) fn into_list(self) -> Vec<Skip> {
        self.0.into_inner()
    }
}

/// The weight of one member of a group; 0 for one that is not there.
pub(super) fn weight_in(weights: &[u32], member: u16) -> u32 {
    weights.get(usize::from(member)).copied().unwrap_or_default()
}
