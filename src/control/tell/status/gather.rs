//! Takes the state of the process into the status document.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use crate::config;
use crate::control::plane::clock::seconds_now;
use crate::control::plane::drain_book::DrainBook;
use crate::control::plane::health_book::HealthBook;
use crate::control::plane::state::{Current, Plane, ProcessPhase};
use crate::control::plane::workers::busy_seconds;
use crate::control::tell::retired;
use crate::control::tell::status::document::{
    AccessStatus, AdminAddresses, BackendStatus, ConfigStatus, KernelOffenderStatus, LimitStatus,
    ListenerStatus, OffenderStatus, OverrideStatus, PoolStatus, SourceStatus, Status, WorkerStatus,
};
use crate::control::watch::certificate::{expiry, is_near, shown_time};
use crate::control::watch::leave::reset_words;
use crate::control::words::shown_network;
use crate::policy::balance::hash::Prefix;
use crate::policy::client::Client;
use crate::policy::terms::Word;
use crate::shared::{
    AdminState, Backend, Direction, Limit, LimitDecision, Listener, ListenerState, Offender, Pool,
    RefuseReason, Snapshot, most_frequent,
};

/// Offenders of one listener that are shown.
const OFFENDERS_SHOWN: usize = 10;

/// Takes the state of the process.
pub(crate) fn status(plane: &Plane, admin: &AdminAddresses, log_dropped: u64) -> Status {
    let snapshot = plane.publisher.latest();
    let uptime_seconds = plane.began.elapsed().as_secs_f64();
    // Held for as short as it takes to copy them: a document of many backends takes long.
    let current = plane.current.lock().clone();
    let health = plane.health.lock().clone();
    let pools = snapshot.pools.iter().flatten();
    let configured: HashMap<&str, &config::PoolConfig> =
        current.config.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect();
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
            .map(|pool| {
                let configured = configured.get(pool.name.as_str()).copied();
                let known = PoolFacts {
                    pool: configured,
                    current: &current,
                    health: &health,
                    drains: &plane.drains,
                };
                (pool.name.clone(), pool_status(pool, known))
            })
            .collect(),
    }
}

/// Why the process is not ready, in words.
pub(crate) fn why_not_ready(plane: &Plane) -> String {
    match plane.phase() {
        ProcessPhase::Starting => "still starting".to_owned(),
        ProcessPhase::Stopping => "stopping".to_owned(),
        ProcessPhase::Serving => "no pool that a listener uses has a healthy backend".to_owned(),
    }
}

fn phase_word(phase: ProcessPhase) -> &'static str {
    match phase {
        ProcessPhase::Starting => "starting",
        ProcessPhase::Serving => "serving",
        ProcessPhase::Stopping => "stopping",
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
        last_reload_ok: plane.reloads.is_last_ok(),
    }
}

