//! Which member of a group may be chosen for a client, what weight and load it has, and which
//! backends were passed over.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::balance::bounded_load::LoadBound;
use crate::policy::balance::least_connections::MemberLoad;
use crate::policy::balance::least_latency::Burden;
use crate::policy::balance::maglev::{Maglev, MaglevPick};
use crate::policy::balance::slow_start;
use crate::policy::client::Client;
use crate::shared::{Backend, BackendId, Generation, Group, Obstacle, Pool, Skip, note_skip};

/// The client that a choice is for.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// The client.
    pub(crate) client: Client,
    /// The hash that stands for it instead of its address.
    pub(crate) key: Option<u64>,
    /// The time, in microseconds since the process started.
    pub(crate) now_us: u64,
    /// Backends that failed this session already.
    pub(crate) tried: &'a [BackendId],
    /// Whether one of those may be had where there is no other.
    pub(crate) may_repeat: bool,
    /// Backends that have just been found full.
    pub(crate) full: &'a [BackendId],
    /// The snapshot asked; under a newer one turns start afresh.
    pub(crate) generation: Generation,
    /// Where the backends that are passed over are noted.
    pub(crate) passed_over: &'a PassedOver,
}

impl Asking<'_> {
    /// Whether a backend was tried already, or found full.
    pub(super) fn is_out(&self, backend: BackendId) -> bool {
        self.tried.contains(&backend) || self.full.contains(&backend)
    }

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

/// Which group of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Which {
    /// The backends that serve.
    Primary,
    /// The backends that serve when no primary can.
    Backup,
}

/// What may pass a member over although it could serve.
#[derive(Clone, Copy)]
pub(super) struct Within<'a> {
    /// The weights of the moment, multiplied by
    /// [`WHOLE`](crate::policy::balance::slow_start::WHOLE), unless those of the configuration
    /// hold.
    pub(super) weights: Option<&'a [u32]>,
    /// How far above the mean a member may be loaded, in per cent of it.
    pub(super) load_factor: Option<u32>,
}

/// One group asked for one client.
pub(super) struct Picker<'a> {
    pub(super) pool: &'a Pool,
    pub(super) group: &'a Group,
    pub(super) which: Which,
    pub(super) asking: &'a Asking<'a>,
    pub(super) panicking: bool,
}

impl Picker<'_> {
    pub(super) fn is_eligible(&self, member: u16) -> bool {
        let Some(backend) = self.member(member) else { return false };
        let may = backend.is_eligible(self.panicking) && !self.asking.is_out(backend.id);
        if !may {
            self.asking.note(backend, self.panicking);
        }
        may
    }

    fn member(&self, member: u16) -> Option<&Arc<Backend>> {
        self.group.members.get(usize::from(member))
    }

    /// The weights of the moment: those of backends that came up a short while ago are reduced.
    pub(super) fn weigh(&self, ramp: Duration, weights: &mut Vec<u32>) {
        let ramp_us = u64::try_from(ramp.as_micros()).unwrap_or(u64::MAX);
        let now_us = self.asking.now_us;
        weights.clear();
        weights.extend(self.group.members.iter().map(|backend| {
            let share = slow_start::share(backend.state.since_us(), now_us, ramp_us);
            slow_start::scaled(backend.weight, share)
        }));
    }

    /// What each eligible member carries, with its weight of the moment.
    pub(super) fn weigh_loads(&self, weights: &[u32], loads: &mut Vec<MemberLoad>) {
        loads.clear();
        let members = (0..=u16::MAX).zip(weights).filter(|(_, weight)| **weight > 0);
        let eligible = members.filter(|(member, _)| self.is_eligible(*member));
        loads.extend(eligible.map(|(member, &weight)| {
            let sessions = self.load(member);
            MemberLoad { member, weight, sessions }
        }));
    }

    /// Maglev where a member may be passed over although it could serve: it is far above the mean,
    /// or has not grown up to this client. A client that finds no other is served by one of those.
    #[inline(never)]
    pub(super) fn pick_within(
        &self,
        table: &Maglev,
        key: u64,
        within: Within<'_>,
    ) -> Option<MaglevPick> {
        let eligible = |member: u16| self.is_eligible(member);
        let is_grown = |member: u16| {
            let grown = match (within.weights, self.weight(member)) {
                (Some(weights), weight @ 1..) => {
                    let share = weight_in(weights, member) / weight;
                    slow_start::lets_in(key, self.pool.hash.seed, share)
                }
                _ => true,
            };
            grown || self.passes_over(member, Obstacle::Starting)
        };
        let bounds = within.load_factor.map(|factor| {
            let members = (0..=u16::MAX).take(self.group.members.len());
            let usable = members.filter(|member| eligible(*member));
            LoadBound::new(factor, usable.map(|member| (self.load(member), self.weight(member))))
        });
        let has_room = |member: u16| {
            let room = bounds.is_none_or(|all| all.admits(self.load(member), self.weight(member)));
            room || self.passes_over(member, Obstacle::Loaded)
        };
        let first = |member: u16| eligible(member) && is_grown(member) && has_room(member);
        let second = |member: u16| eligible(member) && has_room(member);
        let choice = table.pick(key, first).or_else(|| table.pick(key, second));
        choice.or_else(|| table.pick(key, eligible))
    }

    /// Notes that a member could serve and is passed over nevertheless; always false.
    fn passes_over(&self, member: u16, why: Obstacle) -> bool {
        if let Some(backend) = self.member(member) {
            self.asking.passed_over.note(backend.id, why);
        }
        false
    }

    fn weight(&self, member: u16) -> u32 {
        self.member(member).map_or(0, |backend| backend.weight)
    }

    pub(super) fn burden(&self, member: u16) -> Burden {
        let backend = self.member(member);
        let cost = backend.and_then(|backend| backend.state.latency().cost(self.asking.now_us));
        Burden { sessions: self.load(member), cost }
    }

    pub(super) fn load(&self, member: u16) -> u32 {
        let active = self.member(member).map_or(0, |backend| backend.state.active());
        u32::try_from(active).unwrap_or(u32::MAX)
    }
}
