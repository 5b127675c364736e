//! The immutable view of listeners, pools and backends that workers decide by.
//!
//! One generation, one `Arc`, replaced whole: no reader ever sees a mixture of two
//! configurations. What changes between two snapshots lives in the `state` fields, which
//! successive snapshots share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::address_range::AddressRange;
use crate::policy::admit::access::{AccessList, NetSet};
use crate::policy::admit::admission::{Asked, Rules};
use crate::policy::admit::limiter::{LimitKey, Limiter};
use crate::policy::admit::shared_rate::SharedRate;
use crate::policy::balance::Balance;
use crate::policy::balance::hash::Prefix;
use crate::policy::balance::sticky::Memory;
use crate::policy::client::Client;
use crate::policy::first_bytes::route::Route;
use crate::policy::health::pool_health::PoolHealth;
use crate::policy::nat64::{Nat64, SeenClient};
use crate::policy::session_terms::{ListenerTerms, PoolTerms};
use crate::policy::terms::{Address, LimitAction, Peek, SpliceMode};

use super::backend::{BackendState, PoolState};
use super::bans::Bans;
use super::gate::{AccessMarks, Gate, Refusing};
use super::ids::{BackendId, Generation, ListenerId, PoolId};
use super::leave::Leave;
use super::listener_index::ListenerIndex;
use super::pick::Obstacle;
use super::source::{Source, SourceRule, Sources};
use super::stats::{Gauge, LimitState, ListenerState};
use super::tally::AdminState;
use super::waiting::WaitingLine;

/// Everything a worker decides by. The vectors are indexed by id; a hole is an id not in use.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number.
    pub generation: Generation,
    /// Listeners, those that are gone but may still have sessions too.
    pub listeners: Vec<Option<Arc<Listener>>>,
    /// Listeners of the configuration, in its order.
    pub open: Vec<ListenerId>,
    /// Their addresses.
    pub by_address: ListenerIndex,
    /// Pools of the configuration.
    pub pools: Vec<Option<Arc<Pool>>>,
    /// Backends, those that are gone but may still have sessions too.
    pub backends: Vec<Option<Arc<Backend>>>,
    /// Addresses to connect from, those that are gone but still have sessions too.
    pub sources: Vec<Arc<Source>>,
    /// Sessions the process may hold at once.
    pub sessions_max: u64,
    /// Sessions it holds now.
    pub sessions: Arc<Gauge>,
    /// Clients that operators ban; all snapshots share them.
    pub bans: Arc<Bans>,
    /// Translators, whose clients are their IPv4 address for limits, lists and hashes.
    pub nat64: Nat64,
    /// When bytes are spliced.
    pub splice: SpliceMode,
    /// Some listener bounds the bandwidth of its sessions.
    pub has_bandwidth: bool,
}

impl Snapshot {
    /// The snapshot before the first configuration.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            generation: Generation(0),
            listeners: Vec::new(),
            open: Vec::new(),
            by_address: ListenerIndex::default(),
            pools: Vec::new(),
            backends: Vec::new(),
            sources: Vec::new(),
            sessions_max: 0,
            sessions: Arc::new(Gauge::default()),
            bans: Arc::default(),
            nat64: Nat64::default(),
            splice: SpliceMode::Auto,
            has_bandwidth: false,
        }
    }

    /// The listener with this id.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        self.listeners.get(id.index())?.as_ref()
    }

    /// The pool with this id.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> Option<&Arc<Pool>> {
        self.pools.get(id.index())?.as_ref()
    }

    /// The backend with this id.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        self.backends.get(id.index())?.as_ref()
    }

    /// The listener of the configuration to which a client of this one would come now: itself, or
    /// the one that has an address of it; itself where no listener has.
    #[must_use]
    pub fn serving_listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        let listener = self.listener(id)?;
        // One of the configuration has its own addresses.
        let mut ranges = listener.addresses.iter();
        let serving = ranges.find_map(|range| self.by_address.first_of(range));
        Some(serving.and_then(|id| self.listener(id)).unwrap_or(listener))
    }

    /// Whether a listener is one of the configuration, and accepts.
    #[must_use]
    pub fn is_open(&self, listener: &Listener) -> bool {
        let first = listener.addresses.first();
        first.and_then(|first| self.by_address.first_of(first)) == Some(listener.id)
    }

    /// Listeners of the configuration, in its order.
    pub fn open_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.open.iter().filter_map(|id| self.listener(*id))
    }

    /// The listener of the configuration that accepts on this address.
    #[must_use]
    pub fn listener_on(&self, address: &Address) -> Option<&Arc<Listener>> {
        self.listener(self.by_address.on(address)?)
    }
}

