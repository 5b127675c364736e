//! Whether the limits of a listener let a client in, and where its session is counted.

use std::net::IpAddr;
use std::sync::Arc;

use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::Admitted;
use crate::dataplane::session::counted::{Counted, Observed};
use crate::policy::admit::admission::{Asked, Over, Refused, RefusedByOne, admit_all};
use crate::policy::admit::gate::refused_until;
use crate::policy::admit::http_answer::HttpAnswer;
use crate::policy::admit::limiter::{Decision, Entry, LimitKey, OpenSessions};
use crate::policy::balance::hash::mask;
use crate::policy::client::Client;
use crate::shared::{Limit, LimitDecision, ListenerId, RefuseReason, Refusing, Snapshot};

use super::next::Refusal;

/// Asks the limits of a listener. On success the client is counted wherever it has to be.
pub(super) fn within_limits<K: Kernel>(
    desk: &Desk<K>,
    limits: &[Limit],
    client: Option<IpAddr>,
) -> Result<Admitted, Refusal> {
    let visit = Visit { worker: desk.books.number, now_us: desk.now.micros(), client };
    match limits {
        [limit] if limit.observe => {
            let mut admitted = Admitted::default();
            visit.observe(limit, &mut admitted);
            Ok(admitted)
        }
        [limit] => visit.enforce(limit),
        limits => visit.enforce_all(limits),
    }
}

/// One connection of a client, as limits are asked for it.
#[derive(Clone, Copy)]
struct Visit {
    worker: usize,
    now_us: u64,
    client: Option<IpAddr>,
}

impl Visit {
    fn enforce(self, limit: &Limit) -> Result<Admitted, Refusal> {
        if !limit.concerns(self.client) {
            return Ok(Admitted::default());
        }
        let asked = limit.asked(self.client);
        match asked.admit(self.now_us) {
            Ok(entry) => {
                self.note(limit, LimitDecision::Allowed);
                let counted = entry_of(limit, asked.key, entry);
                Ok(Admitted { counted, particulars: None })
            }
            Err(refused) => {
                self.note(limit, LimitDecision::Refused);
                self.tell_gate(limit, refused);
                Err(refusal(limit, 0, refused))
            }
        }
    }

    /// Those that are enforced first, so that those that observe see the clients that come in.
    fn enforce_all(self, limits: &[Limit]) -> Result<Admitted, Refusal> {
        let concerned = limits.iter().enumerate().filter(|(_, limit)| limit.concerns(self.client));
        let (observing, enforced): (Vec<_>, Vec<_>) =
            concerned.partition(|(_, limit)| limit.observe);
        let asked: Vec<Asked<'_>> =
            enforced.iter().map(|(_, limit)| limit.asked(self.client)).collect();
        let mut admitted = Admitted::default();
        match admit_all(&asked, self.now_us) {
            Ok(entries) => {
                for (((_, limit), asked), entry) in enforced.iter().zip(&asked).zip(entries) {
                    self.note(limit, LimitDecision::Allowed);
                    admitted.count(entry_of(limit, asked.key, entry));
                }
            }
            Err(RefusedByOne { place, refused }) => {
                // What the others had counted was taken back.
                for (other, (_, limit)) in enforced.iter().enumerate() {
                    if other != place {
                        self.have_forgotten(limit);
                    }
                }
                if let Some((index, limit)) = enforced.get(place) {
                    self.note(limit, LimitDecision::Refused);
                    self.tell_gate(limit, refused);
                    return Err(refusal(limit, *index, refused));
                }
            }
        }
        for (_, limit) in observing {
            self.observe(limit, &mut admitted);
        }
        Ok(admitted)
    }

    /// Asks a limit that lets the client in whatever it says.
    fn observe(self, limit: &Limit, admitted: &mut Admitted) {
        if !limit.concerns(self.client) {
            return;
        }
        let asked = limit.asked(self.client);
        match asked.admit(self.now_us) {
            Ok(entry) => {
                self.note(limit, LimitDecision::Allowed);
                admitted.count(entry_of(limit, asked.key, entry));
            }
            Err(refused) => {
                self.note(limit, LimitDecision::WouldRefuse);
                let offender = self.client.map(|client| mask(client, limit.key));
                limit.state.counters(self.worker).offenders.note(offender);
                // It comes in, so it holds a session, which counts once the limit is enforced.
                admitted.count(count(limit, asked.key));
                let (reason, limit) = (refused_for(refused.over), Arc::clone(&limit.name));
                let particulars = admitted.particulars.get_or_insert_default();
                particulars.observed.get_or_insert(Observed { reason, limit });
            }
        }
    }

    /// Has the kernel refuse the client for as long as this refusal holds. Whatever another worker
    /// has counted and takes back makes the client forgotten again: it takes back first and then
    /// has it forgotten; here it is entered first and then looked at.
    #[cold]
    fn tell_gate(self, limit: &Limit, refused: Refused) {
        let Refusing::InKernel { gate, mark } = &limit.refusing else { return };
        let (Some(client), Some(rate)) = (self.client, &limit.rules.rate) else { return };
        let Some(until_us) = refused_until(self.now_us, &refused) else {
            return self.have_forgotten(limit);
        };
        gate.kernel.enter(*mark, mask(client, limit.key), until_us);
        let key = limit.key_of(self.client);
        if limit.limiter.peek(key, self.now_us, rate) == Decision::Allowed {
            self.have_forgotten(limit);
        }
    }

    /// Has the kernel refuse the client no more.
    fn have_forgotten(self, limit: &Limit) {
        if let (Refusing::InKernel { gate, mark }, Some(client)) = (&limit.refusing, self.client) {
            gate.kernel.forget(*mark, mask(client, limit.key));
        }
    }

