//! What the control plane gets to see of a worker's sessions, a slice at a time.
//!
//! A worker looks at a bounded number of slots, or tells of a bounded number of sessions, hands the
//! look back and forgets it; the control plane sends it again until it has seen them all. So one
//! turn holds one slice, however many sessions there are, and a turn without a look has nothing to
//! ask.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::policy::admit::access::NetSet;
use crate::policy::client::Client;
use crate::policy::nat64::SeenClient;
use crate::shared::{BackendId, ListenerId, PoolId};

use super::slots::SlotKey;

/// Slots looked at in one turn: below 0.2 ms where each is far from the caches.
pub(super) const SLOTS_PER_TURN: u32 = 1024;
/// Sessions told of in one turn, which takes up to four system calls each: about 0.2 ms.
pub const DESCRIBED_PER_TURN: usize = 128;

/// Which sessions are meant: those for which all of this is so.
#[derive(Debug, Default)]
pub struct SessionFilter {
    /// They came to one of these.
    pub listeners: Option<BTreeSet<ListenerId>>,
    /// They go to one of these.
    pub pools: Option<BTreeSet<PoolId>>,
    /// They have a place at one of these.
    pub backends: Option<BTreeSet<BackendId>>,
    /// Their client is in one of these networks, by its own address or by the IPv4 address that a
    /// translator has embedded in it.
    pub clients: Option<NetSet>,
    /// They have this number.
    pub number: Option<u64>,
}

impl SessionFilter {
    /// Whether a client is meant.
    #[must_use]
    pub fn means_client(&self, client: SeenClient) -> bool {
        let addresses = [client.ip(), client.translated_from.map(IpAddr::V6)];
        let is_in = |nets: &NetSet| addresses.into_iter().flatten().any(|it| nets.contains(it));
        self.clients.as_ref().is_none_or(is_in)
    }
}

/// One session, as far as a list has to be put in order.
#[derive(Debug, Clone, Copy)]
pub struct Sighting {
    /// Where it is.
    pub key: SlotKey,
    /// Its number.
    pub number: u64,
    /// When it began, in microseconds of the workers' clock.
    pub opened_us: u64,
    /// When a byte last moved, by the same clock; before that, when it began.
    pub active_us: u64,
    /// Bytes delivered, both ways together.
    pub bytes: u64,
}

/// A look at the sessions of a worker, slice by slice.
#[derive(Debug)]
pub struct SessionLook {
    pub(super) filter: Arc<SessionFilter>,
    /// The slot to go on with; `None` when all have been seen.
    pub(super) next: Option<u32>,
    /// What the latest slice has found.
    pub found: Vec<Sighting>,
}

impl SessionLook {
    /// A look that has seen nothing.
    #[must_use]
    pub fn new(filter: Arc<SessionFilter>) -> Self {
        Self { filter, next: Some(0), found: Vec::with_capacity(SLOTS_PER_TURN as usize) }
    }

    /// Whether every session has been seen that was there from the beginning to the end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.next.is_none()
    }
}

/// Sessions of one worker that it is to tell of, and what it tells.
#[derive(Debug)]
pub struct Description {
    /// At most [`DESCRIBED_PER_TURN`]; what is beyond that is left out, as is what has ended.
    pub wanted: Vec<SlotKey>,
    /// Those that are still there.
    pub shown: Vec<SessionShown>,
}

/// One session as it is shown.
#[derive(Debug)]
pub struct SessionShown {
    /// Its number.
    pub number: u64,
    /// Where its client came.
    pub listener: ListenerId,
    /// Where it goes; `None` while that is not known.
    pub pool: Option<PoolId>,
    /// The backend on which it has a place.
    pub backend: Option<BackendId>,
    /// How far it has come, in a word.
    pub stage: &'static str,
    /// The client, as limits and the log know it.
    pub client: Client,
    /// The client's connection: its peer and its own address. `None` of a Unix socket.
    pub client_leg: [Option<SocketAddr>; 2],
    /// The backend's connection: its own address and its peer.
    pub backend_leg: [Option<SocketAddr>; 2],
    /// When it began, in microseconds of the workers' clock.
    pub opened_us: u64,
    /// When a byte last moved, or it began.
    pub active_us: u64,
    /// Bytes delivered: to the backend, to the client.
    pub bytes: [u64; 2],
}
