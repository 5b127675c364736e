//! Whether the limit of a listener lets a client in, and where its session is counted.

use std::net::IpAddr;
use std::sync::Arc;

use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::{Admitted, Counted};
use crate::policy::admit::admission::{Over, Refused};
use crate::policy::admit::http_answer::HttpAnswer;
use crate::policy::admit::limiter::{Entry, LimitKey, OpenSessions};
use crate::policy::balance::hash::mask;
use crate::shared::{Limit, LimitDecision, Listener, ListenerId, RefuseReason, Snapshot};

use super::next::Refusal;

/// The answer of a limit: where the session was counted, and why it should be refused.
struct LimitAnswer {
    counted: Option<Counted>,
    refusal: Option<Refusal>,
}

/// Asks the limit of a listener. On success the client is counted wherever it has to be.
pub(super) fn within_limit<K: Kernel>(
    desk: &Desk<K>,
    listener: &Listener,
    limit: &Limit,
    client: Option<IpAddr>,
) -> Result<Admitted, Refusal> {
    if limit.is_exempt(client) {
        return Ok(Admitted::default());
    }
    let key = limit.key_of(client);
    let LimitAnswer { mut counted, refusal } = ask_limiter(limit, key, desk.now);
    let decision = match &refusal {
        None => LimitDecision::Allowed,
        Some(_) if limit.observe => LimitDecision::WouldRefuse,
        Some(_) => LimitDecision::Refused,
    };
    let counters = listener.state.counters(desk.books.number);
    counters.limit_said(decision).add(1);
    if decision == LimitDecision::WouldRefuse {
        // It comes in, so it holds a session, which counts once the limit is enforced.
        counted = count(limit, key);
        counters.offenders.note(client.map(|client| mask(client, limit.key)));
    }
    match (decision, refusal) {
        (LimitDecision::Refused, Some(refusal)) => Err(refusal),
        (_, refusal) => Ok(Admitted { counted, observed: refusal.map(|over| over.reason) }),
    }
}

fn ask_limiter(limit: &Limit, key: LimitKey, now: Tick) -> LimitAnswer {
    let Limit { limiter, listener_rate, rules, .. } = limit;
    match rules.admit(limiter, listener_rate, key, now.micros()) {
        Ok(Entry::Counted) => {
            let sessions = limiter.open_sessions().cloned();
            let counted = sessions.map(|sessions| Counted { sessions, key });
            LimitAnswer { counted, refusal: None }
        }
        Ok(_) => LimitAnswer { counted: None, refusal: None },
        Err(Refused { over, wait }) => {
            let answer = HttpAnswer::TooMany { limit: rules.allowance(over), wait };
            let refusal = Some(Refusal { reason: refused_for(over), answer });
            LimitAnswer { counted: None, refusal }
        }
    }
}

/// Counts a session that is here without having been asked for; `None`: sessions are not counted,
/// or there was no room.
fn count(limit: &Limit, key: LimitKey) -> Option<Counted> {
    let sessions = Arc::clone(limit.limiter.open_sessions()?);
    sessions.count(key).then(|| Counted { sessions, key })
}

/// Whether a snapshot counts open sessions where the one before did not.
pub(crate) fn is_to_recount(latest: &Snapshot, earlier: &Snapshot) -> bool {
    let table =
        |listener: &Arc<Listener>| listener.limit.as_ref()?.limiter.open_sessions().cloned();
    latest.open_listeners().any(|listener| {
        let before = earlier.listener(listener.id).and_then(table);
        let is_kept =
            |now: &Arc<OpenSessions>| before.is_some_and(|before| Arc::ptr_eq(&before, now));
        table(listener).is_some_and(|now| !is_kept(&now))
    })
}

/// Counts a session of an admitted client where its listener's limit counts sessions now.
pub(crate) fn recount(
    counted: &mut Option<Counted>,
    listener: ListenerId,
    client: Option<IpAddr>,
    snapshot: &Snapshot,
) {
    let listener = snapshot.listener(listener);
    let Some(limit) = listener.and_then(|listener| listener.limit.as_ref()) else { return };
    let Some(sessions) = limit.limiter.open_sessions() else { return };
    let is_here = |counted: &Counted| Arc::ptr_eq(&counted.sessions, sessions);
    if !counted.as_ref().is_some_and(is_here) && !limit.is_exempt(client) {
        *counted = count(limit, limit.key_of(client));
    }
}

/// The reason for which a client over this limit is refused.
pub(crate) fn refused_for(over: Over) -> RefuseReason {
    match over {
        Over::Rate => RefuseReason::Limit,
        Over::Concurrent => RefuseReason::Concurrent,
        Over::ListenerRate => RefuseReason::ListenerRate,
    }
}
