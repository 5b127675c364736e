//! An operator looks at the sessions of all workers and kills those that he has seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam::channel::{Receiver, bounded};
use evenkeel::dataplane::{Command, SessionFilter, SessionLook, SlotKey};
use evenkeel::shared::LeaveOrder;

use super::workers::Seat;

/// Looks that workers were asked for.
#[derive(Default)]
pub(crate) struct Killing(Vec<AskedLook>);

struct AskedLook {
    answer: Receiver<Box<SessionLook>>,
    /// The numbers of the sessions that were there when it was asked for.
    there: BTreeSet<u64>,
}

/// Sessions that are to be killed.
#[derive(Default)]
pub(crate) struct Named {
    /// Their clients' sockets.
    pub(crate) clients: BTreeSet<usize>,
    /// What the looks got wrong.
    pub(crate) problems: Vec<String>,
}

impl Killing {
    /// Whether nothing has been asked for.
    pub(crate) fn is_new(&self) -> bool {
        self.0.is_empty()
    }

    /// Has every worker look.
    pub(crate) fn look(&mut self, workers: &[Seat]) {
        for seat in workers {
            let (back, answer) = bounded(1);
            let there = seat.worker.sessions().map(|(_, session)| session.number()).collect();
            let look = Box::new(SessionLook::new(Arc::new(SessionFilter::default())));
            seat.send(Command::Look(look, back));
            self.0.push(AskedLook { answer, there });
        }
    }

    /// Names what was seen to its workers; one that has not looked yet is passed over.
    pub(crate) fn name(&self, workers: &[Seat], order: &Arc<LeaveOrder>) -> Named {
        let mut named = Named::default();
        for (asked, seat) in self.0.iter().zip(workers) {
            let Ok(look) = asked.answer.try_recv() else { continue };
            let seen: BTreeSet<u64> = look.found.iter().map(|sighting| sighting.number).collect();
            for (_, session) in seat.worker.sessions() {
                let number = session.number();
                if asked.there.contains(&number) && !seen.contains(&number) {
                    named.problems.push(format!("session {number} was overlooked"));
                }
                if seen.contains(&number) {
                    named.clients.insert(session.client_socket().id);
                }
            }
            let keys: Vec<SlotKey> = look.found.iter().map(|sighting| sighting.key).collect();
            seat.send(Command::LeaveNamed(Arc::clone(order), keys));
        }
        named
    }
}
