//! The refused clients that one worker holds: their number is bounded.

use std::collections::VecDeque;

use crate::dataplane::clock::Tick;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::slots::{SlotKey, Slots};
use crate::dataplane::timers::Timers;

use super::client::HeldClient;

/// Refusals that a worker holds at once to answer them.
const ANSWERS_MAX: u64 = 1024;
/// Refusals that a worker keeps waiting at once.
const TARPITS_MAX: u64 = 1024;
/// All that one worker holds.
#[derive(Debug)]
pub(crate) struct HeldClients<K: Kernel> {
    pub(super) clients: Slots<HeldClient<K>>,
    pub(super) timers: Timers,
    pub(super) ready: VecDeque<SlotKey>,
    pub(super) tarpits: u64,
}

impl<K: Kernel> HeldClients<K> {
    pub(super) fn new(now: Tick) -> Self {
        let timers = Timers::new(now);
        Self { clients: Slots::new(), timers, ready: VecDeque::new(), tarpits: 0 }
    }

    /// When there is something to do; at once is zero.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        if self.ready.is_empty() { self.timers.next_due() } else { Some(Tick::default()) }
    }

    pub(super) fn queue(&mut self, key: SlotKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !std::mem::replace(&mut client.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    pub(super) fn has_room(&self, is_tarpit: bool, share: u64) -> bool {
        let answers = self.clients.len() as u64 - self.tarpits;
        let (held, most) =
            if is_tarpit { (self.tarpits, TARPITS_MAX) } else { (answers, ANSWERS_MAX) };
        held < most.min(share).max(1)
    }
}
