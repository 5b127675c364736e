//! Watches the ports of the addresses that pools connect from, and says when they become few.
//!
//! Workers count in atomics of each source (`shared/source.rs`); the bounds are
//! `policy/source.rs`. Looks run only while some pool names its sources.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::policy::balance::source::is_scarce;
use crate::shared::{Backend, Snapshot, Source, Spill};

use crate::control::reload::plane::Plane;

/// How often the ports are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What was said of each source.
#[derive(Debug, Default)]
pub(crate) struct SourceBook {
    known: Mutex<HashMap<(IpAddr, SocketAddr), Standing>>,
    /// A pool names its sources.
    wanted: Notify,
}

/// A source, as it was at the latest look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    is_scarce: bool,
    is_missing: bool,
    no_port: u64,
    no_address: u64,
}

/// What has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Scarce,
    Ample,
    Missing,
    Back,
}

impl Standing {
    /// Takes in what a look has found; what there is to say.
    fn look(&mut self, source: &Source, most: u32) -> [Option<Change>; 2] {
        let before = *self;
        let used = source.in_use();
        self.no_port = source.spills(Spill::NoPort);
        self.no_address = source.spills(Spill::NoAddress);
        // The kernel may have none although sessions have few: closed connections keep theirs.
        let ran_out = self.no_port > before.no_port;
        self.is_scarce = ran_out || is_scarce(used, most, before.is_scarce);
        // One that is bound is there; without any use nobody has asked.
        self.is_missing = self.no_address > before.no_address || before.is_missing && used == 0;
        let ports = match (before.is_scarce, self.is_scarce) {
            (false, true) => Some(Change::Scarce),
            (true, false) => Some(Change::Ample),
            _ => None,
        };
        let address = match (before.is_missing, self.is_missing) {
            (false, true) => Some(Change::Missing),
            (true, false) => Some(Change::Back),
            _ => None,
        };
        [ports, address]
    }
}

/// Looks at the ports for as long as the process runs.
pub(crate) async fn watch(plane: Arc<Plane>) {
    loop {
        if plane.sources.known.lock().is_empty() {
            plane.sources.wanted.notified().await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        plane.look_at_sources();
    }
}

impl Plane {
    /// Watches the sources of this snapshot, the published one, and no others.
    pub(crate) fn take_up_sources(&self, snapshot: &Snapshot) {
        let mut known = self.sources.known.lock();
        let mut before = std::mem::take(&mut *known);
        for (_, source, _) in sources(snapshot) {
            let key = (source.address(), source.backend());
            let standing = before.remove(&key).unwrap_or_default();
            known.entry(key).or_insert(standing);
        }
        if !known.is_empty() {
            self.sources.wanted.notify_one();
        }
    }

    fn look_at_sources(&self) {
        let snapshot = self.publisher.latest();
        let mut known = self.sources.known.lock();
        for (_, source, most) in sources(&snapshot) {
            let key = (source.address(), source.backend());
            let Some(standing) = known.get_mut(&key) else { continue };
            for change in standing.look(source, most).into_iter().flatten() {
                tell(change, source, most);
            }
        }
    }
}

fn tell(change: Change, source: &Source, most: u32) {
    let (own, to, used) = (source.address(), source.backend(), source.in_use());
    match change {
        Change::Scarce => tracing::warn!(
            "source {own} has few ports left to {to}: sessions have {used} of {most}; add a \
             source, or widen net.ipv4.ip_local_port_range"
        ),
        Change::Ample => {
            tracing::warn!("source {own} has ports again to {to}: sessions have {used} of {most}");
        }
        Change::Missing => tracing::warn!(
            "source {own} is no address of this host: {to} is connected from others, if there are \
             any"
        ),
        Change::Back => tracing::warn!("source {own} is an address of this host again"),
    }
}

/// Every source of the configuration with its backend and how many ports sessions may have.
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::shared::SourcePort;

    fn source() -> Arc<Source> {
        let address = "10.0.0.5".parse().unwrap();
        Arc::new(Source::new(address, "10.0.0.9:80".parse().unwrap()))
    }

    // If this fails, a source runs out of ports in silence, or the log repeats itself.
    #[test]
    fn each_change_is_said_once() {
        let (source, mut standing) = (source(), Standing::default());
        let mut ports: Vec<_> = (0..8).filter_map(|_| SourcePort::take(&source, 10)).collect();
        assert_eq!(standing.look(&source, 10), [Some(Change::Scarce), None]);
        assert_eq!(standing.look(&source, 10), [None, None]);
        ports.truncate(7);
        assert_eq!(standing.look(&source, 10), [None, None]);
        ports.truncate(6);
        assert_eq!(standing.look(&source, 10), [Some(Change::Ample), None]);
        assert_eq!(standing.look(&source, 10), [None, None]);
    }

    // If this fails, ports that closed connections keep are not noticed.
    #[test]
    fn a_kernel_without_ports_is_scarcity() {
        let (source, mut standing) = (source(), Standing::default());
        source.spilled(Spill::NoPort);
        assert_eq!(standing.look(&source, 10), [Some(Change::Scarce), None]);
        assert_eq!(standing.look(&source, 10), [Some(Change::Ample), None]);
    }

    // If this fails, a missing address is said at every look, or never.
    #[test]
    fn an_address_is_missing_until_it_is_used() {
        let (source, mut standing) = (source(), Standing::default());
        source.spilled(Spill::NoAddress);
        assert_eq!(standing.look(&source, 10), [None, Some(Change::Missing)]);
        assert_eq!(standing.look(&source, 10), [None, None]);
        let _port = SourcePort::take(&source, 10);
        assert_eq!(standing.look(&source, 10), [None, Some(Change::Back)]);
    }
}
