//! The state of the process as one document: `status --json`, `GET /v1/status`, the admin page.
//!
//! What is configured is listed, and listeners that are gone but still have sessions. Numbers count
//! from the start of the process; rates are the reader's business, who knows how often it looks.
//! Names are the keys of objects, sorted.

pub mod text;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::policy::balance::hash::Prefix;
use crate::policy::client::Client;
use crate::policy::terms::Word;
use crate::shared::{
    AdminState, Backend, Direction, Listener, ListenerState, Offender, Pool, Snapshot,
    most_frequent,
};

use crate::control::reload::apply::seconds_now;
use crate::control::reload::plane::{Current, HealthBook, Phase, Plane, is_wanted};
use crate::control::reload::retired;
use crate::control::watch::certificate::{expiry, is_near, shown_time};

/// Offenders of one listener that are shown.
const OFFENDERS_SHOWN: usize = 10;

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
    /// The same as a share of the time since the start, 0 to 1.
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
    /// The same by reason; reasons that never occurred are left out.
    pub refused_by: BTreeMap<String, u64>,
    /// Sessions open now.
    pub sessions: u64,
    /// Sessions it may hold; `null` is no bound of its own.
    pub sessions_max: Option<u64>,
    /// Bytes moved to backends.
    pub bytes_to_backend: u64,
    /// Bytes moved to clients.
    pub bytes_to_client: u64,
    /// Clients that a limit which only observes would refuse most often, the worst first; empty
    /// for other listeners.
    pub offenders: Vec<OffenderStatus>,
}

/// One client that a limit which only observes would refuse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OffenderStatus {
    /// Its address, or its network where that counts as one client.
    pub client: String,
    /// How often it would have been refused since the start, at most.
    pub would_refuse: u64,
    /// The same, at least; less than the most only when more clients came than are remembered.
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

/// One address that a backend is connected from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// Ports that sessions have, those being connected too.
    pub ports_in_use: u64,
    /// Ports that sessions may have.
    pub ports_max: u32,
}

/// Takes the state of the process.
pub(crate) fn status(plane: &Plane, admin: &AdminAddresses, log_dropped: u64) -> Status {
    let snapshot = plane.publisher.latest();
    let uptime_seconds = plane.started.elapsed().as_secs_f64();
    let current = plane.current.lock();
    let health = plane.health.lock();
    let pools = snapshot.pools.iter().flatten();
    let ready = plane.is_ready();
    Status {
        ready,
        reason: if ready { String::new() } else { why_not_ready(plane) },
        phase: phase_word(plane.phase()).to_owned(),
        generation: snapshot.generation.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds,
        sessions: snapshot.sessions.value(),
        sessions_max: snapshot.sessions_max,
        log_dropped,
        config: config_status(plane),
        admin: admin.clone(),
        workers: workers(plane, uptime_seconds),
        listeners: retired::listeners(&snapshot)
            .into_iter()
            .map(|listener| (listener.name.clone(), listener_status(listener, &snapshot)))
            .collect(),
        pools: pools
            .map(|pool| (pool.name.clone(), pool_status(pool, &current, &health)))
            .collect(),
    }
}

/// Why the process is not ready, in words.
pub(crate) fn why_not_ready(plane: &Plane) -> String {
    match plane.phase() {
        Phase::Starting => "still starting".to_owned(),
        Phase::Stopping => "stopping".to_owned(),
        Phase::Serving => "no pool that a listener uses has a healthy backend".to_owned(),
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Stopping => "stopping",
    }
}

fn config_status(plane: &Plane) -> ConfigStatus {
    let reloads = &plane.reloads;
    let refused = reloads.refused.load(Ordering::Relaxed);
    let ok = reloads.ok.load(Ordering::Relaxed);
    ConfigStatus {
        file: plane.file.display().to_string(),
        reloads_ok: ok,
        reloads_refused: refused,
        last_reload_ok: last_reload_ok(plane),
    }
}

/// Whether the latest attempt succeeded; a process that never reloaded started from a good file.
pub(crate) fn last_reload_ok(plane: &Plane) -> bool {
    let reloads = &plane.reloads;
    let never = reloads.ok.load(Ordering::Relaxed) + reloads.refused.load(Ordering::Relaxed) == 0;
    never || reloads.last_ok.load(Ordering::Relaxed) == 1
}

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "a display of 15 digits is enough")]
pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn workers(plane: &Plane, uptime_seconds: f64) -> Vec<WorkerStatus> {
    let states = plane.workers.states.iter();
    states
        .map(|state| {
            let busy_seconds = seconds(crate::sys::process::thread_cpu_ns(state.thread.value()));
            WorkerStatus {
                sessions: state.sessions.value(),
                busy_seconds,
                busy_share: (busy_seconds / uptime_seconds.max(1e-3)).min(1.0),
                pipes_in_use: state.pipes_in_use.value(),
                generation: state.generation.load(Ordering::Acquire),
            }
        })
        .collect()
}

fn listener_status(listener: &Listener, snapshot: &Snapshot) -> ListenerStatus {
    let state = &listener.state;
    let refused_by = crate::shared::RefuseReason::ALL
        .iter()
        .map(|reason| {
            let times = state.sum(|block| &block.refused[reason.index()]);
            (reason.label().to_owned(), times)
        })
        .filter(|(_, times)| *times > 0)
        .collect();
    ListenerStatus {
        addresses: listener.addresses.iter().map(ToString::to_string).collect(),
        retired: retired::is_retired(listener, snapshot),
        pool: snapshot.pool(listener.pool).map(|pool| pool.name.clone()).unwrap_or_default(),
        accepted: state.sum(|block| &block.accepted),
        refused: state.refused(),
        refused_by,
        sessions: state.active.value(),
        sessions_max: (listener.sessions_max != u64::MAX).then_some(listener.sessions_max),
        bytes_to_backend: moved(state, Direction::ToBackend),
        bytes_to_client: moved(state, Direction::ToClient),
        offenders: offenders(listener),
    }
}

