//! Tells of the clients that the kernel refuses: a line of the session log for each and second, and
//! the lists of those that are refused most often.
//!
//! The kernel counts by limit and list, exactly, and by client as long as it remembers that one. A
//! look at all entries is made only when the counts have grown, or when a limit has forgotten
//! clients: those are let in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::control::off_thread::off_thread;
use crate::control::plane::state::Plane;
use crate::policy::admit::limiter::Decision;
use crate::policy::balance::hash::Prefix;
use crate::policy::client::Client;
use crate::shared::{
    AccessMarks, ArrivedClient, Detail, Gate, Limit, Listener, RefuseReason, Refusing, SessionLog,
    SessionRecord, Snapshot,
};
use crate::sys::gate::GateKey;

/// The time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Lines of one look, of those refused most often.
const LINES_MAX: usize = 1_000;
/// What stands in place of a session's number: there is no session.
const NO_SESSION: u64 = 0;

/// A client, as what refuses it sees it, and how often it was refused since the look before.
struct GrownClient {
    ip: IpAddr,
    times: u64,
}

/// Looks until the process ends.
pub(crate) async fn watch(plane: Arc<Plane>, log: SessionLog) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if has_any(&plane.publisher.latest()) {
            let (plane, log) = (Arc::clone(&plane), log.clone());
            off_thread(move || {
                tell(&plane, &log);
                let_in_the_forgotten(&plane);
            })
            .await;
        }
    }
}

/// Whether the kernel refuses any client.
fn has_any(snapshot: &Snapshot) -> bool {
    snapshot.open_listeners().any(|listener| listener.gate.is_some())
}

/// Tells of those that were refused since the look before.
pub(crate) fn tell(plane: &Plane, log: &SessionLog) {
    let snapshot = plane.publisher.latest();
    let total = snapshot.open_listeners().map(|listener| listener.state.in_kernel.value()).sum();
    let mut told = plane.gate_book.lock();
    if !told.has_grown(total) {
        return;
    }
    let mut counted: HashMap<GateKey, u64> = HashMap::new();
    if let Err(error) = plane.gates.for_each_refused(|key, times| _ = counted.insert(key, times)) {
        return tracing::warn!("cannot read which clients the kernel refuses: {error}");
    }
    let causes = causes_by_mark(&snapshot);
    let mut grown = told.grown(counted);
    grown.sort_unstable_by_key(|(key, times)| (std::cmp::Reverse(*times), key.address));
    let mut lines = 0;
    for (key, times) in grown {
        // One of a limit or list that has changed meanwhile is in the sums only.
        let Some(cause) = causes.get(&key.mark) else { continue };
        let ip = Ipv6Addr::from_bits(key.address).to_canonical();
        if let Some(limit) = cause.limit {
            limit.state.kernel_offenders.note_times(Some(ip), times);
        }
        if log.is_on() && lines < LINES_MAX {
            lines += 1;
            log.write(SystemTime::now(), cause.record(&snapshot, &GrownClient { ip, times }));
        }
    }
}

/// Takes the entries out of clients that a limit has forgotten for want of room: it would let them
/// in, and does not know which they were.
fn let_in_the_forgotten(plane: &Plane) {
    let snapshot = plane.publisher.latest();
    let limits = limits_in_kernel(&snapshot);
    let forgotten = limits.iter().map(|(mark, it)| (*mark, it.limit.limiter.live_evictions()));
    let marks = plane.gate_book.lock().that_forgot(forgotten.collect());
    if marks.is_empty() {
        return;
    }
    let mut outdated = Vec::new();
    let now_us = plane.now_us();
    let read = plane.gates.for_each_entry(|key| {
        let limit = limits.get(&key.mark).filter(|_| marks.contains(&key.mark));
        let ip = Ipv6Addr::from_bits(key.address).to_canonical();
        if let Some(limit) = limit.filter(|it| it.would_let_in(ip, now_us)) {
            outdated.push((limit, key.mark, ip));
        }
    });
    if let Err(error) = read {
        tracing::warn!("cannot read which clients the kernel refuses: {error}");
    }
    // One that is refused by a worker at this moment is entered again when it comes next.
    for (limit, mark, ip) in outdated {
        limit.gate.kernel.forget(mark, ip);
    }
}

/// A limit for which the kernel refuses.
struct LimitInKernel<'a> {
    limit: &'a Limit,
    gate: &'a Gate,
}

impl LimitInKernel<'_> {
    fn would_let_in(&self, ip: IpAddr, now_us: u64) -> bool {
        let Limit { limiter, rules, key, .. } = self.limit;
        rules.rate.is_some_and(|rate| {
            limiter.peek(limiter.key(ip, *key), now_us, &rate) == Decision::Allowed
        })
    }
}

fn limits_in_kernel(snapshot: &Snapshot) -> HashMap<u32, LimitInKernel<'_>> {
    let limits = snapshot.open_listeners().flat_map(|listener| &listener.limits);
    let in_kernel = limits.filter_map(|limit| match &limit.refusing {
        Refusing::InKernel { gate, mark } => Some((*mark, LimitInKernel { limit, gate })),
        Refusing::InWorkers(_) => None,
    });
    in_kernel.collect()
}

/// What a client was refused for.
struct Cause<'a> {
    listener: &'a Arc<Listener>,
    reason: RefuseReason,
    /// The limit that it was over.
    limit: Option<&'a Limit>,
}

/// What the clients with a mark are refused for.
fn causes_by_mark(snapshot: &Snapshot) -> HashMap<u32, Cause<'_>> {
    let mut causes = HashMap::new();
    for listener in snapshot.open_listeners() {
        if let Refusing::InKernel { mark: AccessMarks { ban, lists }, .. } =
            listener.access_refusing
        {
            for (mark, reason) in [(ban, RefuseReason::Ban), (lists, RefuseReason::Access)] {
                causes.insert(mark, Cause { listener, reason, limit: None });
            }
        }
        for limit in &listener.limits {
            if let Refusing::InKernel { mark, .. } = limit.refusing {
                let reason = RefuseReason::Limit;
                causes.insert(mark, Cause { listener, reason, limit: Some(limit) });
            }
        }
    }
    causes
}

impl Cause<'_> {
    fn record(&self, snapshot: &Snapshot, client: &GrownClient) -> SessionRecord {
        let GrownClient { ip, times } = *client;
        let client = Client::At(SocketAddr::new(ip, 0));
        let arrived =
            ArrivedClient { listener: self.listener, client, generation: snapshot.generation };
        let key = self.limit.map_or(Prefix::WHOLE, |limit| limit.key);
        SessionRecord {
            detail: Detail::InKernel(times, key.bits_of(ip)),
            limit: self.limit.map(|limit| Arc::clone(&limit.name)),
            ..SessionRecord::new(NO_SESSION, arrived, self.reason.code())
        }
    }
}
