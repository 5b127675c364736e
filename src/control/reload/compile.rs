//! From a checked configuration to a snapshot. Pure: no clock, socket or random source.
//!
//! The previous snapshot is the registry: what has the same name keeps its id and its state
//! (sessions, counters, verdicts, limiter table), so nothing that lives is lost by a reload. What
//! is gone keeps its place until no worker can use it any more.

pub(crate) mod choosing;
pub(crate) mod inputs;
pub(crate) mod limits;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config;
use crate::control::host::gates::ListenerGate;
use crate::control::plane::configured::leave;
use crate::control::reload::compile::inputs::Inputs;
use crate::policy::admit::access::{AccessList, NetSet};
use crate::policy::first_bytes::route::{Names, Route};
use crate::policy::nat64::Nat64;
use crate::shared::{
    AcceptProxy, Address, AddressRange, Backend, BackendId, BackendState, Generation, Limit,
    Listener, ListenerId, ListenerIndex, ListenerState, Pool, PoolId, PoolState, RefusalText,
    Routing, Snapshot, Source, SourceRule, Sources,
};

/// Makes the snapshot that follows `inputs.previous`.
///
/// # Errors
/// In words, when a Maglev table cannot be built; a checked configuration does not cause it, a
/// weight set at run time can.
pub(crate) fn compile(config: &config::Config, inputs: &Inputs<'_>) -> Result<Snapshot, String> {
    let backends = kept_backends(inputs);
    let kept = inputs.previous.backends.iter().zip(&backends).filter(|(_, kept)| kept.is_some());
    let known =
        kept.filter_map(|(old, _)| old.as_ref()).map(|old| (backend_key(old), old)).collect();
    let mut builder = Builder {
        config,
        inputs,
        backends,
        known,
        taken: 0,
        sources: kept_sources(inputs)
            .into_iter()
            .map(|source| ((source.address(), source.backend().clone()), source))
            .collect(),
        pools: Vec::new(),
    };
    let pool_ids = builder.add_pools()?;
    let (listeners, open) = builder.listeners(&pool_ids);
    let accepting = open.iter().zip(inputs.addresses).map(|(id, ranges)| (*id, &ranges[..]));
    let has_bandwidth = listeners
        .iter()
        .flatten()
        .any(|listener| listener.terms.bandwidth.iter().any(Option::is_some));
    Ok(Snapshot {
        generation: Generation(inputs.previous.generation.0 + 1),
        by_address: ListenerIndex::new(accepting),
        listeners,
        open,
        pools: builder.pools,
        backends: builder.backends,
        sources: builder.sources.into_values().collect(),
        sessions_max: inputs.sessions_max,
        sessions: Arc::clone(&inputs.previous.sessions),
        bans: Arc::clone(&inputs.previous.bans),
        nat64: Nat64::new(&config.global.nat64),
        splice: config.global.splice,
        has_bandwidth,
    })
}

/// Backends of the previous snapshot that a worker may still use.
fn kept_backends(inputs: &Inputs<'_>) -> Vec<Option<Arc<Backend>>> {
    let previous = inputs.previous;
    let pools = previous.pools.iter().flatten();
    let configured: HashSet<BackendId> =
        pools.flat_map(|pool| pool.backends()).map(|member| member.id).collect();
    let keep = |backend: &Arc<Backend>| {
        configured.contains(&backend.id) || backend.state.active() > 0 || !all_past(inputs)
    };
    previous.backends.iter().map(|slot| slot.clone().filter(keep)).collect()
}

/// Sources of the previous snapshot that a worker may still use: whose session has a port of one
/// finds it counted when the source comes back.
fn kept_sources(inputs: &Inputs<'_>) -> Vec<Arc<Source>> {
    let previous = inputs.previous;
    let pools = previous.pools.iter().flatten();
    let configured: HashSet<*const Source> = pools
        .flat_map(|pool| pool.backends())
        .filter_map(|backend| backend.sources())
        .flat_map(Sources::list)
        .map(Arc::as_ptr)
        .collect();
    let keep = |source: &Arc<Source>| {
        configured.contains(&Arc::as_ptr(source)) || source.in_use() > 0 || !all_past(inputs)
    };
    previous.sources.iter().filter(|source| keep(source)).cloned().collect()
}

/// Whether no worker uses a snapshot older than the previous one.
fn all_past(inputs: &Inputs<'_>) -> bool {
    inputs.acknowledged >= inputs.previous.generation
}

