//! Which backend a client gets: the pool's policy, asked in the right order.
//!
//! Primaries first, then backups, each without those that were tried already; only when nobody
//! else is left is one tried again. A chosen backend has a place claimed for the session.

use std::sync::Arc;

use ahash::AHashMap;

use crate::policy::bounded_load::Bounds;
use crate::policy::client::Client;
use crate::policy::hash::{client_key, key_without_address};
use crate::policy::least_latency::Burden;
use crate::policy::maglev::Maglev;
use crate::policy::round_robin::RoundRobin;
use crate::policy::{least_connections, least_latency, random, slow_start};
use crate::shared::{
    Backend, BackendId, Balance, Claim, Generation, Group, HashPlan, Pool, PoolId, Sticky,
};

/// A worker's own turns of round-robin groups, and the snapshot they belong to.
#[derive(Debug)]
pub(crate) struct Chooser {
    /// The worker's number.
    worker: u64,
    turns: AHashMap<(PoolId, Which), (Generation, RoundRobin)>,
    /// Weights of the moment, where they change by themselves.
    weights: Vec<u32>,
}

/// Which group of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    Primary,
    Backup,
}

/// Whom a choice is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// The client.
    pub(crate) client: Client,
    /// What is hashed instead of its address.
    pub(crate) key: Option<u64>,
    /// The time, in microseconds since the process started.
    pub(crate) now_us: u64,
    /// Backends that failed this session already.
    pub(crate) tried: &'a [BackendId],
    /// The snapshot asked; a newer one starts round-robin afresh.
    pub(crate) generation: Generation,
}

impl Chooser {
    /// Nobody has had a turn yet.
    pub(crate) fn new(worker: usize) -> Self {
        Self { worker: worker as u64, turns: AHashMap::new(), weights: Vec::new() }
    }

    /// Chooses a backend and claims a place there; `None` when none can serve.
    pub(crate) fn choose<'a>(&mut self, pool: &'a Pool, asking: Asking<'_>) -> Option<&'a Backend> {
        match &pool.sticky {
            None => self.choose_anew(pool, asking),
            Some(sticky) => self.choose_again(pool, sticky, asking),
        }
    }