/// Addresses that accept, and what happens to a client that connects.
#[derive(Debug)]
pub struct Listener {
    /// Its id.
    pub id: ListenerId,
    /// Its name in the file.
    pub name: String,
    /// Where it accepts, port 0 already replaced by the real port.
    pub addresses: Vec<AddressRange>,
    /// Where its sessions go.
    pub pool: PoolId,
    /// What holds for each of its sessions.
    pub terms: ListenerTerms,
    /// Sessions it may hold at once.
    pub sessions_max: u64,
    /// Which clients may connect.
    pub access: AccessList,
    /// Peers that have to name their client in a PROXY header.
    pub accept_proxy: Option<AcceptProxy>,
    /// Where a session goes, if that or its hash depends on more than the listener.
    pub routing: Option<Routing>,
    /// Admission per client: all of these that concern the client are asked.
    pub limits: Box<[Limit]>,
    /// What the kernel refuses by itself; `None`: nothing.
    pub gate: Option<Arc<Gate>>,
    /// Where clients are refused that `access` or a ban does not admit.
    pub access_refusing: Refusing<AccessMarks>,
    /// What clients that are turned away are told, beside what is said without it.
    pub refusal: RefusalText,
    /// What stays over reloads.
    pub state: Arc<ListenerState>,
}

/// What an operator has clients told that are turned away.
#[derive(Debug, Clone, Default)]
pub struct RefusalText {
    /// Fields of an HTTP answer, each with its CRLF.
    pub headers: Box<str>,
    /// All that clients of another protocol are sent.
    pub bytes: Option<Arc<[u8]>>,
}

/// Which peers have to begin with a PROXY header.
#[derive(Debug)]
pub struct AcceptProxy {
    /// These peers.
    pub from: NetSet,
    /// Peers on Unix sockets, too.
    pub from_unix: bool,
    /// Others are served as they are, instead of being refused.
    pub is_direct_else: bool,
    /// Bound on the header.
    pub timeout: Duration,
}

impl AcceptProxy {
    /// Whether a peer has to begin with a header.
    #[must_use]
    pub fn is_from(&self, peer: SeenClient) -> bool {
        let original = peer.translated_from.map(IpAddr::V6);
        peer.ip().map_or(self.from_unix, |ip| self.from.contains(ip))
            || original.is_some_and(|ip| self.from.contains(ip))
    }
}

/// The bytes that are looked at before a session has a pool and a backend.
#[derive(Debug)]
pub struct Routing {
    /// The first that matches counts, else the listener's pool.
    pub routes: Vec<Route<PoolId>>,
    /// Bounds on the bytes that decide.
    pub peek: Peek,
}

/// Admission per client, and of all clients together.
#[derive(Debug)]
pub struct Limit {
    /// Its name, unique in its listener.
    pub name: Arc<str>,
    /// The clients that it concerns; `None`: all of them.
    pub clients: Option<NetSet>,
    /// What clients have used, shared by all workers, kept over reloads.
    pub limiter: Arc<Limiter>,
    /// What all clients together have used of the rate.
    pub listener_rate: Arc<SharedRate>,
    /// How much they may use.
    pub rules: Rules,
    /// What counts as one client.
    pub key: Prefix,
    /// The way in which a client over its limit is refused.
    pub action: LimitAction,
    /// Count only.
    pub observe: bool,
    /// Clients that are never limited; `None` when none is exempt.
    pub exempt: Option<NetSet>,
    /// Buckets, as configured.
    pub table_size: u32,
    /// Where clients over its rate are refused.
    pub refusing: Refusing,
    /// What stays over reloads.
    pub state: Arc<LimitState>,
}

impl Limit {
    /// Whether it is to be asked for a client: else that one is neither limited nor counted by it.
    #[must_use]
    #[inline]
    pub fn concerns(&self, client: Option<IpAddr>) -> bool {
        let is_in = |set: &NetSet| client.is_some_and(|client| set.contains(client));
        self.clients.as_ref().is_none_or(is_in) && !self.is_exempt(client)
    }

    /// Whether a client is never limited and never counted.
    #[must_use]
    #[inline]
    pub fn is_exempt(&self, client: Option<IpAddr>) -> bool {
        let Some(exempt) = &self.exempt else { return false };
        client.is_some_and(|client| exempt.contains(client))
    }

    /// It, asked for a client.
    #[must_use]
    #[inline]
    pub fn asked(&self, client: Option<IpAddr>) -> Asked<'_> {
        let Self { rules, limiter, listener_rate, .. } = self;
        Asked { rules, limiter, listener_rate, key: self.key_of(client) }
    }

    /// The key under which a client is limited; `None` is a peer on a Unix socket.
    #[must_use]
    #[inline]
    pub fn key_of(&self, client: Option<IpAddr>) -> LimitKey {
        match client {
            Some(client) => self.limiter.key(client, self.key),
            None => self.limiter.key_without_address(),
        }
    }
}

