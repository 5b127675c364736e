//! Handing a new session to a worker that has clearly fewer, so that long ones are spread evenly.
//!
//! A session is handed over once: after it was admitted, so that its places are claimed and nobody
//! stops or forgets its listener meanwhile, and before anything was read or connected. Nothing that
//! runs ever moves.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam::channel::Sender;
use mio::Waker;

use crate::policy::spread::{Lifetime, is_clearly_fewer};
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

/// A client that another worker has admitted.
#[derive(Debug)]
pub struct Arrival {
    pub(super) listener: Arc<Listener>,
    pub(super) client: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) admitted: Admitted,
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
    /// Opens a session for a client that was admitted, here or at a worker with fewer.
    pub(super) fn place(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: SocketAddr,
        admitted: Admitted,
    ) {
        let own = self.table.slots.len() as u64;
        let Some(other) = self.spread.better(listener.id, own) else {
            self.open(listener, client, peer, admitted);
            return self.tell_sessions();
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
                    self.open(listener, arrival.client, peer, arrival.admitted);
                }
            }
        }
    }

    /// Opens a session for a client that another worker has admitted.
    pub(super) fn take(&mut self, arrival: Arrival) {
        let Arrival { listener, client, peer, admitted } = arrival;
        self.open(&listener, client, peer, admitted);
        self.tell_sessions();
        self.setup.state.arriving.fetch_sub(1, Ordering::Relaxed);
    }

    /// Others compare with this number before the turn is over.
    fn tell_sessions(&self) {
        self.setup.state.sessions.set(self.table.slots.len() as u64);
    }
}
