//! Tells of the clients that the kernel refuses: a line of the session log for each and second, and
//! the lists of those that are refused most often.
//!
//! The kernel counts by limit, exactly, and by client as long as it has an entry. A look at all
//! entries is made only when the counts have grown.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::control::off_thread::off_thread;
use crate::control::plane::state::Plane;
use crate::policy::client::Client;
use crate::shared::{
    ArrivedClient, Detail, Limit, Listener, RefuseReason, Refusing, SessionLog, SessionRecord,
    Snapshot,
};
use crate::sys::gate::GateKey;

/// The time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Lines of one look, of those refused most often.
const LINES_MAX: usize = 1_000;
/// What stands in place of a session's number: there is no session.
const NO_SESSION: u64 = 0;

/// A client, as a limit sees it, and how often it was refused since the look before.
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
            off_thread(move || tell(&plane, &log)).await;
        }
    }
}

/// Whether the kernel refuses for any limit.
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
    let limits = limits_by_mark(&snapshot);
    let mut grown = told.grown(counted);
    grown.sort_unstable_by_key(|(key, times)| (std::cmp::Reverse(*times), key.address));
    let mut lines = 0;
    for (key, times) in grown {
        // One of a limit that has changed meanwhile is in the sums only.
        let Some((listener, limit)) = limits.get(&key.mark) else { continue };
        let ip = Ipv6Addr::from_bits(key.address).to_canonical();
        limit.state.kernel_offenders.note_times(Some(ip), times);
        if log.is_on() && lines < LINES_MAX {
            lines += 1;
            log.write(
                SystemTime::now(),
                record(&snapshot, listener, limit, &GrownClient { ip, times }),
            );
        }
    }
}

fn limits_by_mark(snapshot: &Snapshot) -> HashMap<u32, (&Arc<Listener>, &Limit)> {
    let listeners = snapshot.open_listeners();
    let limits =
        listeners.flat_map(|listener| listener.limits.iter().map(move |it| (listener, it)));
    limits
        .filter_map(|(listener, limit)| match limit.refusing {
            Refusing::InKernel { mark, .. } => Some((mark, (listener, limit))),
            Refusing::InWorkers(_) => None,
        })
        .collect()
}

fn record(
    snapshot: &Snapshot,
    listener: &Arc<Listener>,
    limit: &Limit,
    client: &GrownClient,
) -> SessionRecord {
    let GrownClient { ip, times } = *client;
    let client = Client::At(SocketAddr::new(ip, 0));
    let arrived = ArrivedClient { listener, client, generation: snapshot.generation };
    SessionRecord {
        detail: Detail::InKernel(times, limit.key.bits_of(ip)),
        limit: Some(Arc::clone(&limit.name)),
        ..SessionRecord::new(NO_SESSION, arrived, RefuseReason::Limit.code())
    }
}