/// The limits that a listener had in the process before.
fn known_before<'a>(inputs: &Inputs<'a>, listener: &str) -> &'a [Limit] {
    inputs.inherited.limits.get(listener).map_or(&[], |limits| limits)
}

/// What clients that are turned away are told.
fn refusal(refusal: &config::RefusalConfig) -> RefusalText {
    let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
    let headers: String = refusal.headers.iter().map(line).collect();
    RefusalText { headers: headers.into(), bytes: refusal.bytes.as_deref().map(Into::into) }
}

/// The first free slot from `start` on, before which there is none; makes one when all are taken.
fn free_index<T>(slots: &mut Vec<Option<T>>, start: usize) -> usize {
    let free = (start..slots.len()).find(|index| slots[*index].is_none());
    free.unwrap_or_else(|| {
        slots.push(None);
        slots.len() - 1
    })
}

#[allow(clippy::cast_possible_truncation, reason = "a configuration has far fewer than 2^32 items")]
fn id_number(index: usize) -> u32 {
    index as u32
}

/// What makes two backends the same one: pool, name and address.
type BackendKey<'a> = (&'a str, &'a str, &'a Address);

fn backend_key(backend: &Backend) -> BackendKey<'_> {
    (&backend.pool_name, &backend.name, &backend.address)
}

struct Builder<'a> {
    config: &'a config::Config,
    inputs: &'a Inputs<'a>,
    backends: Vec<Option<Arc<Backend>>>,
    /// Backends that were there before, by pool, name and address.
    known: HashMap<BackendKey<'a>, &'a Arc<Backend>>,
    /// No slot of `backends` before this one is free.
    taken: usize,
    sources: BTreeMap<(IpAddr, Address), Arc<Source>>,
    pools: Vec<Option<Arc<Pool>>>,
}

/// What a pool keeps from one snapshot to the next.
struct PoolSlot {
    id: PoolId,
    state: Arc<PoolState>,
    /// To how many ports its clients may connect, where a backend without one needs to know.
    reached_ports: u32,
}

/// What a listener gets beside its table in the file.
struct ListenerSlot<'a> {
    id: ListenerId,
    pool: PoolId,
    /// Real ones.
    addresses: &'a [AddressRange],
    /// `None`: as before.
    gate: Option<&'a ListenerGate>,
    /// What it was in the previous snapshot.
    known: Option<&'a Listener>,
}