    /// The backend that the client had before, if it can serve; else another, which is remembered
    /// from then on. One that is only full keeps its clients; a backup never has any.
    #[inline(never)]
    fn choose_again<'a>(
        &mut self,
        pool: &'a Pool,
        sticky: &Sticky,
        asking: Asking<'_>,
    ) -> Option<&'a Backend> {
        let Sticky { memory, seconds, .. } = sticky;
        let port = pool.hash.with_port.then_some(asking.client.port());
        let key = match (asking.key, asking.client.ip()) {
            (Some(said), _) => memory.key_of_said(said),
            (None, Some(ip)) => memory.key(ip, port, pool.hash.prefix),
            (None, None) => memory.key_without_address(),
        };
        let panicking = pool.state.is_panicking();
        let can_serve = |backend: &&Arc<Backend>| {
            backend.is_usable(panicking) && !asking.tried.contains(&backend.id)
        };
        let known = memory.recall(key, asking.now_us, *seconds);
        let numbered = |number: u16| {
            pool.primary.members.iter().find(|member| member.id.index() == usize::from(number))
        };
        let had = known.and_then(|choice| numbered(choice.backend)).filter(can_serve);
        if let Some(backend) = had {
            if backend.state.claim(backend.sessions_max) == Claim::Full {
                return self.choose_anew(pool, asking);
            }
            if known.is_some_and(|choice| choice.is_aging) {
                remember(sticky, key, backend, asking);
            }
            return Some(backend);
        }
        let chosen = self.choose_anew(pool, asking)?;
        if !chosen.backup {
            remember(sticky, key, chosen, asking);
        }
        Some(chosen)
    }

    fn choose_anew<'a>(&mut self, pool: &'a Pool, asking: Asking<'_>) -> Option<&'a Backend> {
        let fresh = self.choose_among(pool, asking);
        if fresh.is_some() || asking.tried.is_empty() {
            return fresh;
        }
        self.choose_among(pool, Asking { tried: &[], ..asking })
    }

    fn choose_among<'a>(&mut self, pool: &'a Pool, asking: Asking<'_>) -> Option<&'a Backend> {
        let panicking = pool.state.is_panicking();
        [(&pool.primary, Which::Primary), (&pool.backup, Which::Backup)].into_iter().find_map(
            |(group, which)| {
                let picker = Picker { pool, group, which, asking, panicking };
                self.claim_one(&picker, group)
            },
        )
    }

    fn claim_one<'a>(&mut self, picker: &Picker<'_>, group: &'a Group) -> Option<&'a Backend> {
        // Losing the race for a last place makes that backend ineligible, so this ends.
        for _ in 0..=group.members.len() {
            let backend = group.members.get(usize::from(self.pick(picker)?))?;
            if backend.state.claim(backend.sessions_max) == Claim::Taken {
                return Some(backend);
            }
        }
        None
    }

    fn pick(&mut self, picker: &Picker<'_>) -> Option<u16> {
        match picker.pool.slow_start_us {
            None => self.pick_by(picker, None),
            Some(ramp_us) => {
                let mut weights = std::mem::take(&mut self.weights);
                picker.weigh(ramp_us, &mut weights);
                let picked = self.pick_by(picker, Some(&weights));
                self.weights = weights;
                picked
            }
        }
    }

    /// `now`: the weights of the moment, multiplied by [`slow_start::WHOLE`], unless those of the
    /// configuration hold.
    fn pick_by(&mut self, picker: &Picker<'_>, now: Option<&[u32]>) -> Option<u16> {
        let eligible = |member: u16| picker.is_eligible(member);
        match &picker.group.balance {
            Balance::Maglev(table) => {
                let Asking { client, key, .. } = picker.asking;
                let key = key.unwrap_or_else(|| hash_of(&picker.pool.hash, client));
                match (now, picker.pool.load_factor) {
                    (None, None) => Some(table.pick(key, eligible)?.member),
                    (now, factor) => picker.pick_within(table, key, (now, factor)),
                }
            }
            Balance::RoundRobin(weights) => {
                let turn = self.turn(picker, weights);
                match now {
                    None => turn.pick(eligible),
                    Some(now) => turn.pick_by(|member, _| weight_in(now, member), eligible),
                }
            }
            Balance::LeastConnections(weights) => {
                let weights = now.unwrap_or(weights);
                let load = |member: u16| picker.load(member);
                least_connections::pick(weights, load, eligible, fastrand::u64(..))
            }
            Balance::LeastLatency(weights) => {
                let weights = now.unwrap_or(weights);
                let burden = |member: u16| picker.burden(member);
                let random = [fastrand::u64(..), fastrand::u64(..)];
                least_latency::pick(weights, burden, eligible, random)
            }
            Balance::RandomTwo(weights) => {
                let weights = now.unwrap_or(weights);
                let load = |member: u16| picker.load(member);
                random::pick_two(weights, load, eligible, [fastrand::u64(..), fastrand::u64(..)])
            }
            Balance::Random(weights) => {
                random::pick(now.unwrap_or(weights), eligible, fastrand::u64(..))
            }
            Balance::First => {
                let count = u16::try_from(picker.group.members.len()).unwrap_or(u16::MAX);
                (0..count).find(|member| eligible(*member))
            }
            Balance::Empty => None,
        }
    }

    fn turn(&mut self, picker: &Picker<'_>, weights: &[u32]) -> &mut RoundRobin {
        let generation = picker.asking.generation;
        let key = (picker.pool.id, picker.which);
        // Not all workers, nor one worker after each reload, begin with the same backend; the first
        // worker of the first generation begins with the first.
        let first = self.worker + generation.0.saturating_sub(1);
        let afresh = || (generation, RoundRobin::starting_at(weights, first));
        let turns = self.turns.entry(key).or_insert_with(afresh);
        if turns.0 != generation {
            *turns = afresh();
        }
        &mut turns.1
    }
}

