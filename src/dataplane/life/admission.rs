//! Whether a client may come in: access lists, then what its listener limits, cheapest first.

use std::net::IpAddr;
use std::sync::Arc;

use crate::dataplane::clock::Tick;
use crate::dataplane::desk::Desk;
use crate::dataplane::kernel::Kernel;
use crate::dataplane::session::{Admitted, Counted};
use crate::policy::admit::admission::{Over, Refused};
use crate::policy::admit::http_answer::HttpAnswer;
use crate::policy::admit::limiter::{Entry, LimitKey};
use crate::policy::balance::hash::mask;
use crate::shared::{Limit, LimitDecision, Listener, RefuseReason};

use super::next::Refusal;

/// What a limit says: where the session was counted, and why it should be refused.
struct LimitAnswer {
    counted: Option<Counted>,
    refusal: Option<Refusal>,
}

/// Asks what concerns the client. On success it is counted wherever it has to be.
pub(crate) fn admit_client<K: Kernel>(
    desk: &Desk<K>,
    listener: &Listener,
    client: Option<IpAddr>,
) -> Result<Admitted, Refusal> {
    if !listener.access.admits(client) {
        return Err(RefuseReason::Access.into());
    }
    match &listener.limit {
        Some(limit) => within_limit(desk, listener, limit, client),
        None => Ok(Admitted::default()),
    }
}

fn within_limit<K: Kernel>(
    desk: &Desk<K>,
    listener: &Listener,
    limit: &Limit,
    client: Option<IpAddr>,
) -> Result<Admitted, Refusal> {
    let is_exempt = |client| limit.exempt.as_ref().is_some_and(|list| list.contains(client));
    if client.is_some_and(is_exempt) {
        return Ok(Admitted::default());
    }
    let LimitAnswer { counted, refusal } = ask_limiter(limit, limit.key_of(client), desk.now);
    let decision = match &refusal {
        None => LimitDecision::Allowed,
        Some(_) if limit.observe => LimitDecision::WouldRefuse,
        Some(_) => LimitDecision::Refused,
    };
    let counters = listener.state.counters(desk.books.number);
    counters.limit_said(decision).add(1);
    if decision == LimitDecision::WouldRefuse {
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
            let counted = Some(Counted { limiter: Arc::clone(limiter), key });
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

/// What a client is refused for that is over this limit.
pub(crate) fn refused_for(over: Over) -> RefuseReason {
    match over {
        Over::Rate => RefuseReason::Limit,
        Over::Concurrent => RefuseReason::Concurrent,
        Over::ListenerRate => RefuseReason::ListenerRate,
    }
}