fn offenders(listener: &Listener) -> Vec<OffenderStatus> {
    let Some(limit) = listener.limit.as_ref().filter(|limit| limit.observe) else {
        return Vec::new();
    };
    let lists = listener.state.blocks().map(|block| block.offenders.list());
    let worst = most_frequent(lists, OFFENDERS_SHOWN).into_iter();
    worst
        .map(|Offender { client, count, error }| OffenderStatus {
            client: shown_client(client, limit.key),
            would_refuse: count,
            at_least: count - error.min(count),
        })
        .collect()
}

/// As a network, unless every address is a client of its own.
fn shown_client(client: Option<IpAddr>, key: Prefix) -> String {
    let Some(client) = client else { return Client::Unix.to_string() };
    match client {
        IpAddr::V4(_) if key.v4 < 32 => format!("{client}/{}", key.v4),
        IpAddr::V6(_) if key.v6 < 128 => format!("{client}/{}", key.v6),
        _ => client.to_string(),
    }
}

fn moved(state: &ListenerState, direction: Direction) -> u64 {
    let blocks = state.blocks();
    blocks.flat_map(|block| &block.bytes[direction as usize]).map(|path| path.value()).sum()
}

fn pool_status(pool: &Pool, current: &Current, health: &HealthBook) -> PoolStatus {
    let configured = current.config.pools.iter().find(|configured| configured.name == pool.name);
    let healthy = pool.backends().filter(|b| b.state.is_healthy() && is_wanted(b));
    PoolStatus {
        balance: configured.map(|pool| pool.balance.word().to_owned()).unwrap_or_default(),
        panic: pool.state.is_panicking(),
        healthy: healthy.count() as u64,
        backends: pool
            .backends()
            .map(|backend| {
                (backend.name.clone(), backend_status(backend, configured, (current, health)))
            })
            .collect(),
    }
}

fn backend_status(
    backend: &Arc<Backend>,
    pool: Option<&config::PoolConfig>,
    (current, health): (&Current, &HealthBook),
) -> BackendStatus {
    let is_probed = pool.is_some_and(|pool| pool.health.is_some());
    let verdict = health.verdicts.get(&backend.id).filter(|_| is_probed);
    let not_after = health.certificates.get(&backend.id).copied().filter(|_| is_probed);
    let ejection = health.ejections.get(&backend.id).filter(|_| backend.state.is_up());
    let by_operator = current
        .overrides
        .get(&(backend.pool_name.clone(), backend.name.clone()))
        .is_some_and(|set| set.admin.is_some());
    let who = if by_operator { "set by an operator" } else { "drain = true in the file" };
    let sessions = backend.state.active();
    let (state, reason) = match backend.state.admin() {
        AdminState::Maint => ("maint", who.to_owned()),
        AdminState::Drain => ("drain", who.to_owned()),
        AdminState::Ready => {
            let state = match backend.state.is_up() {
                true if backend.state.is_ejected() => "ejected",
                true => "up",
                false => "down",
            };
            let reason = match ejection.or(verdict) {
                Some(verdict) => verdict.reason.clone(),
                None if is_probed => "not probed yet".to_owned(),
                None => "no probes configured".to_owned(),
            };
            // Of one that is down the reason says what is wrong.
            let reason = match not_after.filter(|_| state != "down") {
                Some(not_after) => with_expiry(reason, not_after, seconds_now()),
                None => reason,
            };
            (state, with_share(reason, backend, sessions))
        }
    };
    let since = ejection.or(verdict).filter(|_| backend.state.admin() == AdminState::Ready);
    BackendStatus {
        state: state.to_owned(),
        reason,
        since: since
            .and_then(|verdict| Timestamp::try_from(verdict.since).ok())
            .map(|since| format!("{since:.3}")),
        certificate_expires: not_after.map(shown_time),
        address: backend.address.to_string(),
        weight: backend.weight,
        backup: backend.backup,
        sessions,
        sessions_max: backend.sessions_max.map(u64::from),
        sessions_total: backend.state.sum(|block| &block.sessions),
        connect_failures: backend
            .state
            .blocks()
            .flat_map(|block| &block.connect_failures)
            .map(|failures| failures.value())
            .sum(),
        sources: sources(backend),
    }
}

/// A backend that is up may not be for long.
fn with_expiry(reason: String, not_after: u64, now: u64) -> String {
    if is_near(not_after, now) {
        format!("certificate {}; {reason}", expiry(not_after, now))
    } else {
        reason
    }
}

fn sources(backend: &Backend) -> BTreeMap<String, SourceStatus> {
    let Some(sources) = backend.sources() else { return BTreeMap::new() };
    let ports_max = sources.most();
    let list = sources.list().iter();
    list.map(|source| {
        let ports_in_use = source.in_use();
        (source.address().to_string(), SourceStatus { ports_in_use, ports_max })
    })
    .collect()
}

/// A backend that is up may still get nothing.
fn with_share(reason: String, backend: &Backend, sessions: u64) -> String {
    if backend.weight == 0 {
        return format!("weight 0, takes no new sessions; {reason}");
    }
    match backend.sessions_max.map(u64::from) {
        Some(most) if sessions >= most => format!("full ({sessions} of {most}); {reason}"),
        _ => reason,
    }
}
