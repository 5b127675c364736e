//! The snapshots of a schedule, and what they share: the numbers that have to be back at zero.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::policy::admit::access::{AccessList, NetSet};
use evenkeel::policy::admit::admission::Rules;
use evenkeel::policy::admit::ban_set::BanSet;
use evenkeel::policy::admit::limiter::{Decision, Limiter};
use evenkeel::policy::admit::shared_rate::SharedRate;
use evenkeel::policy::balance::hash::Prefix;
use evenkeel::policy::balance::panic_mode::PanicThreshold;
use evenkeel::policy::client::Client;
use evenkeel::policy::first_bytes::proxy_header::tlv::TlvKinds;
use evenkeel::policy::first_bytes::route::{Names, Route};
use evenkeel::policy::nat64::Nat64;
use evenkeel::policy::session_terms::{ListenerTerms, PoolTerms};
use evenkeel::policy::terms::Peek;
use evenkeel::shared::{
    AcceptProxy, Address, Backend, BackendId, BackendState, Balance, Bans, Gate, Gauge, Generation,
    Group, HashPlan, HostAddress, Keepalive, Limit, LimitState, Listener, ListenerId,
    ListenerIndex, ListenerState, Pool, PoolId, PoolState, Refusing, Routing, Snapshot, Source,
    SourceRule, Sources,
};
use ipnet::IpNet;

use super::gate::Remembered;
use super::kernel::HERE;
use super::setting::{CONNECT_TIMEOUT, Change, READING_TIMEOUT, RETRIES, Setting};

/// Ports of each address that connections may come from.
const SOURCE_PORTS: u32 = 2;
/// Bytes of a client that are looked at before it has a backend.
const LOOKED_AT_MAX: u32 = 300;

/// The state that all snapshots of a schedule share.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) setting: Setting,
    pub(crate) sessions: Arc<Gauge>,
    pub(crate) bans: Arc<Bans>,
    /// The listener, and what it is called later.
    pub(crate) listeners: [Arc<ListenerState>; 2],
    pub(crate) pools: [Arc<PoolState>; 2],
    /// Of the pool, and as many of the one that it becomes.
    pub(crate) backends: Vec<Arc<BackendState>>,
    pub(crate) sources: Vec<Arc<Source>>,
    pub(crate) limiter: Arc<Limiter>,
    listener_rate: Arc<SharedRate>,
    limit_state: Arc<LimitState>,
    /// Clients that the kernel would refuse.
    pub(crate) gate: Remembered,
}

/// The four addresses from which clients come, and those that headers claim for them.
pub(crate) fn client_ip(which: u8, is_claimed: bool) -> IpAddr {
    if is_claimed { [198, 51, 100, which].into() } else { [192, 0, 2, which].into() }
}

fn net(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new_assert(address, prefix)
}

impl House {
    pub(crate) fn new(setting: Setting) -> Self {
        let marks = 0..u16::try_from(setting.backends * 2).unwrap();
        let state = |mark| Arc::new(BackendState::new(setting.workers, true, mark));
        let states = || marks.clone().map(state);
        let sources = |index: u32| {
            [[10, 1, 0, 1], [10, 1, 0, 2]]
                .map(|from| Arc::new(Source::new(from.into(), backend_address(index))))
        };
        let has_sources = setting.has_sources && !setting.unix_backends;
        let count = if has_sources { setting.backends * 2 } else { 0 };
        Self {
            setting,
            sessions: Arc::default(),
            bans: Arc::default(),
            listeners: [(); 2].map(|()| Arc::new(ListenerState::new(setting.workers))),
            pools: [(); 2].map(|()| Arc::default()),
            backends: states().collect(),
            sources: (0..count).flat_map(sources).collect(),
            limiter: Arc::new(Limiter::new(64, Some(64), [1, 2, 3, 4])),
            listener_rate: Arc::default(),
            limit_state: Arc::new(LimitState::new(setting.workers)),
            gate: Remembered::default(),
        }
    }