fn workers(plane: &Plane, uptime_seconds: f64) -> Vec<WorkerStatus> {
    let states = plane.workers.states.iter();
    states
        .map(|state| {
            let busy_seconds = busy_seconds(state);
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
    let refused_by = RefuseReason::ALL
        .iter()
        .map(|reason| (reason.label().to_owned(), state.refused_for(*reason)))
        .filter(|(_, times)| *times > 0)
        .collect();
    ListenerStatus {
        addresses: listener.addresses.iter().map(ToString::to_string).collect(),
        retired: retired::is_retired(listener, snapshot),
        pool: snapshot.pool(listener.pool).map(|pool| pool.name.clone()).unwrap_or_default(),
        accepted: state.offered(),
        refused: state.refused(),
        refused_by,
        sessions: state.active.value(),
        sessions_max: (listener.sessions_max != u64::MAX).then_some(listener.sessions_max),
        bytes_to_backend: moved(state, Direction::ToBackend),
        bytes_to_client: moved(state, Direction::ToClient),
        access: access_status(listener),
        limits: listener
            .limits
            .iter()
            .map(|limit| (limit.name.to_string(), limit_status(limit)))
            .collect(),
        offenders: offenders(listener),
    }
}

fn access_status(listener: &Listener) -> AccessStatus {
    let state = &listener.state;
    let why_not = listener.access_refusing.why_not();
    let reasons = [RefuseReason::Access, RefuseReason::Ban];
    AccessStatus {
        has_lists: !listener.access.is_open(),
        refused_by: if why_not.is_none() { "kernel" } else { "workers" }.to_owned(),
        why: why_not.unwrap_or_default(),
        refused: reasons.iter().map(|reason| state.refused_for(*reason)).sum(),
        refused_in_kernel: reasons.iter().map(|reason| state.in_kernel.of(*reason)).sum(),
    }
}

fn limit_status(limit: &Limit) -> LimitStatus {
    let said = |decision| limit.state.blocks().map(|block| block.said(decision).value()).sum();
    let why_not = limit.refusing.why_not();
    LimitStatus {
        action: limit.action.word().to_owned(),
        observes: limit.observe,
        allowed: said(LimitDecision::Allowed),
        refused: said(LimitDecision::Refused),
        would_refuse: said(LimitDecision::WouldRefuse),
        refused_by: if why_not.is_none() { "kernel" } else { "workers" }.to_owned(),
        why: why_not.unwrap_or_default(),
        refused_in_kernel: limit.state.in_kernel.value(),
        offenders: offenders_in_kernel(limit),
    }
}

/// Of every limit that only observes, in the order of the file.
fn offenders(listener: &Listener) -> Vec<OffenderStatus> {
    let observing = listener.limits.iter().filter(|limit| limit.observe);
    observing.flat_map(offenders_of).collect()
}

fn offenders_of(limit: &Limit) -> Vec<OffenderStatus> {
    let lists = limit.state.blocks().map(|block| block.offenders.list());
    let worst = most_frequent(lists, OFFENDERS_SHOWN).into_iter();
    worst
        .map(|Offender { client, count, error }| OffenderStatus {
            limit: limit.name.to_string(),
            client: shown_client(client, limit.key),
            would_refuse: count,
            at_least: count - error.min(count),
        })
        .collect()
}

fn offenders_in_kernel(limit: &Limit) -> Vec<KernelOffenderStatus> {
    let list = limit.state.kernel_offenders.list();
    let worst = most_frequent(std::iter::once(list), OFFENDERS_SHOWN).into_iter();
    worst
        .map(|Offender { client, count, error }| KernelOffenderStatus {
            client: shown_client(client, limit.key),
            refused: count,
            at_least: count - error.min(count),
        })
        .collect()
}

/// As a network, unless every address is a client of its own.
fn shown_client(client: Option<IpAddr>, key: Prefix) -> String {
    let Some(client) = client else { return Client::Unix.to_string() };
    shown_network(client, key.bits_of(client))
}

fn moved(state: &ListenerState, direction: Direction) -> u64 {
    let blocks = state.blocks();
    blocks.flat_map(|block| &block.bytes[direction as usize]).map(|path| path.value()).sum()
}

/// What is known of a pool and its backends beside the snapshot.
#[derive(Clone, Copy)]
struct PoolFacts<'a> {
    /// As the file has it.
    pool: Option<&'a config::PoolConfig>,
    current: &'a Current,
    health: &'a HealthBook,
    drains: &'a DrainBook,
}

fn pool_status(pool: &Pool, known: PoolFacts<'_>) -> PoolStatus {
    let pool_health = pool.health();
    PoolStatus {
        balance: known.pool.map(|pool| pool.balance.word().to_owned()).unwrap_or_default(),
        panic: pool.state.is_panicking(),
        healthy: pool_health.healthy as u64,
        wanted: pool_health.total as u64,
        backends: pool
            .backends()
            .map(|backend| (backend.name.clone(), backend_status(backend, known)))
            .collect(),
    }
}

fn backend_status(backend: &Arc<Backend>, known: PoolFacts<'_>) -> BackendStatus {
    let PoolFacts { pool, current, health, drains } = known;
    let is_probed = pool.is_some_and(|pool| pool.health.is_some());
    let seen = health.get(backend);
    let probed = seen.filter(|_| is_probed);
    let verdict = probed.and_then(|known| known.verdict.as_ref());
    let not_after = probed.and_then(|known| known.certificate);
    let is_ejected = backend.state.is_up() && backend.state.is_ejected();
    let ejection = seen.filter(|_| is_ejected).and_then(|known| known.ejection.as_ref());
    let by_operator = set_by_operator(backend, pool, current);
    let state_by_operator = by_operator.as_ref().is_some_and(|set| set.state.is_some());
    let who = if state_by_operator { "set by an operator" } else { "drain = true in the file" };
    let sessions = backend.state.active();
    let resetting = drains.wanted(backend).and_then(reset_words);
    let (state, reason) = match backend.state.admin() {
        AdminState::Maint => ("maint", who.to_owned()),
        AdminState::Drain => ("drain", with_resets(who, resetting.as_deref())),
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
            let reason = match state_by_operator {
                true => format!("{reason}; ready by an operator, drain = true in the file"),
                false => reason,
            };
            (state, with_share(reason, backend, sessions))
        }
    };
    let weight_by_operator =
        by_operator.as_ref().and_then(|set| Some((set.weight?, set.file_weight)));
    let reason = match weight_by_operator {
        Some((weight, file)) => format!("{reason}; weight {weight} by an operator (file: {file})"),
        None => reason,
    };
    let since = ejection.or(verdict).filter(|_| backend.state.admin() == AdminState::Ready);
    BackendStatus {
        state: state.to_owned(),
        reason,
        since: since
            .and_then(|verdict| Timestamp::try_from(verdict.since).ok())
            .map(|since| format!("{since:.3}")),
        certificate_expires: not_after.map(shown_time),
        set_by_operator: by_operator,
        resetting,
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

/// What operators have set for a backend.
fn set_by_operator(
    backend: &Backend,
    pool: Option<&config::PoolConfig>,
    current: &Current,
) -> Option<OverrideStatus> {
    if current.overrides.is_empty() {
        return None;
    }
    let key = (backend.pool_name.clone(), backend.name.clone());
    let set = current.overrides.get(&key)?;
    let file = pool?.backends.iter().find(|configured| configured.name == backend.name)?;
    Some(OverrideStatus {
        state: set.admin.map(|admin| admin.word().to_owned()),
        weight: set.weight,
        file_weight: file.weight,
    })
}

/// A backend that is drained may lose the sessions that it has.
fn with_resets(reason: &str, resetting: Option<&str>) -> String {
    match resetting {
        Some(words) => format!("{reason}; resetting its sessions {words}"),
        None => reason.to_owned(),
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
