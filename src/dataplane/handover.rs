//! Handing a new session to a worker that has clearly fewer, so that long ones are spread evenly.
//!
//! A session is handed over once: with its places claimed, so that its listener is neither stopped
//! nor forgotten meanwhile, and before anything was read or connected. Nothing that runs ever
//! moves.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::policy::pace::handover::{Lifetime, is_clearly_fewer};
use crate::shared::ListenerId;

use super::command::{Arrival, Command, Peer};
use super::kernel::Kernel;

/// Other workers that are asked for each new session: two are nearly as good as all.
const ASKED: usize = 2;

/// The other workers, and how long sessions last.
#[derive(Debug)]
pub(super) struct Handover<K: Kernel> {
    peers: Vec<Peer<K>>,
    /// Which peer to ask next.
    next: usize,
    /// By listener.
    lifetimes: Vec<Lifetime>,
}

impl<K: Kernel> Handover<K> {
    /// No other worker is known yet.
    pub(super) fn new() -> Self {
        Self { peers: Vec::new(), next: 0, lifetimes: Vec::new() }
    }

    /// From now on these are the others.
    pub(super) fn meet(&mut self, peers: Vec<Peer<K>>) {
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

    /// Sends an arrival to a worker that should have it rather than this one, which has `own`
    /// sessions; gives it back where it is to stay.
    pub(super) fn pass_on(&mut self, arrival: Arrival<K>, own: u64) -> Option<Arrival<K>> {
        let Some(other) = self.better(arrival.listener.id, own) else { return Some(arrival) };
        other.state.arriving.fetch_add(1, Ordering::Relaxed);
        match other.commands.send(Command::Take(Box::new(arrival))) {
            Ok(()) => {
                // Fails only for a worker that is gone, and with one gone the process ends.
                let _gone = other.waker.wake();
                None
            }
            Err(unsent) => {
                other.state.arriving.fetch_sub(1, Ordering::Relaxed);
                match unsent.into_inner() {
                    Command::Take(arrival) => Some(*arrival),
                    _ => None,
                }
            }
        }
    }

    /// Another worker that should have a new session of `listener` rather than this one, which has
    /// `own`.
    fn better(&mut self, listener: ListenerId, own: u64) -> Option<&Peer<K>> {
        if self.peers.is_empty() {
            return None;
        }
        let lifetime = self.lifetimes.get(listener.index()).copied().unwrap_or_default();
        if !lifetime.lasts() {
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
