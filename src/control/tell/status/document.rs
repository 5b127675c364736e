//! The status document, as programs read it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Whether listeners accept and some pool can serve.
    pub ready: bool,
    /// Why not, in words; empty when ready.
    pub reason: String,
    /// `starting`, `serving` or `stopping`.
    pub phase: String,
    /// Number of the configuration in force.
    pub generation: u64,
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// Sessions open now.
    pub sessions: u64,
    /// Sessions the process may hold.
    pub sessions_max: u64,
    /// Lines of the log that were lost.
    pub log_dropped: u64,
    /// The configuration file and what came of reading it again.
    pub config: ConfigStatus,
    /// Where operators and tools reach the process.
    pub admin: AdminAddresses,
    /// Threads of the data plane, by number.
    pub workers: Vec<WorkerStatus>,
    /// By name.
    pub listeners: BTreeMap<String, ListenerStatus>,
    /// By name.
    pub pools: BTreeMap<String, PoolStatus>,
}

/// The configuration file and what came of reading it again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigStatus {
    /// Path of the file.
    pub file: String,
    /// Reloads that were put in force.
    pub reloads_ok: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Whether the latest attempt, or the start, succeeded.
    pub last_reload_ok: bool,
}

/// Where operators and tools reach the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdminAddresses {
    /// Path of the control socket; `null` when it could not be made.
    pub socket: Option<String>,
    /// Real address of the read-only page; `null` when there is none.
    pub http: Option<SocketAddr>,
}

/// One thread of the data plane.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// Sessions open now.
    pub sessions: u64,
    /// Seconds it has worked rather than slept.
    pub busy_seconds: f64,
    /// That as a share of the time since the start, 0 to 1.
    pub busy_share: f64,
    /// Pipes that hold bytes.
    pub pipes_in_use: u64,
    /// The generation it has taken up.
    pub generation: u64,
}

/// One listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerStatus {
    /// Where it accepts, real ports; of a retired one, where it did.
    pub addresses: Vec<String>,
    /// Whether it has left the configuration and only has sessions left.
    pub retired: bool,
    /// Where its sessions go.
    pub pool: String,
    /// Connections accepted, refused ones too.
    pub accepted: u64,
    /// Connections refused.
    pub refused: u64,
    /// Refused connections by reason; reasons that never occurred are left out.
    pub refused_by: BTreeMap<String, u64>,
    /// Sessions open now.
    pub sessions: u64,
    /// Sessions it may hold; `null` is no bound of its own.
    pub sessions_max: Option<u64>,
    /// Bytes moved to backends.
    pub bytes_to_backend: u64,
    /// Bytes moved to clients.
    pub bytes_to_client: u64,
    /// Of clients that lists or bans do not admit.
    pub access: AccessStatus,
    /// By name.
    pub limits: BTreeMap<String, LimitStatus>,
    /// Clients that each limit which only observes would refuse most often, the worst first.
    pub offenders: Vec<OffenderStatus>,
}

/// Clients that the lists of a listener or bans do not admit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccessStatus {
    /// Whether the listener has lists.
    pub has_lists: bool,
    /// Where they are refused: `kernel` or `workers`.
    pub refused_by: String,
    /// Why workers refuse, in words; empty when the kernel does.
    pub why: String,
    /// Those that were refused, by either: by the lists, and by bans.
    pub refused: u64,
    /// Of those the ones that the kernel has refused.
    pub refused_in_kernel: u64,
}

/// One limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitStatus {
    /// How clients over it are turned away: `reset`, `close`, `reply` or `tarpit`.
    pub action: String,
    /// Whether it only observes: no client is turned away then.
    pub observes: bool,
    /// Connections that it let in.
    pub allowed: u64,
    /// Connections that it turned away.
    pub refused: u64,
    /// Connections that it would have turned away while it only observed.
    pub would_refuse: u64,
    /// Where clients over its rate are refused from the first refusal on: `kernel` or `workers`.
    pub refused_by: String,
    /// Why workers refuse, in words; empty when the kernel does.
    pub why: String,
    /// Clients that the kernel has refused.
    pub refused_in_kernel: u64,
    /// Clients that it has refused most often, the worst first, up to a second ago.
    pub offenders: Vec<KernelOffenderStatus>,
}

/// One client that the kernel refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelOffenderStatus {
    /// Its address, or its network where that counts as one client.
    pub client: String,
    /// How often it has been refused since the start, at most.
    pub refused: u64,
    /// How often at least; less than `refused` only when more clients came than are remembered.
    pub at_least: u64,
}

/// One client that a limit which only observes would refuse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OffenderStatus {
    /// The limit.
    pub limit: String,
    /// Its address, or its network where that counts as one client.
    pub client: String,
    /// How often it would have been refused since the start, at most.
    pub would_refuse: u64,
    /// How often at least; less than `would_refuse` only when more clients came than are
    /// remembered.
    pub at_least: u64,
}

/// One pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolStatus {
    /// How a backend is chosen.
    pub balance: String,
    /// Whether verdicts are ignored because too few backends are healthy.
    pub panic: bool,
    /// Backends that are up and let serve.
    pub healthy: u64,
    /// Backends that an operator lets serve.
    pub wanted: u64,
    /// By name.
    pub backends: BTreeMap<String, BackendStatus>,
}

/// One backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendStatus {
    /// `up`, `down`, `drain`, `maint` or `ejected`.
    pub state: String,
    /// Why, in words.
    pub reason: String,
    /// Since when, RFC 3339; `null` when unknown.
    pub since: Option<String>,
    /// When the certificate expires that its TLS probes were shown, RFC 3339; `null` when there is
    /// none.
    pub certificate_expires: Option<String>,
    /// What operators have set at run time and the file does not say; `null` when there is nothing.
    pub set_by_operator: Option<OverrideStatus>,
    /// How `drain --reset` ends its sessions, `at once` or such as `at 10/s`; `null` when it does
    /// not, or has ended all.
    pub resetting: Option<String>,
    /// Where it is.
    pub address: String,
    /// Its share of the sessions.
    pub weight: u32,
    /// Whether it serves only when no other can.
    pub backup: bool,
    /// Sessions open now.
    pub sessions: u64,
    /// Sessions it may hold; `null` is no bound.
    pub sessions_max: Option<u64>,
    /// Sessions that were connected.
    pub sessions_total: u64,
    /// Connection attempts that failed.
    pub connect_failures: u64,
    /// By address; empty where the kernel chooses.
    pub sources: BTreeMap<String, SourceStatus>,
}

/// What operators have set at run time for one backend; `forget` drops it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OverrideStatus {
    /// `ready`, `drain` or `maint`; `null` when the file decides.
    pub state: Option<String>,
    /// Its share of the sessions; `null` when the file decides.
    pub weight: Option<u32>,
    /// The weight that the file gives.
    pub file_weight: u32,
}

/// One address that a backend is connected from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// Ports that sessions have, those being connected too.
    pub ports_in_use: u64,
    /// Ports that sessions may have.
    pub ports_max: u32,
}
