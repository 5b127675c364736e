//! Which backend a client gets: asks the pool's policy.
//!
//! Primaries first, then backups, each without those that were tried already; only when no other
//! is left is one tried again. A place is claimed at the chosen backend. Which members of a group
//! can serve, and which are passed over, is found in [`super::picker`].

use std::sync::Arc;

use ahash::AHashMap;

use crate::policy::balance::hash::{client_key, key_without_address};
use crate::policy::balance::least_connections::MemberLoad;
use crate::policy::balance::round_robin::RoundRobin;
use crate::policy::balance::{Balance, BalanceAlgorithm, least_connections, least_latency, random};
use crate::policy::client::Client;
use crate::shared::{
    Backend, By, Claim, Generation, Group, HashPlan, Obstacle, Pick, Pool, PoolId, Sticky,
};

use super::picker::{Asking, Picker, Which, Within, weight_in};

/// A backend on which a place is claimed, and how it was chosen.
pub(crate) type Chosen<'a> = (&'a Backend, Pick);

/// A worker's own turns, and the snapshot they belong to.
#[derive(Debug)]
pub(crate) struct Chooser {
    /// Nothing is taken and nothing remembered: it only answers.
    only_looks: bool,
    /// The worker's number.
    worker: u64,
    turns: AHashMap<(PoolId, Which), (Generation, RoundRobin)>,
    /// Weights of the moment, where they change by themselves.
    weights: Vec<u32>,
    /// What the members of a group carry, where all are compared.
    loads: Vec<MemberLoad>,
}

