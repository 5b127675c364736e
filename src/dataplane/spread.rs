//! Handing a new session to a worker that has clearly fewer, so that long ones are spread evenly.
//!
//! A session is handed over once: with its places claimed, so that nobody stops or forgets its
//! listener meanwhile, and before anything was read or connected. Nothing that runs ever moves.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Sender;
use mio::Waker;

use crate::policy::client::Client;
use crate::policy::pace::handover::{Lifetime, is_clearly_fewer};
use crate::shared::{Listener, ListenerId, WorkerState};

use super::Command;
use super::connection::Admitted;
use super::worker::Worker;

/// Others that are asked for each new session: two are nearly as good as all.
const ASKED: usize = 2;

/// Another worker, as far as this one may know it.
#[derive(Debug)]
pub struct Peer {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Arc<Waker>,
    pub(super) state: Arc<WorkerState>,
}

impl Peer {
    /// Sessions it has, and those on the way to it.
    fn sessions(&self) -> u64 {
        self.state.sessions.value() + self.state.arriving.load(Ordering::Relaxed)
    }
}

/// A client that another worker has accepted.
#[derive(Debug)]
pub struct Arrival {
    pub(super) listener: Arc<Listener>,
    pub(super) client: OwnedFd,
    pub(super) peer: Client,
    /// `None`: who it is has to be read first.
    pub(super) admitted: Option<Admitted>,
}

/// What a worker knows for spreading.
#[derive(Debug, Default)]
pub(super) struct Spread {
    peers: Vec<Peer>,
    /// Whom to ask next.
    next: usize,
    /// By listener.
    lifetimes: Vec<Lifetime>,
}

impl Spread {
    /// From now on these are the others.
    pub(super) fn meet(&mut self, peers: Vec<Peer>) {
        self.peers = peers;
    }

    /// Learns how long a session of a listener has lived.
    pub(super) fn learn(&mut self, listener: ListenerId, lived: Duration) {
        if self.peers.is_empty() {
            return;
        }
        let index = listener.index();
        if self.lifetimes.len() <= index {
            self.lifetimes.resize(index + 1, Lifetime::default());
        }
        if let Some(lifetime) = self.lifetimes.get_mut(index) {
            lifetime.learn(lived);
        }
    }

    /// Another worker that should have a new session of `listener` rather than this one, which has
    /// `own`.
    fn better(&mut self, listener: ListenerId, own: u64) -> Option<&Peer> {
        let lifetime = self.lifetimes.get(listener.index()).copied().unwrap_or_default();
        if self.peers.is_empty() || !lifetime.lasts() {
            return None;
        }
        let asked = (0..ASKED.min(self.peers.len())).filter_map(|_| {
            self.next = (self.next + 1) % self.peers.len();
            self.peers.get(self.next)
        });
        let (least, peer) = asked.map(|peer| (peer.sessions(), peer)).min_by_key(|one| one.0)?;
        is_clearly_fewer(least, own).then_some(peer)
    }
}

impl Worker {
    /// Opens a session that has its places, here or at a worker with fewer. `None`: its peer has to
    /// say first who the client is.
    pub(super) fn place(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: Client,
        admitted: Option<Admitted>,
    ) {
        let own = self.table.slots.len() as u64;
        let Some(other) = self.spread.better(listener.id, own) else {
            return self.begin(listener, client, peer, admitted);
        };
        let arrival = Arrival { listener: Arc::clone(listener), client, peer, admitted };
        other.state.arriving.fetch_add(1, Ordering::Relaxed);
        match other.commands.send(Command::Take(Box::new(arrival))) {
            Ok(()) => {
                // Fails only for a worker that is gone, and with one gone the process ends.
                let _gone = other.waker.wake();
                self.setup.state.handed_over.add(1);
            }
            Err(unsent) => {
                other.state.arriving.fetch_sub(1, Ordering::Relaxed);
                if let Command::Take(arrival) = unsent.into_inner() {
                    self.begin(listener, arrival.client, peer, arrival.admitted);
                }
            }
        }
    }

    /// Begins a session that another worker has handed over.
    pub(super) fn take(&mut self, arrival: Arrival) {
        let Arrival { listener, client, peer, admitted } = arrival;
        self.begin(&listener, client, peer, admitted);
        self.setup.state.arriving.fetch_sub(1, Ordering::Relaxed);
    }

    fn begin(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: Client,
        admitted: Option<Admitted>,
    ) {
        match admitted {
            Some(admitted) => self.open(listener, client, peer, admitted),
            None => self.open_with_header(listener, client, peer),
        }
        // Others compare with this number before the turn is over.
        self.setup.state.sessions.set(self.table.slots.len() as u64);
    }
}