impl Builder<'_> {
    /// Adds every pool; returns their ids in the order of the configuration.
    fn add_pools(&mut self) -> Result<Vec<PoolId>, String> {
        let config = self.config;
        let previous = self.inputs.previous;
        self.pools = vec![None; previous.pools.len()];
        let known: HashMap<&str, PoolId> =
            previous.pools.iter().flatten().map(|old| (old.name.as_str(), old.id)).collect();
        let ids = config.pools.iter().map(|pool| {
            known.get(pool.name.as_str()).copied().unwrap_or_else(|| self.new_pool_id())
        });
        let ids: Vec<PoolId> = ids.collect();
        for (pool, id) in config.pools.iter().zip(&ids) {
            let built = self.pool(pool, *id)?;
            self.pools[id.index()] = Some(Arc::new(built));
        }
        Ok(ids)
    }

    /// An id that no pool of the previous snapshot has: sessions that are still connecting look
    /// their pool up by it.
    fn new_pool_id(&mut self) -> PoolId {
        self.pools.push(None);
        PoolId::new(id_number(self.pools.len() - 1))
    }

    fn pool(&mut self, pool: &config::PoolConfig, id: PoolId) -> Result<Pool, String> {
        let previous = self.inputs.previous.pool(id);
        let state =
            previous.map_or_else(|| Arc::new(PoolState::default()), |p| Arc::clone(&p.state));
        let slot = PoolSlot { id, state, reached_ports: self.reached_ports(pool) };
        let members: Vec<Arc<Backend>> =
            pool.backends.iter().map(|backend| self.backend(pool, &slot, backend)).collect();
        let (backup, primary): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|backend| backend.backup);
        let seed = self.config.global.hash_seed;
        let hash = choosing::hash_plan(pool, seed);
        let remembered = match previous {
            Some(pool) => pool.sticky.as_ref().map(|sticky| (&pool.hash, sticky)),
            // Before an upgrade, if there was one.
            None => {
                let before = self.inputs.inherited.choices.get(&pool.name);
                before.map(|choices| (&choices.hash, &choices.sticky))
            }
        };
        Ok(Pool {
            id,
            name: pool.name.clone(),
            sticky: pool
                .sticky
                .map(|wanted| choosing::sticky(wanted, &hash, remembered, self.inputs.seeds[0])),
            hash,
            primary: choosing::group(pool, primary, seed, previous.map(|pool| &pool.primary))?,
            backup: choosing::group(pool, backup, seed, previous.map(|pool| &pool.backup))?,
            terms: pool.terms,
            on_down: leave(pool.on_down),
            on_up: leave(pool.on_up),
            state: slot.state,
        })
    }

    /// A backend with the same pool, name and address is the same one.
    fn backend(
        &mut self,
        pool: &config::PoolConfig,
        slot: &PoolSlot,
        backend: &config::BackendConfig,
    ) -> Arc<Backend> {
        let address = backend.address.clone();
        let known = self.known.get(&(&*pool.name, &*backend.name, &address));
        let initial_up = pool.health.as_ref().is_none_or(|health| health.initial_up);
        let (id, state) = match known {
            Some(old) => (old.id, Arc::clone(&old.state)),
            None => {
                let index = free_index(&mut self.backends, self.taken);
                self.taken = index + 1;
                let mark = self.mark(slot);
                let state = Arc::new(BackendState::new(self.inputs.workers, initial_up, mark));
                if self.inputs.previous.generation > Generation(0) {
                    state.begin(self.inputs.now_us);
                }
                (BackendId::new(id_number(index)), state)
            }
        };
        let set = self.inputs.overrides.get(&(pool.name.clone(), backend.name.clone()));
        let source = self.source_rule(pool, slot, &address);
        let built = Arc::new(Backend {
            id,
            pool: slot.id,
            pool_name: pool.name.clone(),
            name: backend.name.clone(),
            address,
            weight: set.and_then(|set| set.weight).unwrap_or(backend.weight),
            sessions_max: backend.max_sessions,
            backup: backend.backup,
            source: source.map(Box::new),
            line: pool.terms.queue.map(|_| Arc::clone(&slot.state.line)),
            measured: pool.balance.measures(),
            state,
        });
        self.backends[id.index()] = Some(Arc::clone(&built));
        built
    }

    /// A mark that no backend of the pool has, neither in this snapshot nor in the previous one.
    fn mark(&self, slot: &PoolSlot) -> u16 {
        let has_it = |mark: u16| {
            let members = self.backends.iter().flatten().filter(|other| other.pool == slot.id);
            members.into_iter().any(|other| other.state.mark() == mark)
        };
        slot.state.next_mark(has_it)
    }

    /// Where connections to an address come from, unless the kernel chooses.
    fn source_rule(
        &mut self,
        pool: &config::PoolConfig,
        slot: &PoolSlot,
        address: &Address,
    ) -> Option<SourceRule> {
        let to = address.host_ip()?;
        if pool.transparent {
            return Some(SourceRule::Client);
        }
        if pool.source.is_empty() {
            return None;
        }
        let is_v4 = to.to_canonical().is_ipv4();
        let fitting = pool.source.iter().filter(|own| own.is_ipv4() == is_v4);
        let list = fitting.map(|own| self.source(*own, address)).collect();
        let reached = if address.is_without_port() { slot.reached_ports } else { 1 };
        let ports = self.inputs.source_ports.saturating_mul(reached);
        Some(SourceRule::Sources(Sources::new(list, ports, self.inputs.workers)))
    }

    /// To how many ports clients of a pool may connect, where sources are counted towards hosts
    /// without a port; else 1.
    fn reached_ports(&self, pool: &config::PoolConfig) -> u32 {
        if pool.source.is_empty() || !pool.backends.iter().any(|it| it.address.is_without_port()) {
            return 1;
        }
        let index = self.config.pools.iter().position(|other| other.name == pool.name);
        let leads_there = |listener: &config::ListenerConfig| {
            index.is_some_and(|index| listener.pools().any(|pool| pool == index))
        };
        let listeners = self.config.listeners.iter().zip(self.inputs.addresses);
        let used = listeners.filter(|(listener, _)| leads_there(listener));
        let ranges = used.flat_map(|(_, ranges)| ranges);
        let ports: HashSet<u16> = ranges.filter_map(AddressRange::ports).flatten().collect();
        id_number(ports.len().max(1))
    }

    /// An address of ours towards one backend address is one source, whichever pool has it.
    fn source(&mut self, own: IpAddr, to: &Address) -> Arc<Source> {
        let new = || Arc::new(Source::new(own, to.clone()));
        Arc::clone(self.sources.entry((own, to.clone())).or_insert_with(new))
    }

    fn listeners(&self, pools: &[PoolId]) -> (Vec<Option<Arc<Listener>>>, Vec<ListenerId>) {
        let previous = self.inputs.previous;
        let keep = |listener: &Arc<Listener>| {
            previous.is_open(listener)
                || listener.state.active.value() > 0
                || !all_past(self.inputs)
        };
        let mut listeners: Vec<_> =
            previous.listeners.iter().map(|slot| slot.clone().filter(keep)).collect();
        let kept = listeners.clone();
        let by_name: HashMap<&str, &Arc<Listener>> =
            kept.iter().flatten().map(|old| (old.name.as_str(), old)).collect();
        let mut open = Vec::new();
        let addresses = self.inputs.addresses.iter().enumerate();
        for (listener, (position, addresses)) in self.config.listeners.iter().zip(addresses) {
            let known = by_name.get(listener.name.as_str()).map(|old| Arc::clone(old));
            let id = known.as_ref().map_or_else(
                || ListenerId::new(id_number(free_index(&mut listeners, 0))),
                |old| old.id,
            );
            let pool = pools.get(listener.pool).copied().unwrap_or(PoolId::new(0));
            let routing = self.routing(listener, pools);
            let gate = self.inputs.gates.get(position);
            let slot = ListenerSlot { id, pool, addresses, gate, known: known.as_deref() };
            let mut built = self.listener(listener, &slot);
            built.routing = routing;
            listeners[id.index()] = Some(Arc::new(built));
            open.push(id);
        }
        (listeners, open)
    }

    /// What is looked at, unless the listener alone decides.
    fn routing(&self, listener: &config::ListenerConfig, pools: &[PoolId]) -> Option<Routing> {
        let is_hashed = |pool: usize| {
            self.config.pools.get(pool).is_some_and(|pool| choosing::hashed_words(pool).is_some())
        };
        if listener.routes.is_empty() && !is_hashed(listener.pool) {
            return None;
        }
        let route = |route: &config::RouteConfig| Route {
            names: (!route.sni.is_empty())
                .then(|| Names::new(route.sni.iter().map(String::as_str))),
            protocols: (!route.alpn.is_empty())
                .then(|| route.alpn.iter().map(|name| Box::from(name.as_bytes())).collect()),
            is_tls: route.tls,
            clients: (!route.client.is_empty()).then(|| NetSet::new(&route.client)),
            target: pools.get(route.pool).copied().unwrap_or(PoolId::new(0)),
        };
        Some(Routing { routes: listener.routes.iter().map(route).collect(), peek: listener.peek })
    }

    fn listener(&self, listener: &config::ListenerConfig, slot: &ListenerSlot<'_>) -> Listener {
        let ListenerSlot { id, pool, addresses, gate, known } = *slot;
        let state = known.map_or_else(
            || Arc::new(ListenerState::new(self.inputs.workers)),
            |old| Arc::clone(&old.state),
        );
        for count in gate.iter().flat_map(|gate| gate.counts.iter().flatten()) {
            state.in_kernel.limit.add(count);
        }
        if let Some(counts) = gate.and_then(|gate| gate.access_counts.as_ref()) {
            state.in_kernel.access.add(&counts.lists);
            state.in_kernel.ban.add(&counts.ban);
        }
        let gate_before = || known.and_then(|old| old.gate.clone());
        let refusing_before =
            || known.map_or_else(limits::not_in_kernel, |old| old.access_refusing.clone());
        Listener {
            id,
            gate: gate.map_or_else(gate_before, |gate| gate.gate.clone()),
            access_refusing: gate.map_or_else(refusing_before, |gate| gate.access.clone()),
            name: listener.name.clone(),
            addresses: addresses.to_vec(),
            pool,
            terms: listener.terms,
            sessions_max: listener.max_sessions.unwrap_or(u64::MAX),
            access: AccessList::new(&listener.allow, &listener.deny),
            accept_proxy: listener.accept_proxy.as_ref().map(|rule| AcceptProxy {
                from: NetSet::new(&rule.from),
                from_unix: rule.from_unix,
                is_direct_else: rule.is_direct_else,
                timeout: rule.timeout,
            }),
            routing: None,
            limits: limits::limits(
                self.inputs,
                &listener.limits,
                gate,
                match known {
                    Some(old) => &old.limits,
                    // Before an upgrade, if there was one.
                    None => known_before(self.inputs, &listener.name),
                },
            ),
            refusal: refusal(&listener.refusal),
            state,
        }
    }
}