    /// The address on which clients are accepted.
    pub(crate) fn address(&self) -> Address {
        if self.setting.unix_clients {
            return Address::Unix(std::path::Path::new("/run/a.sock").into());
        }
        Address::Ip(HERE.into())
    }

    /// Whether an operator has banned a client.
    pub(crate) fn is_banned(&self, client: Client) -> bool {
        let bans = self.bans.latest();
        let is_covered = |ip| bans.as_ref().is_some_and(|bans| bans.covering(ip, 0).is_some());
        client.ip().is_some_and(is_covered)
    }

    /// Bans a client, where some are to be turned away.
    pub(crate) fn ban(&self) {
        let banned = [client_ip(3, false), client_ip(3, true)].map(|ip| (ip.into(), u64::MAX));
        self.bans.replace(self.setting.denies.then(|| BanSet::new(banned)));
    }

    pub(crate) fn is_denied(&self, client: Client) -> bool {
        let denied = [client_ip(2, false), client_ip(2, true)];
        self.setting.denies && client.ip().is_some_and(|ip| denied.contains(&ip))
    }

    /// Whether a client has to begin with a header.
    pub(crate) fn is_proxy(&self, client: Client) -> bool {
        self.setting.accept_proxy.is_some() && client.ip() != Some(client_ip(4, false))
    }

    /// The first snapshot, or the one that a change leads to.
    pub(crate) fn snapshot(&self, change: Option<Change>) -> Arc<Snapshot> {
        let is = |wanted: Change| change == Some(wanted);
        let pool = usize::from(is(Change::PoolRenamed) || is(Change::BothRenamed));
        let listener = usize::from(is(Change::ListenerRenamed) || is(Change::BothRenamed));
        let backends = self.all_backends();
        let first = pool * self.setting.backends as usize + usize::from(is(Change::BackendRemoved));
        let end = (pool + 1) * self.setting.backends as usize;
        let members: Vec<Arc<Backend>> = backends[first..end].to_vec();
        let mut pools = vec![None, None];
        pools[pool] = Some(Arc::new(self.pool(pool, members)));
        // A listener that is gone keeps the pool that it had.
        let own_pool = if listener == 0 { pool } else { 0 };
        let mut listeners = vec![Some(Arc::new(self.listener(0, own_pool, change))), None];
        if listener == 1 {
            listeners[1] = Some(Arc::new(self.listener(1, pool, change)));
        }
        let open = vec![ListenerId::new(listener as u32)];
        let open = if is(Change::ListenerRemoved) { Vec::new() } else { open };
        let addresses = [self.address().into()];
        let by_address = ListenerIndex::new(open.iter().map(|id| (*id, &addresses[..])));
        Arc::new(Snapshot {
            generation: Generation(1 + u64::from(change.is_some())),
            listeners,
            open,
            by_address,
            pools,
            backends: backends.into_iter().map(Some).collect(),
            sources: self.sources.clone(),
            sessions_max: self.setting.process_max,
            sessions: Arc::clone(&self.sessions),
            bans: Arc::clone(&self.bans),
            nat64: Nat64::default(),
            splice: self.setting.splice,
            has_bandwidth: self.setting.bandwidth.iter().any(Option::is_some),
        })
    }

    fn all_backends(&self) -> Vec<Arc<Backend>> {
        (0..self.setting.backends * 2).map(|index| Arc::new(self.backend(index))).collect()
    }

