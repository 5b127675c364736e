//! Which backend a client gets: the pool's policy, asked in the right order.
//!
//! Primaries first, then backups, each without those that were tried already; only when nobody
//! else is left is one tried again. A chosen backend has a place claimed for the session.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::policy::hash::client_key;
use crate::policy::least_connections;
use crate::policy::round_robin::RoundRobin;
use crate::shared::{Backend, BackendId, Balance, Claim, Generation, Group, HashPlan, Pool};

/// A worker's own turns of round-robin pools.
#[derive(Debug, Default)]
pub(crate) struct Chooser {
    turns: Vec<Option<Turns>>,
}

#[derive(Debug)]
struct Turns {
    generation: Generation,
    groups: [Option<RoundRobin>; 2],
}

/// Whom a choice is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// The client.
    pub(crate) client: SocketAddr,
    /// Backends that failed this session already.
    pub(crate) tried: &'a [BackendId],
    /// The snapshot asked; a newer one starts round-robin afresh.
    pub(crate) generation: Generation,
}

const PRIMARY: usize = 0;
const BACKUP: usize = 1;

impl Chooser {
    /// Chooses a backend and claims a place there; `None` when none can serve.
    pub(crate) fn choose(&mut self, pool: &Pool, asking: Asking<'_>) -> Option<Arc<Backend>> {
        let fresh = self.choose_among(pool, asking);
        if fresh.is_some() || asking.tried.is_empty() {
            return fresh;
        }
        self.choose_among(pool, Asking { tried: &[], ..asking })
    }

    fn choose_among(&mut self, pool: &Pool, asking: Asking<'_>) -> Option<Arc<Backend>> {
        let panicking = pool.state.is_panicking();
        [(&pool.primary, PRIMARY), (&pool.backup, BACKUP)].into_iter().find_map(|(group, which)| {
            let picker = Picker { pool, group, which, asking, panicking };
            self.claim_one(&picker)
        })
    }

    fn claim_one(&mut self, picker: &Picker<'_>) -> Option<Arc<Backend>> {
        // Losing the race for a last place makes that backend ineligible, so this ends.
        for _ in 0..=picker.group.members.len() {
            let backend = picker.group.members.get(usize::from(self.pick(picker)?))?;
            if backend.state.claim(backend.sessions_max) == Claim::Taken {
                return Some(Arc::clone(backend));
            }
        }
        None
    }

    fn pick(&mut self, picker: &Picker<'_>) -> Option<u16> {
        let eligible = |member: u16| picker.is_eligible(member);
        match &picker.group.balance {
            Balance::Maglev(table) => {
                let key = hash_of(&picker.pool.hash, picker.asking.client);
                Some(table.pick(key, eligible)?.member)
            }
            Balance::RoundRobin(weights) => self.turn(picker, weights).pick(eligible),
            Balance::LeastConnections(weights) => {
                let load = |member: u16| picker.load(member);
                least_connections::pick(weights, load, eligible, fastrand::u64(..))
            }
            Balance::Empty => None,
        }
    }

    fn turn(&mut self, picker: &Picker<'_>, weights: &[u32]) -> &mut RoundRobin {
        let index = picker.pool.id.index();
        if self.turns.len() <= index {
            self.turns.resize_with(index + 1, || None);
        }
        let generation = picker.asking.generation;
        let slot = &mut self.turns[index];
        if slot.as_ref().is_none_or(|turns| turns.generation != generation) {
            *slot = Some(Turns { generation, groups: [None, None] });
        }
        let turns = slot.get_or_insert_with(|| Turns { generation, groups: [None, None] });
        turns.groups[picker.which].get_or_insert_with(|| RoundRobin::new(weights))
    }
}

/// What of a client decides its place in the table.
pub(crate) fn hash_of(plan: &HashPlan, client: SocketAddr) -> u64 {
    let port = plan.with_port.then_some(client.port());
    client_key(client.ip(), port, plan.prefix, plan.seed)
}

struct Picker<'a> {
    pool: &'a Pool,
    group: &'a Group,
    which: usize,
    asking: Asking<'a>,
    panicking: bool,
}

impl Picker<'_> {
    fn is_eligible(&self, member: u16) -> bool {
        self.group.members.get(usize::from(member)).is_some_and(|backend| {
            backend.is_eligible(self.panicking) && !self.asking.tried.contains(&backend.id)
        })
    }

    fn load(&self, member: u16) -> u32 {
        let active = self.group.members.get(usize::from(member)).map_or(0, |b| b.state.active());
        u32::try_from(active).unwrap_or(u32::MAX)
    }
}