impl Chooser {
    /// One in which no backend has had a turn yet.
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            only_looks: false,
            worker: worker as u64,
            turns: AHashMap::new(),
            weights: Vec::new(),
            loads: Vec::new(),
        }
    }

    /// A chooser that tells what would be chosen, and changes nothing.
    pub(crate) fn that_only_looks() -> Self {
        Self { only_looks: true, ..Self::new(0) }
    }

    /// Chooses a backend and claims a place there; `None` when none can serve.
    pub(crate) fn choose<'a>(&mut self, pool: &'a Pool, asking: &Asking<'_>) -> Option<Chosen<'a>> {
        match &pool.sticky {
            None => self.choose_anew(pool, asking),
            Some(sticky) => self.choose_again(pool, sticky, asking),
        }
    }

    /// The backend that the client had before, if it can serve; else another, which is remembered
    /// from then on. A full backend stays remembered, a backup never is.
    #[inline(never)]
    fn choose_again<'a>(
        &mut self,
        pool: &'a Pool,
        sticky: &Sticky,
        asking: &Asking<'_>,
    ) -> Option<Chosen<'a>> {
        let Sticky { memory, seconds, .. } = sticky;
        let port = pool.hash.with_port.then_some(asking.client.port());
        let key = match (asking.key, pool.hash.address(asking.client)) {
            (Some(said), _) => memory.key_of_said(said),
            (None, Some(ip)) => memory.key(ip, port, pool.hash.prefix),
            (None, None) => memory.key_without_address(),
        };
        let panicking = pool.state.is_panicking();
        let can_serve = |backend: &&Arc<Backend>| {
            let can = backend.is_usable(panicking) && !asking.is_out(backend.id);
            if !can {
                asking.note(backend, panicking);
            }
            can
        };
        let known = memory.recall(key, asking.now_us, *seconds);
        let marked =
            |mark: u16| pool.primary.members.iter().find(|member| member.state.mark() == mark);
        let had = known.and_then(|choice| marked(choice.backend)).filter(can_serve);
        if let Some(backend) = had {
            if self.claim(backend) == Claim::Full {
                asking.passed_over.note(backend.id, Obstacle::Full);
                return self.choose_anew(pool, asking);
            }
            if known.is_some_and(|choice| choice.is_aging) {
                self.remember(sticky, key, backend, asking);
            }
            return Some((backend, Pick::new(By::Sticky)));
        }
        let chosen = self.choose_anew(pool, asking)?;
        if !chosen.0.backup {
            self.remember(sticky, key, chosen.0, asking);
        }
        Some(chosen)
    }

    fn choose_anew<'a>(&mut self, pool: &'a Pool, asking: &Asking<'_>) -> Option<Chosen<'a>> {
        let fresh = self.choose_among(pool, asking);
        if fresh.is_some() || asking.tried.is_empty() || !asking.may_repeat {
            return fresh;
        }
        self.choose_among(pool, &Asking { tried: &[], ..*asking })
    }

    fn choose_among<'a>(&mut self, pool: &'a Pool, asking: &Asking<'_>) -> Option<Chosen<'a>> {
        let panicking = pool.state.is_panicking();
        let mut claim =
            |group, which| self.claim_one(&Picker { pool, group, which, asking, panicking }, group);
        claim(&pool.primary, Which::Primary).or_else(|| claim(&pool.backup, Which::Backup))
    }

    fn claim_one<'a>(&mut self, picker: &Picker<'_>, group: &'a Group) -> Option<Chosen<'a>> {
        // Losing the race for a last place makes that backend ineligible, so this ends.
        for _ in 0..=group.members.len() {
            let (member, pick) = self.pick(picker)?;
            let backend = group.members.get(usize::from(member))?;
            if self.claim(backend) == Claim::Taken {
                return Some((backend, pick));
            }
        }
        None
    }

    fn claim(&self, backend: &Backend) -> Claim {
        if !self.only_looks {
            return backend.state.claim(backend.sessions_max);
        }
        let active = backend.state.active();
        let has_room = backend.sessions_max.is_none_or(|max| active < u64::from(max));
        if has_room { Claim::Taken } else { Claim::Full }
    }

    fn pick(&mut self, picker: &Picker<'_>) -> Option<(u16, Pick)> {
        match picker.pool.terms.slow_start {
            None => self.pick_by(picker, None),
            Some(ramp) => {
                let mut weights = std::mem::take(&mut self.weights);
                picker.weigh(ramp, &mut weights);
                let picked = self.pick_by(picker, Some(&weights));
                self.weights = weights;
                picked
            }
        }
    }

    /// `now`: the weights of the moment, multiplied by
    /// [`WHOLE`](crate::policy::balance::slow_start::WHOLE), unless those of the configuration
    /// hold.
    fn pick_by(&mut self, picker: &Picker<'_>, now: Option<&[u32]>) -> Option<(u16, Pick)> {
        let eligible = |member: u16| picker.is_eligible(member);
        let by = |algorithm| move |member: u16| (member, Pick::new(By::Balance(algorithm)));
        match &picker.group.balance {
            Balance::Maglev(table) => {
                let Asking { client, key, .. } = *picker.asking;
                let key = key.unwrap_or_else(|| hash_of(&picker.pool.hash, client));
                let choice = match (now, picker.pool.terms.load_factor) {
                    (None, None) => table.pick(key, eligible),
                    (weights, load_factor) => {
                        picker.pick_within(table, key, Within { weights, load_factor })
                    }
                }?;
                Some((choice.member, Pick::in_table(choice.slot)))
            }
            Balance::RoundRobin(weights) => {
                let turn = self.turn(picker, weights);
                let member = match now {
                    None => turn.pick(eligible),
                    Some(now) => turn.pick_by(|member, _| weight_in(now, member), eligible),
                };
                member.map(by(BalanceAlgorithm::RoundRobin))
            }
            Balance::LeastConnections(weights) => {
                let mut loads = std::mem::take(&mut self.loads);
                picker.weigh_loads(now.unwrap_or(weights), &mut loads);
                let member = least_connections::pick(self.turn(picker, weights), &mut loads);
                self.loads = loads;
                member.map(by(BalanceAlgorithm::LeastConnections))
            }
            Balance::LeastLatency(weights) => {
                let weights = now.unwrap_or(weights);
                let burden = |member: u16| picker.burden(member);
                let random = [fastrand::u64(..), fastrand::u64(..), fastrand::u64(..)];
                let member = least_latency::pick(weights, burden, eligible, random);
                member.map(by(BalanceAlgorithm::LeastLatency))
            }
            Balance::RandomTwo(weights) => {
                let weights = now.unwrap_or(weights);
                let load = |member: u16| picker.load(member);
                let random = [fastrand::u64(..), fastrand::u64(..), fastrand::u64(..)];
                let member = random::pick_two(weights, load, eligible, random);
                member.map(by(BalanceAlgorithm::RandomTwo))
            }
            Balance::Random(weights) => {
                let member = random::pick(now.unwrap_or(weights), eligible, fastrand::u64(..));
                member.map(by(BalanceAlgorithm::Random))
            }
            Balance::First => {
                let count = u16::try_from(picker.group.members.len()).unwrap_or(u16::MAX);
                (0..count).find(|member| eligible(*member)).map(by(BalanceAlgorithm::First))
            }
            Balance::Empty => None,
        }
    }

    fn turn(&mut self, picker: &Picker<'_>, weights: &[u32]) -> &mut RoundRobin {
        let generation = picker.asking.generation;
        let key = (picker.pool.id, picker.which);
        // Workers share the first turns out among themselves, and one worker does not begin with
        // the same backend after each reload; the first worker of the first generation begins with
        // the first turn.
        let first = self.worker + generation.0.saturating_sub(1);
        let afresh = || (generation, RoundRobin::starting_at(weights, first));
        let turns = self.turns.entry(key).or_insert_with(afresh);
        if turns.0 != generation {
            *turns = afresh();
        }
        &mut turns.1
    }

    fn remember(&self, sticky: &Sticky, key: u64, backend: &Backend, asking: &Asking<'_>) {
        if !self.only_looks {
            sticky.memory.remember(key, backend.state.mark(), asking.now_us, sticky.seconds);
        }
    }
}

/// The hash of a client, which decides its place in the table.
pub(crate) fn hash_of(plan: &HashPlan, client: Client) -> u64 {
    let port = plan.with_port.then_some(client.port());
    match plan.address(client) {
        Some(ip) => client_key(ip, port, plan.prefix, plan.seed),
        None => key_without_address(plan.seed),
    }
}