/// Interchangeable servers and how one is chosen.
#[derive(Debug)]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Its name in the file.
    pub name: String,
    /// The part of a client that is hashed.
    pub hash: HashPlan,
    /// The choices that are remembered; `None`: none.
    pub sticky: Option<Sticky>,
    /// The backends that serve.
    pub primary: Group,
    /// The backends that serve when no primary can.
    pub backup: Group,
    /// What holds for each session that goes there.
    pub terms: PoolTerms,
    /// What happens to sessions of a backend that goes down.
    pub on_down: Leave,
    /// What happens to sessions on backups when a primary can serve again.
    pub on_up: Leave,
    /// What stays over reloads.
    pub state: Arc<PoolState>,
}

impl Pool {
    /// All backends, primaries first.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.primary.members.iter().chain(&self.backup.members)
    }

    /// Whether clients wait for a place here: a new one has to line up behind them.
    #[must_use]
    pub fn has_line(&self) -> bool {
        self.terms.queue.is_some() && !self.state.line.is_empty()
    }

    /// Whether clients may wait here, and a backend could serve once it has a place.
    #[must_use]
    pub fn is_only_full(&self) -> bool {
        self.terms.queue.is_some() && self.has_usable(|_| true)
    }

    /// Whether one of the backends that satisfy a condition could serve once it has a place.
    pub fn has_usable(&self, wanted: impl Fn(BackendId) -> bool) -> bool {
        let panicking = self.state.is_panicking();
        self.backends().any(|backend| wanted(backend.id) && backend.is_usable(panicking))
    }

    /// What the verdicts on its backends come to.
    #[must_use]
    pub fn health(&self) -> PoolHealth {
        self.state.tally.health()
    }

    /// Ejects a backend whose sessions have failed too often in a row. The thread that sees a
    /// failure asks at once, so that no further session meets it; where two threads ask at the same
    /// moment, the control plane asks again a moment later. Returns false when the pool cannot
    /// spare the backend.
    #[cold]
    pub fn eject_if_outlier(&self, backend: &Backend) -> bool {
        let Backend { state, .. } = backend;
        let (row, mut has_room) = (state.failure_evidence.row(), true);
        let Some(rules) = self.terms.outlier.as_ref().filter(|rules| rules.is_outlier(row)) else {
            return has_room;
        };
        self.state.eject_alone(|| {
            let is_judged = state.failure_evidence.is_judged();
            if is_judged && backend.is_wanted() && state.is_healthy() {
                has_room = rules.has_room(self.health());
                if has_room {
                    state.failure_evidence.decide(row);
                    state.set_ejected(true, &self.state.tally);
                }
            }
        });
        has_room
    }

    /// Stops to judge a backend by its sessions, and readmits it: from here on no thread ejects it.
    pub fn stop_judging(&self, backend: &Backend) {
        let stop = || {
            backend.state.failure_evidence.set_judged(false);
            backend.state.set_ejected(false, &self.state.tally);
        };
        // An ejection takes a few instructions.
        while !self.state.eject_alone(stop) {
            std::hint::spin_loop();
        }
    }
}

/// Choices that are remembered.
#[derive(Debug, Clone)]
pub struct Sticky {
    /// The choices, kept over reloads.
    pub memory: Arc<Memory>,
    /// How long after the latest session.
    pub seconds: u32,
    /// Clients, as configured.
    pub size: u32,
}

/// The part of a client that is hashed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashPlan {
    /// What the client says, where that is hashed instead of its address.
    pub said: Option<HashedWords>,
    /// Prefix lengths kept.
    pub prefix: Prefix,
    /// Whether the port is hashed too.
    pub with_port: bool,
    /// Whether nothing of the client is: all clients have one key.
    pub is_one: bool,
    /// The seed that all nodes share.
    pub seed: u64,
}

impl HashPlan {
    /// The address that is hashed; `None` where all clients have one key.
    #[must_use]
    pub fn address(&self, client: Client) -> Option<IpAddr> {
        client.ip().filter(|_| !self.is_one)
    }
}

/// Words of a client that are hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashedWords {
    /// The server's name in its TLS hello.
    ServerName,
    /// A header of its first request.
    Header(Box<str>),
    /// A cookie of its first request.
    Cookie(Box<str>),
    /// The client identifier in its MQTT CONNECT.
    MqttClientId,
    /// The user in the cookie of its RDP connection request.
    RdpCookie,
}

