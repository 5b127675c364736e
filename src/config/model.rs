//! The checked configuration: what every other part of the program runs with.
//!
//! [`Config`] is total: every default is filled in, every name resolved, every value in range.
//! The types say what exists, nothing about TOML; optional means "off" or "auto", never "unknown".

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::terms::Word;

use super::{
    Address, BalanceAlgorithm, Keepalive, LimitAction, Prefix, Protocol, ProxyVersion, Queue,
    SpliceMode,
};

/// A whole configuration file, defaults filled in and names resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`: what concerns the process as a whole.
    pub global: Global,
    /// `[admin]`: how operators and tools reach the process.
    pub admin: Admin,
    /// `[listener.NAME]` tables, in the order of the file.
    pub listeners: Vec<ListenerConfig>,
    /// `[pool.NAME]` tables, in the order of the file.
    pub pools: Vec<PoolConfig>,
}

/// `[global]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// Data-plane threads; `None` is "auto": as many as CPUs this process may use.
    pub workers: Option<usize>,
    /// Sessions the process will hold at once; `None` is "auto": from limits of the process.
    pub max_sessions: Option<u64>,
    /// Bind worker N to the N-th CPU this process may use.
    pub pin_workers: bool,
    /// How long a stopping process waits for its sessions before it resets them.
    pub drain_timeout: Duration,
    /// How long a stopping process still accepts while it already reports "not ready".
    pub shutdown_delay: Duration,
    /// When bytes are spliced instead of copied.
    pub splice: SpliceMode,
    /// How long a worker polls without sleeping before it blocks.
    pub spin: Duration,
    /// Seed of the stable hash; the same on every node that must agree.
    pub hash_seed: u64,
    /// What is logged and how.
    pub log: Log,
}

/// `log = { ... }` of `[global]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least important event that is still written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether each session writes one line when it ends.
    pub sessions: bool,
}

/// Importance of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures the operator must act on.
    Error,
    /// State changes.
    Warn,
    /// Starts, stops, reloads.
    Info,
    /// One line and more per session.
    Debug,
    /// Everything.
    Trace,
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for a terminal, JSON otherwise.
    Auto,
    /// `key=value` pairs.
    Text,
    /// One JSON object a line.
    Json,
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Path of the Unix control socket.
    pub socket: PathBuf,
    /// True when the file names the socket: failing to make it is then fatal, else a warning.
    pub socket_required: bool,
    /// Address of the read-only HTTP page; `None` is off.
    pub http: Option<SocketAddr>,
}

/// `[listener.NAME]`: addresses that accept, and what happens to who connects.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Its name in the file.
    pub name: String,
    /// Addresses to accept on; port 0 lets the kernel choose. Never empty, no duplicates.
    pub bind: Vec<Address>,
    /// Index into [`Config::pools`].
    pub pool: usize,
    /// Other pools, for those whom the first matching route sends there.
    pub routes: Vec<RouteConfig>,
    /// How what the client says first is looked at, where a route or a hash needs it.
    pub peek: Peek,
    /// What clients speak.
    pub protocol: Protocol,
    /// A session without a byte in either direction ends after this.
    pub idle_timeout: Duration,
    /// The same once one side has sent EOF.
    pub half_closed_timeout: Duration,
    /// A session ends after this, spread by a tenth either way; `None` is never.
    pub max_lifetime: Option<Duration>,
    /// Sessions this listener will hold at once.
    pub max_sessions: Option<u64>,
    /// Length of the kernel's accept queue, per worker.
    pub backlog: u32,
    /// Networks that may connect; empty is everybody.
    pub allow: Vec<IpNet>,
    /// Networks that may not; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Peers that have to begin with a PROXY header; `None` is nobody.
    pub accept_proxy: Option<AcceptProxyConfig>,
    /// TCP keepalive of both sockets of a session.
    pub keepalive: Keepalive,
    /// TCP_USER_TIMEOUT of both sockets.
    pub user_timeout: Option<Duration>,
    /// Accept TCP Fast Open.
    pub fast_open: bool,
    /// TCP_DEFER_ACCEPT: wake up only when the client has sent something.
    pub defer_accept: bool,
    /// Accept Multipath TCP.
    pub mptcp: bool,
    /// How fast the bytes of each session may go.
    pub bandwidth: Bandwidth,
    /// Admission per client.
    pub limit: Option<LimitConfig>,
}

