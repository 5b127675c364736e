//! Watches the ports of the addresses that pools connect from, and logs when few are left.
//!
//! Workers count in atomics of each source (`shared/source.rs`); the bounds are
//! `policy/balance/source.rs`. Looks run only while a pool names its sources.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::consume_budget;

use crate::control::plane::source_book::{SourceChange, SourceKey, SourceStanding};
use crate::control::plane::state::Plane;
use crate::shared::{Backend, Snapshot, Source};

/// The time between two looks at the ports.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the ports until the process ends.
pub(crate) async fn watch(plane: Arc<Plane>) {
    loop {
        if plane.sources.known.lock().is_empty() {
            plane.sources.wanted.notified().await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        look_at_all(&plane);
    }
}

/// Sources that are watched from a snapshot on, or no longer.
#[derive(Debug)]
pub(crate) struct SourceChanges {
    started: Vec<SourceKey>,
    stopped: Vec<SourceKey>,
}

impl SourceChanges {
    /// From one snapshot to the next.
    pub(crate) fn new(previous: &Snapshot, snapshot: &Snapshot) -> Self {
        let keys = |snapshot| -> HashSet<SourceKey> {
            let sources = sources(snapshot);
            sources.map(|(_, source, _)| (source.address(), source.backend().clone())).collect()
        };
        let (before, after) = (keys(previous), keys(snapshot));
        Self {
            started: after.difference(&before).cloned().collect(),
            stopped: before.difference(&after).cloned().collect(),
        }
    }
}

/// Watches the sources of the published snapshot, and no others.
pub(crate) async fn take_up(plane: &Plane, changes: &SourceChanges) {
    for key in &changes.stopped {
        plane.sources.known.lock().remove(key);
        consume_budget().await;
    }
    for key in &changes.started {
        plane.sources.known.lock().insert(key.clone(), SourceStanding::default());
        consume_budget().await;
    }
    if !plane.sources.known.lock().is_empty() {
        plane.sources.wanted.notify_one();
    }
}

fn look_at_all(plane: &Plane) {
    let snapshot = plane.publisher.latest();
    let mut known = plane.sources.known.lock();
    for (_, source, most) in sources(&snapshot) {
        let key = (source.address(), source.backend().clone());
        let Some(standing) = known.get_mut(&key) else { continue };
        for change in standing.look(source, most).into_iter().flatten() {
            tell(change, source, most);
        }
    }
}

fn tell(change: SourceChange, source: &Source, most: u32) {
    let (own, to, used) = (source.address(), source.backend(), source.in_use());
    match change {
        SourceChange::Scarce => tracing::warn!(
            "source {own} has few ports left to {to}: sessions have {used} of {most}; add a \
             source, or widen net.ipv4.ip_local_port_range"
        ),
        SourceChange::Ample => {
            tracing::warn!("source {own} has ports again to {to}: sessions have {used} of {most}");
        }
        SourceChange::Missing => tracing::warn!(
            "source {own} is no address of this host: {to} is connected from others, if there are \
             any"
        ),
        SourceChange::Back => tracing::warn!("source {own} is an address of this host again"),
    }
}

/// Every source of the configuration, with its backend and the number of ports for sessions.
pub(crate) fn sources(
    snapshot: &Snapshot,
) -> impl Iterator<Item = (&Arc<Backend>, &Arc<Source>, u32)> {
    let backends = snapshot.pools.iter().flatten().flat_map(|pool| pool.backends());
    backends.flat_map(|backend| {
        let sources = backend.sources();
        let list = sources.map_or_else(Default::default, |sources| sources.list());
        let most = sources.map_or(0, |sources| sources.most());
        list.iter().map(move |source| (backend, source, most))
    })
}
