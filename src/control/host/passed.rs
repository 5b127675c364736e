//! Listening sockets that another process of evenkeel passes on: how they are described, and what
//! this one takes of them.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::control::host::socket_file::{FileIdentity, SocketFile};
use crate::shared::Address;
use crate::sys::socket;
use crate::sys::systemd::{Inherited, InheritedAddress, bound_address};

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ListeningPlace {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl ListeningPlace {
    /// Of an address that can be listened on.
    pub(crate) fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Ip(address) => Some(Self::Ip(*address)),
            Address::Unix(path) => Some(Self::Unix(path.to_path_buf())),
            Address::Host(_) => None,
        }
    }

    /// As an address.
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Ip(address) => Address::Ip(*address),
            Self::Unix(path) => Address::Unix(Arc::from(path.as_path())),
        }
    }

    fn is_of(&self, socket: &OwnedFd) -> bool {
        match (self, bound_address(socket)) {
            (Self::Ip(place), Some(InheritedAddress::Ip(bound))) => *place == bound,
            (Self::Unix(place), Some(InheritedAddress::Unix(bound))) => *place == bound,
            _ => false,
        }
    }
}

/// One address, as the process that listens there describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PassedAddress {
    /// As the file names it.
    pub(crate) asked: ListeningPlace,
    /// How often it came before in the file: port 0 is another port each time.
    pub(crate) repeat: usize,
    pub(crate) real: ListeningPlace,
    pub(crate) is_multipath: bool,
    /// One socket for all workers.
    pub(crate) is_shared: bool,
    /// Of a Unix socket whose file evenkeel made.
    pub(crate) file: Option<FileIdentity>,
    /// How many, each that of a worker, in their order.
    pub(crate) sockets: usize,
}

/// One address with its sockets.
#[derive(Debug)]
pub(crate) struct PassedOn {
    pub(crate) address: PassedAddress,
    pub(crate) sockets: Vec<OwnedFd>,
    /// Its place in the description.
    index: u32,
}

impl PassedOn {
    /// The file of the Unix socket, if evenkeel made it.
    pub(crate) fn file(&self) -> Option<Arc<SocketFile>> {
        match (&self.address.real, self.address.file) {
            (ListeningPlace::Unix(path), Some(identity)) => {
                Some(Arc::new(SocketFile::passed(path, identity)))
            }
            _ => None,
        }
    }
}

/// Everything passed on that no listener has taken yet.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets(BTreeMap<(ListeningPlace, usize), PassedOn>);

impl PassedSockets {
    /// Takes the descriptors of these addresses, in their order.
    ///
    /// # Errors
    /// `InvalidData` when one is missing or does not listen where it is said to.
    pub(crate) fn new(
        addresses: Vec<PassedAddress>,
        descriptors: &mut impl Iterator<Item = OwnedFd>,
    ) -> io::Result<Self> {
        let mut passed = BTreeMap::new();
        for (index, address) in (0..).zip(addresses) {
            let sockets: Vec<OwnedFd> = descriptors.take(address.sockets).collect();
            let is_it =
                |socket| socket::is_listening(AsFd::as_fd(socket)) && address.real.is_of(socket);
            if sockets.len() < address.sockets || !sockets.iter().all(is_it) {
                let what = format!("what was passed does not listen on {}", address.real.address());
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            let key = (address.asked.clone(), address.repeat);
            passed.insert(key, PassedOn { address, sockets, index });
        }
        Ok(Self(passed))
    }

    /// Takes those of an address. A Unix socket whose file is gone is left: no client reaches it.
    pub(crate) fn take(&mut self, asked: &Address, repeat: usize) -> Option<PassedOn> {
        let key = (ListeningPlace::of(asked)?, repeat);
        let is_lost = self.0.get(&key)?.file().is_some_and(|file| !file.is_there());
        if is_lost { None } else { self.0.remove(&key) }
    }

    /// Closes what no listener has taken, and tells which of the description that is.
    pub(crate) fn leave(&mut self) -> Vec<u32> {
        let left = std::mem::take(&mut self.0);
        left.into_values().map(|passed| passed.index).collect()
    }
}

/// Sockets that were open before this process.
#[derive(Debug, Default)]
pub(crate) struct GivenSockets {
    /// By systemd.
    pub(crate) inherited: Vec<Inherited>,
    /// By the process before.
    pub(crate) passed: PassedSockets,
}