/// `bandwidth` of a listener, for each session; bytes a second, `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// From the client to the backend.
    pub up: Option<NonZeroU64>,
    /// From the backend to the client.
    pub down: Option<NonZeroU64>,
}

/// `accept_proxy` of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxyConfig {
    /// Peers from which a header is required.
    pub from: Vec<IpNet>,
    /// Peers on Unix sockets, too. At least one network or this.
    pub from_unix: bool,
    /// True is "direct": of other peers no header is expected. False: they are refused.
    pub is_direct_else: bool,
    /// How long the header may take.
    pub timeout: Duration,
}

/// `[[listener.NAME.route]]`: everything that is not empty has to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// Server names of TLS, in lower case; `*.` in front is every depth below.
    pub sni: Vec<String>,
    /// Protocols that TLS offers (ALPN).
    pub alpn: Vec<String>,
    /// Networks of the client.
    pub client: Vec<IpNet>,
    /// Index into [`Config::pools`].
    pub pool: usize,
}

/// `[listener.NAME.peek]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// How long the client may take to say enough.
    pub timeout: Duration,
    /// Bytes looked at, at most.
    pub max_bytes: u32,
    /// Then: true is the listener's pool, false is a refusal.
    pub is_default_else: bool,
}

/// `[listener.NAME.limit]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitConfig {
    /// How rates are measured.
    pub algorithm: LimitAlgorithm,
    /// Connections per time and client.
    pub rate: Option<EventRate>,
    /// Connections a quiet client may make at once; of a token bucket.
    pub burst: u32,
    /// Open sessions per client.
    pub max_concurrent: Option<u32>,
    /// Prefix lengths that count as one client.
    pub key: Prefix,
    /// What a client over its limit gets.
    pub action: LimitAction,
    /// Count and log only, let through.
    pub observe: bool,
    /// Networks that are never limited.
    pub exempt: Vec<IpNet>,
    /// Clients in the table (fixed memory, 8 bytes each).
    pub table_size: u32,
    /// Connections per time of all clients together.
    pub listener_rate: Option<EventRate>,
}

/// How the rates of a limit are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAlgorithm {
    /// A burst at once, then evenly.
    TokenBucket,
    /// About so many in any period.
    SlidingWindow,
    /// So many in a period that begins with the first.
    FixedWindow,
}

impl Word for LimitAlgorithm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("token-bucket", Self::TokenBucket),
        ("sliding-window", Self::SlidingWindow),
        ("fixed-window", Self::FixedWindow),
    ];
}

/// `count` events per `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRate {
    /// Events; at least 1.
    pub count: u64,
    /// 1 s, 1 min, 1 h or 1 d.
    pub period: Duration,
}

/// `[pool.NAME]`: interchangeable servers and how one is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Its name in the file.
    pub name: String,
    /// How a backend is chosen.
    pub balance: BalanceAlgorithm,
    /// What is hashed by `maglev`.
    pub hash_key: HashKey,
    /// Prefix lengths kept before hashing.
    pub hash_prefix: Prefix,
    /// Slots of the Maglev table; prime, more than the number of backends, at most 5,000,011.
    pub table_size: u32,
    /// In thousandths, 1,000 to 100,000: `maglev` passes over a backend with more than this times
    /// its share of all sessions; `None` is no bound.
    pub load_factor: Option<u32>,
    /// A client is sent where it was sent before, for a while; `None`: the choice is made anew.
    pub sticky: Option<StickyConfig>,
    /// At least one; names and addresses are unique within the pool.
    pub backends: Vec<BackendConfig>,
    /// Bound on one connection attempt.
    pub connect_timeout: Duration,
    /// Further attempts, each on another backend while there is one.
    pub retries: u32,
    /// The PROXY header that backends get before the client's bytes; `None` is none.
    pub send_proxy: Option<ProxyVersion>,
    /// Addresses to connect from, used in turn, no two the same; empty: the kernel chooses.
    pub source: Vec<IpAddr>,
    /// Connect from the client's own address. Not together with `source`.
    pub transparent: bool,
    /// Clients wait while every backend is full; `None`: they are turned away.
    pub queue: Option<Queue>,
    /// How long the share of a backend that came up, or is new, grows; `None`: it has all at once.
    pub slow_start: Option<Duration>,
    /// In per cent: at or below this share of healthy backends all of them are used.
    pub panic_threshold: u8,
    /// What happens to sessions of a backend that goes down.
    pub on_down: OnDownConfig,
    /// Active probes; `None` when the table is absent.
    pub health: Option<Health>,
    /// Ejection by what sessions meet; `None` when the table is absent.
    pub outlier: Option<Outlier>,
}