/// Backends among which one choice is made.
#[derive(Debug)]
pub struct Group {
    /// Indexed by the `u16` that policies speak of.
    pub members: Vec<Arc<Backend>>,
    /// How one is chosen.
    pub balance: Balance,
}

/// One server.
#[derive(Debug)]
pub struct Backend {
    /// Its id.
    pub id: BackendId,
    /// Its pool.
    pub pool: PoolId,
    /// Its pool's name.
    pub pool_name: String,
    /// Its name within the pool.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Its share, as configured or set at run time.
    pub weight: u32,
    /// Sessions it may hold.
    pub sessions_max: Option<u32>,
    /// Serves only when no other can.
    pub backup: bool,
    /// Whether choices in its pool look at how long it takes to connect.
    pub measured: bool,
    /// Where connections to it come from; `None`: the kernel chooses.
    pub source: Option<Box<SourceRule>>,
    /// Clients that wait for a place of its pool, if its pool lets clients wait.
    pub line: Option<Arc<WaitingLine>>,
    /// What stays over reloads.
    pub state: Arc<BackendState>,
}

impl Backend {
    /// The addresses it is connected from, if the configuration names some.
    #[must_use]
    pub fn sources(&self) -> Option<&Sources> {
        match self.source.as_deref() {
            Some(SourceRule::Sources(sources)) => Some(sources),
            _ => None,
        }
    }

    /// Whether it is connected from the client's address.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        matches!(self.source.as_deref(), Some(SourceRule::Client))
    }

    /// Gives the place of a session back, and calls the client that has waited longest for one.
    pub fn release_place(&self) {
        self.state.release();
        if let Some(line) = &self.line {
            line.place_is_free();
        }
    }

    /// Whether an operator lets it serve.
    #[must_use]
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.state.admin() == AdminState::Ready && self.weight > 0
    }

    /// Whether new sessions may go there as soon as there is room; `panicking` ignores the verdicts
    /// of probes and sessions, never the operator's.
    #[must_use]
    pub fn is_usable(&self, panicking: bool) -> bool {
        self.state.may_serve(panicking) && self.is_wanted()
    }

    /// Whether new sessions may go there now; `panicking` as above.
    #[must_use]
    pub fn is_eligible(&self, panicking: bool) -> bool {
        self.is_usable(panicking)
            && self.sessions_max.is_none_or(|max| self.state.active() < u64::from(max))
    }

    /// Why new sessions may not go there now; `None` when [`Self::is_eligible`].
    #[must_use]
    #[cold]
    pub fn obstacle(&self, panicking: bool) -> Option<Obstacle> {
        match self.state.admin() {
            AdminState::Ready => {}
            AdminState::Drain => return Some(Obstacle::Drain),
            AdminState::Maint => return Some(Obstacle::Maint),
        }
        if self.weight == 0 {
            return Some(Obstacle::NoWeight);
        }
        if !self.state.may_serve(panicking) {
            let is_up = self.state.is_up();
            return Some(if is_up { Obstacle::Ejected } else { Obstacle::Down });
        }
        let is_full = |max: u32| self.state.active() >= u64::from(max);
        self.sessions_max.is_some_and(is_full).then_some(Obstacle::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Tally;

    // If this fails, a backend that is passed over looks in the log as if it could have served, or
    // an operator is told of an obstacle that is none.
    #[test]
    fn a_backend_is_eligible_exactly_without_an_obstacle() {
        let mut seen = std::collections::HashSet::new();
        for bits in 0..128_u32 {
            let is = |bit: u32| bits >> bit & 1 == 1;
            let state = Arc::new(BackendState::new(1, !is(0), 0));
            let tally = Tally::default();
            state.set_ejected(is(1), &tally);
            if is(6) {
                state.set_up(!is(0), &tally);
            }
            let admins = [AdminState::Ready, AdminState::Drain, AdminState::Maint];
            for admin in admins {
                state.set_admin(admin, &tally);
                let backend = Backend {
                    id: BackendId::new(0),
                    pool: PoolId::new(0),
                    pool_name: "p".to_owned(),
                    name: "b".to_owned(),
                    address: Address::Ip(([192, 0, 2, 1], 80).into()),
                    weight: u32::from(!is(2)),
                    sessions_max: (!is(3)).then_some(u32::from(!is(4))),
                    backup: false,
                    measured: false,
                    line: None,
                    source: None,
                    state: Arc::clone(&state),
                };
                let obstacle = backend.obstacle(is(5));
                assert_eq!(obstacle.is_none(), backend.is_eligible(is(5)), "{backend:?}");
                seen.extend(obstacle.map(Obstacle::word));
            }
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
    }
}