fn remember(sticky: &Sticky, key: u64, backend: &Backend, asking: Asking<'_>) {
    // A backend beyond the 65,536th is not remembered.
    if let Ok(number) = u16::try_from(backend.id.index()) {
        sticky.memory.remember(key, number, asking.now_us, sticky.seconds);
    }
}

fn weight_in(weights: &[u32], member: u16) -> u32 {
    weights.get(usize::from(member)).copied().unwrap_or_default()
}

/// What of a client decides its place in the table.
pub(crate) fn hash_of(plan: &HashPlan, client: Client) -> u64 {
    let port = plan.with_port.then_some(client.port());
    match client.ip() {
        Some(ip) => client_key(ip, port, plan.prefix, plan.seed),
        None => key_without_address(plan.seed),
    }
}

struct Picker<'a> {
    pool: &'a Pool,
    group: &'a Group,
    which: Which,
    asking: Asking<'a>,
    panicking: bool,
}

impl Picker<'_> {
    fn is_eligible(&self, member: u16) -> bool {
        self.group.members.get(usize::from(member)).is_some_and(|backend| {
            backend.is_eligible(self.panicking) && !self.asking.tried.contains(&backend.id)
        })
    }

    /// The weights of the moment: those of backends that came up a short while ago are reduced.
    fn weigh(&self, ramp_us: u64, weights: &mut Vec<u32>) {
        let now_us = self.asking.now_us;
        weights.clear();
        weights.extend(self.group.members.iter().map(|backend| {
            let share = slow_start::share(backend.state.since_us(), now_us, ramp_us);
            slow_start::scaled(backend.weight, share)
        }));
    }

    /// Maglev where a member may be passed over although it could serve: it is far above the mean,
    /// or has not grown up to this client. Who finds nobody else is served by one of those.
    #[inline(never)]
    fn pick_within(
        &self,
        table: &Maglev,
        key: u64,
        (now, factor): (Option<&[u32]>, Option<u32>),
    ) -> Option<u16> {
        let eligible = |member: u16| self.is_eligible(member);
        let is_grown = |member: u16| match (now, self.weight(member)) {
            (Some(now), weight @ 1..) => {
                let share = weight_in(now, member) / weight;
                slow_start::lets_in(key, self.pool.hash.seed, share)
            }
            _ => true,
        };
        let bounds = factor.map(|factor| {
            let members = (0..=u16::MAX).take(self.group.members.len());
            let usable = members.filter(|member| eligible(*member));
            Bounds::new(factor, usable.map(|member| (self.load(member), self.weight(member))))
        });
        let has_room = |member: u16| {
            bounds.is_none_or(|all| all.admits(self.load(member), self.weight(member)))
        };
        let first = |member: u16| eligible(member) && is_grown(member) && has_room(member);
        let second = |member: u16| eligible(member) && has_room(member);
        let choice = table.pick(key, first).or_else(|| table.pick(key, second));
        Some(choice.or_else(|| table.pick(key, eligible))?.member)
    }

    fn weight(&self, member: u16) -> u32 {
        self.group.members.get(usize::from(member)).map_or(0, |backend| backend.weight)
    }

    fn burden(&self, member: u16) -> Burden {
        let backend = self.group.members.get(usize::from(member));
        let cost = backend.and_then(|backend| backend.state.latency().cost(self.asking.now_us));
        Burden { sessions: self.load(member), cost }
    }

    fn load(&self, member: u16) -> u32 {
        let active = self.group.members.get(usize::from(member)).map_or(0, |b| b.state.active());
        u32::try_from(active).unwrap_or(u32::MAX)
    }
}