    fn backend(&self, index: u32) -> Backend {
        let pool = usize::from(index >= self.setting.backends);
        let (sources, _) = self.sources.as_chunks::<2>();
        let source = sources.get(index as usize).map(|pair| {
            let sources = Sources::new(pair.to_vec(), SOURCE_PORTS, self.setting.workers);
            Box::new(SourceRule::Sources(sources))
        });
        let address = if self.setting.unix_backends {
            Address::Unix(std::path::Path::new("/run/b.sock").into())
        } else if self.setting.is_without_port && !self.setting.unix_clients {
            Address::Host(HostAddress::of(backend_address(index)))
        } else {
            Address::Ip(backend_address(index))
        };
        Backend {
            id: BackendId::new(index),
            pool: PoolId::new(pool as u32),
            pool_name: String::new(),
            name: String::new(),
            address,
            weight: 1,
            sessions_max: self.setting.backend_max,
            backup: self.is_backup(index),
            measured: false,
            source,
            line: self.setting.queue.map(|_| Arc::clone(&self.pools[pool].line)),
            state: Arc::clone(&self.backends[index as usize]),
        }
    }

    /// Whether it is the last of its pool, and that one serves only when no other can.
    pub(crate) fn is_backup(&self, index: u32) -> bool {
        self.setting.has_backup && (index + 1).is_multiple_of(self.setting.backends)
    }

    /// The states of the backends of the first pool that serve.
    pub(crate) fn primaries(&self) -> impl Iterator<Item = &Arc<BackendState>> {
        let own = (0..self.setting.backends).zip(&self.backends);
        own.filter(|(index, _)| !self.is_backup(*index)).map(|(_, state)| state)
    }

    fn group(&self, members: Vec<Arc<Backend>>) -> Group {
        let weights = vec![1; members.len()];
        let balance = match (self.setting.balance, members.len()) {
            (_, 0) => Balance::Empty,
            (0, _) => Balance::RoundRobin(weights),
            (1, _) => Balance::LeastConnections(weights),
            (2, _) => Balance::RandomTwo(weights),
            _ => Balance::First,
        };
        Group { members, balance }
    }

    fn pool(&self, which: usize, members: Vec<Arc<Backend>>) -> Pool {
        let (backup, primary) = members.into_iter().partition(|member| member.backup);
        let setting = &self.setting;
        let hash = HashPlan {
            said: None,
            prefix: Prefix::WHOLE,
            with_port: false,
            is_one: false,
            seed: 0,
        };
        Pool {
            id: PoolId::new(which as u32),
            name: String::new(),
            hash,
            sticky: None,
            primary: self.group(primary),
            backup: self.group(backup),
            terms: PoolTerms {
                connect_timeout: CONNECT_TIMEOUT,
                retries: RETRIES,
                retry_delay: setting.retry_delay,
                send_proxy: setting.send_proxy,
                pass_tlvs: TlvKinds::AUTHORITY,
                send_proxy_max: 107,
                queue: setting.queue,
                load_factor: None,
                slow_start: None,
                panic_threshold: PanicThreshold::AtMost(0),
                outlier: None,
            },
            on_down: setting.leave,
            on_up: setting.leave,
            state: Arc::clone(&self.pools[which]),
        }
    }

    fn listener(&self, which: usize, pool: usize, change: Option<Change>) -> Listener {
        let setting = &self.setting;
        let [idle, half_closed] = match change {
            Some(Change::Timeouts) => setting.other_timeouts(),
            _ => [setting.idle, setting.half_closed],
        };
        let second = Duration::from_secs(1);
        Listener {
            id: ListenerId::new(which as u32),
            name: String::new(),
            addresses: vec![self.address().into()],
            pool: PoolId::new(pool as u32),
            terms: ListenerTerms {
                protocol: setting.protocol,
                idle_timeout: idle,
                half_closed_timeout: half_closed,
                on_idle: setting.on_idle,
                max_lifetime: setting.lifetime,
                keepalive: Keepalive { idle: second, interval: second, count: 3 },
                user_timeout: None,
                bandwidth: setting.bandwidth,
            },
            sessions_max: setting.listener_max,
            access: self.access(),
            accept_proxy: setting.accept_proxy.map(|is_direct_else| AcceptProxy {
                from: NetSet::new(&[net(client_ip(0, false), 30)]),
                from_unix: true,
                is_direct_else,
                timeout: READING_TIMEOUT,
            }),
            routing: setting.routing.map(|is_default_else| routing(pool, is_default_else)),
            limits: self.limit().into_iter().collect(),
            gate: None,
            access_refusing: Refusing::InWorkers("a simulated kernel has no lists".into()),
            refusal: setting.refusal(),
            state: Arc::clone(&self.listeners[which]),
        }
    }