/// `sticky` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyConfig {
    /// How long a choice is remembered after the client's latest session (whole seconds).
    pub time: Duration,
    /// Clients in the table (fixed memory, 8 bytes each).
    pub size: u32,
}

/// What happens to sessions of a backend that goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDownConfig {
    /// They go on.
    Keep,
    /// All are reset at once.
    Reset,
    /// They are reset at this rate, over all workers.
    Pace(EventRate),
}

/// What `maglev` hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    ClientIp,
    /// The client's address and port.
    ClientIpPort,
    /// The server name in the client's TLS hello.
    Sni,
    /// The value of this header of the first request.
    HttpHeader(String),
    /// The value of this cookie of the first request.
    HttpCookie(String),
}

/// One server of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its name; the address as written unless given.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Share relative to the others: 0 (no new sessions) to 65535.
    pub weight: u32,
    /// Serves only when no other can.
    pub backup: bool,
    /// Sessions it may hold at once.
    pub max_sessions: Option<u32>,
    /// Takes no new sessions.
    pub drain: bool,
}

/// `[pool.NAME.health]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// What one probe does.
    pub probe: Probe,
    /// The port it asks; `None` is the backend's own.
    pub port: Option<u16>,
    /// Time between probes of a backend whose verdict is settled.
    pub interval: Duration,
    /// The same while a verdict is changing.
    pub fast_interval: Duration,
    /// Bound on one probe.
    pub timeout: Duration,
    /// Passes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
    /// Longest time between probes of a backend that is down.
    pub down_backoff: Duration,
    /// The verdict before the first probe has ended: true is up.
    pub initial_up: bool,
    /// The PROXY header that a probe begins with: the pool's.
    pub send_proxy: Option<ProxyVersion>,
    /// Addresses that a probe may come from: the pool's.
    pub source: Vec<IpAddr>,
}

/// What one probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Connects.
    Tcp,
    /// Makes an HTTP/1.1 request and looks at the status.
    Http {
        /// `GET`, `HEAD` or another method without a body.
        method: String,
        /// Path and query, beginning with a slash.
        path: String,
        /// Host header; `None` is the backend's address.
        host: Option<String>,
        /// Inclusive ranges of accepted status codes.
        status: Vec<(u16, u16)>,
    },
    /// Makes a TLS handshake.
    Tls {
        /// The name to ask for and to check, or an IP address that is only checked; `None` is the
        /// backend's address, which is not asked for.
        host: Option<String>,
        /// Whose certificates are good.
        trust: Trust,
    },
    /// Sends bytes, and waits until the answer holds others.
    SendExpect {
        /// May be empty: then the server speaks first.
        send: Vec<u8>,
        /// At least one byte.
        expect: Vec<u8>,
    },
}

/// Whose certificates a TLS probe takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's: certificates are not checked.
    Anybody,
    /// Those of the system's roots.
    System,
    /// Those of the certificates in this file; an absolute path.
    File(PathBuf),
}

/// `[pool.NAME.outlier]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Sessions failed in a row that eject a backend.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; at most 5 minutes.
    pub eject: Duration,
    /// Most backends ejected at once, in per cent of the pool, the new one counted.
    pub max_ejected: u8,
}