    fn note(self, limit: &Limit, decision: LimitDecision) {
        limit.state.counters(self.worker).said(decision).add(1);
    }
}

/// Where an admitted session is counted.
fn entry_of(limit: &Limit, key: LimitKey, entry: Entry) -> Option<Counted> {
    let sessions = limit.limiter.open_sessions().filter(|_| entry == Entry::Counted)?;
    Some(Counted { sessions: Arc::clone(sessions), key })
}

/// Counts a session that is here without having been asked for; `None`: sessions are not counted,
/// or there was no room.
fn count(limit: &Limit, key: LimitKey) -> Option<Counted> {
    let sessions = Arc::clone(limit.limiter.open_sessions()?);
    sessions.count(key).then(|| Counted { sessions, key })
}

fn refusal(limit: &Limit, index: usize, refused: Refused) -> Refusal {
    let Refused { over, wait } = refused;
    let answer = HttpAnswer::TooMany { limit: limit.rules.allowance(over), wait };
    Refusal { reason: refused_for(over), answer, limit: index }
}

/// Whether a snapshot counts open sessions where the one before did not.
pub(crate) fn is_to_recount(latest: &Snapshot, earlier: &Snapshot) -> bool {
    latest.open_listeners().any(|listener| {
        let before = earlier.listener(listener.id).map_or(&[][..], |before| &before.limits);
        let is_known = |now: &Limit| {
            let now = now.limiter.open_sessions();
            let mut before = before.iter().filter_map(|limit| limit.limiter.open_sessions());
            now.is_none_or(|now| before.any(|before| Arc::ptr_eq(before, now)))
        };
        !listener.limits.iter().all(is_known)
    })
}

/// Counts a session of an admitted client where its listener's limits count sessions now; `None`:
/// it is counted there already. `is_in` tells where it is counted. The new counts are there before
/// the old ones go, so that it is never counted too seldom.
pub(crate) fn recount(
    is_in: impl Fn(&Arc<OpenSessions>) -> bool,
    listener: ListenerId,
    client: Client,
    snapshot: &Snapshot,
) -> Option<Admitted> {
    let listener = snapshot.listener(listener)?;
    let client = snapshot.nat64.see(client).ip();
    let concerned = || listener.limits.iter().filter(|limit| limit.concerns(client));
    if concerned().filter_map(|limit| limit.limiter.open_sessions()).all(is_in) {
        return None;
    }
    let mut anew = Admitted::default();
    for limit in concerned() {
        anew.count(count(limit, limit.key_of(client)));
    }
    Some(anew)
}

/// The reason for which a client over this limit is refused.
pub(crate) fn refused_for(over: Over) -> RefuseReason {
    match over {
        Over::Rate => RefuseReason::Limit,
        Over::Concurrent => RefuseReason::Concurrent,
        Over::ListenerRate => RefuseReason::ListenerRate,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::net::Ipv4Addr;
    use std::os::fd::BorrowedFd;
    use std::sync::Barrier;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::policy::admit::admission::Rules;
    use crate::policy::admit::limiter::Limiter;
    use crate::policy::admit::meter::Meter;
    use crate::policy::balance::hash::Prefix;
    use crate::policy::terms::LimitAction;
    use crate::shared::{Gate, GateKernel, LimitState};

    const AT: u64 = 5_000_000;

    /// A gate that remembers its entries.
    #[derive(Debug, Clone, Default)]
    struct KeptEntries(Arc<Mutex<HashMap<IpAddr, u64>>>);

    impl GateKernel for KeptEntries {
        fn put_before(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            Ok(())
        }

        fn enter(&self, _: u32, client: IpAddr, until_us: u64) {
            self.0.lock().insert(client, until_us);
        }

        fn forget(&self, _: u32, client: IpAddr) {
            self.0.lock().remove(&client);
        }
    }

    fn limit(entries: &KeptEntries, rules: Rules) -> Limit {
        let gate = Arc::new(Gate::new(Box::new(entries.clone())));
        Limit {
            name: "default".into(),
            clients: None,
            limiter: Arc::new(Limiter::new(64, Some(64), [1, 2, 3, 4])),
            listener_rate: Arc::default(),
            rules,
            key: Prefix::WHOLE,
            action: LimitAction::Reset,
            observe: false,
            exempt: None,
            table_size: 64,
            refusing: Refusing::InKernel { gate, mark: 1 },
            state: Arc::new(LimitState::new(3)),
        }
    }

    // If this fails, the kernel refuses a client for a connection that was counted and taken back.
    #[test]
    fn racing_workers_leave_no_entry_for_a_client_that_may_come() {
        let client: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        let rate = Meter::token_bucket(3, Duration::from_secs(86_400), 3).unwrap();
        let rules = Rules { rate: Some(rate), concurrent_max: Some(1), listener_rate: None };
        let mut entered = 0;
        for _ in 0..1_000 {
            let entries = KeptEntries::default();
            let limit = limit(&entries, rules);
            let barrier = Barrier::new(3);
            let work = |worker: usize| {
                barrier.wait();
                for _ in 0..5 {
                    let visit = Visit { worker, now_us: AT, client: Some(client) };
                    drop(visit.enforce(&limit));
                }
            };
            let work = &work;
            std::thread::scope(|scope| {
                (0..3).for_each(|worker| _ = scope.spawn(move || work(worker)));
            });
            let left = limit.limiter.left(limit.key_of(Some(client)), AT, &rate);
            let entry = entries.0.lock().get(&client).copied();
            assert!(left == 0 || entry.is_none(), "{left} left, entered until {entry:?}");
            entered += usize::from(entry.is_some());
        }
        assert!(entered > 0, "no client was ever entered");
    }
}