    fn access(&self) -> AccessList {
        let denied = [false, true].map(|is_claimed| net(client_ip(2, is_claimed), 32));
        AccessList::new(&[], if self.setting.denies { &denied } else { &[] })
    }

    fn limit(&self) -> Option<Limit> {
        let setting = self.setting.limit?;
        Some(Limit {
            name: "default".into(),
            clients: None,
            state: Arc::clone(&self.limit_state),
            limiter: Arc::clone(&self.limiter),
            listener_rate: Arc::clone(&self.listener_rate),
            rules: Rules {
                rate: setting.rate,
                concurrent_max: setting.concurrent_max,
                listener_rate: setting.listener_rate,
            },
            key: Prefix::WHOLE,
            action: setting.action,
            observe: setting.observe,
            exempt: None,
            refusing: self.refusing(),
            table_size: 64,
        })
    }

    /// As with a gate wherever there can be one.
    fn refusing(&self) -> Refusing {
        let is_claimed = self.setting.accept_proxy.is_some();
        match self.setting.limit {
            Some(limit) if limit.rate.is_some() && !limit.observe && !is_claimed => {
                let gate = Arc::new(Gate::new(Box::new(self.gate.clone())));
                Refusing::InKernel { gate, mark: 1 }
            }
            _ => Refusing::InWorkers("no rate, or clients that are named by a header".into()),
        }
    }

    /// Clients that the kernel would refuse and a worker would let in.
    pub(crate) fn refused_for_nothing(&self, now_us: u64) -> Vec<IpAddr> {
        let Some(rate) = self.setting.limit.and_then(|limit| limit.rate) else { return Vec::new() };
        let mut refused = self.gate.refused(now_us);
        refused.retain(|client| {
            let key = self.limiter.key(*client, Prefix::WHOLE);
            self.limiter.peek(key, now_us, &rate) == Decision::Allowed
        });
        refused
    }

    /// What is not back at zero although every session is over.
    pub(crate) fn places_left(&self) -> Vec<String> {
        let mut left = vec![("of the process", self.sessions.value())];
        left.extend(self.listeners.iter().map(|it| ("of a listener", it.active.value())));
        left.extend(self.backends.iter().map(|it| ("of a backend", it.active())));
        left.extend(self.pools.iter().map(|it| ("in a line", it.line.len())));
        left.extend(self.sources.iter().map(|it| ("of a source", it.in_use())));
        let ips = (1..5).flat_map(|which| [false, true].map(|claimed| client_ip(which, claimed)));
        let keys = ips.map(|ip| self.limiter.key(ip, Prefix::WHOLE));
        let keys = keys.chain([self.limiter.key_without_address()]);
        left.extend(keys.map(|key| ("of a client", self.limiter.sessions(key))));
        left.retain(|(_, count)| *count > 0);
        left.into_iter().map(|(place, count)| format!("{count} places left {place}")).collect()
    }
}

fn routing(pool: usize, is_default_else: bool) -> Routing {
    let names = Some(Names::new(["a.example"]));
    let target = PoolId::new(pool as u32);
    Routing {
        routes: vec![Route { names, protocols: None, is_tls: None, clients: None, target }],
        peek: Peek {
            timeout: READING_TIMEOUT,
            max_bytes: LOOKED_AT_MAX,
            is_default_else,
            is_postgres: false,
        },
    }
}

fn backend_address(index: u32) -> SocketAddr {
    ([10, 0, 0, index as u8], 80).into()
}
