//! The latest look at each source address, so that a change is logged once.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::policy::balance::source::is_scarce;
use crate::shared::{Address, Source, Spill};

/// A source: an address of ours, and the backend's.
pub(crate) type SourceKey = (IpAddr, Address);

/// The latest look at each source.
#[derive(Debug, Default)]
pub(crate) struct SourceBook {
    pub(crate) known: Mutex<HashMap<SourceKey, SourceStanding>>,
    /// Rings when a pool names its sources again.
    pub(crate) wanted: Notify,
}

/// A source, as it was at the latest look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SourceStanding {
    is_scarce: bool,
    is_missing: bool,
    no_port: u64,
    no_address: u64,
}

/// A change of a source between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceChange {
    Scarce,
    Ample,
    Missing,
    Back,
}

impl SourceStanding {
    /// Takes a look at the source. Returns the changes to log: of its ports, and of its address.
    pub(crate) fn look(&mut self, source: &Source, most: u32) -> [Option<SourceChange>; 2] {
        let before = *self;
        let used = source.in_use();
        self.no_port = source.spills(Spill::NoPort);
        self.no_address = source.spills(Spill::NoAddress);
        // The kernel may have no port although sessions use few: closed connections keep theirs.
        let ran_out = self.no_port > before.no_port;
        self.is_scarce = ran_out || is_scarce(used, most, before.is_scarce);
        // A source in use is an address of this host; an unused one has not been tried.
        self.is_missing = self.no_address > before.no_address || before.is_missing && used == 0;
        let ports = match (before.is_scarce, self.is_scarce) {
            (false, true) => Some(SourceChange::Scarce),
            (true, false) => Some(SourceChange::Ample),
            _ => None,
        };
        let address = match (before.is_missing, self.is_missing) {
            (false, true) => Some(SourceChange::Missing),
            (true, false) => Some(SourceChange::Back),
            _ => None,
        };
        [ports, address]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use crate::shared::SourcePort;

    fn source() -> Arc<Source> {
        let address = "10.0.0.5".parse().unwrap();
        Arc::new(Source::new(address, std::net::SocketAddr::from(([10, 0, 0, 9], 80))))
    }

    // If this fails, a source runs out of ports in silence, or the log repeats itself.
    #[test]
    fn each_change_is_said_once() {
        let (source, mut standing) = (source(), SourceStanding::default());
        let mut ports: Vec<_> = (0..8).filter_map(|_| SourcePort::take(&source, 10)).collect();
        assert_eq!(standing.look(&source, 10), [Some(SourceChange::Scarce), None]);
        assert_eq!(standing.look(&source, 10), [None, None]);
        ports.truncate(7);
        assert_eq!(standing.look(&source, 10), [None, None]);
        ports.truncate(6);
        assert_eq!(standing.look(&source, 10), [Some(SourceChange::Ample), None]);
        assert_eq!(standing.look(&source, 10), [None, None]);
    }

    // If this fails, ports that closed connections keep are not noticed.
    #[test]
    fn a_kernel_without_ports_is_scarcity() {
        let (source, mut standing) = (source(), SourceStanding::default());
        source.spilled(Spill::NoPort);
        assert_eq!(standing.look(&source, 10), [Some(SourceChange::Scarce), None]);
        assert_eq!(standing.look(&source, 10), [Some(SourceChange::Ample), None]);
    }

    // If this fails, a missing address is said at every look, or never.
    #[test]
    fn an_address_is_missing_until_it_is_used() {
        let (source, mut standing) = (source(), SourceStanding::default());
        source.spilled(Spill::NoAddress);
        assert_eq!(standing.look(&source, 10), [None, Some(SourceChange::Missing)]);
        assert_eq!(standing.look(&source, 10), [None, None]);
        let _port = SourcePort::take(&source, 10);
        assert_eq!(standing.look(&source, 10), [None, Some(SourceChange::Back)]);
    }
}
