//! What a client would get if it connected now, and why, found by the code that decides when one
//! does: the same lists, limits, routes and choosers, asked without taking anything.
//!
//! Read-only, so any thread may ask. What changes between the answer and the next connection (other
//! clients, probes) changes that connection, too.

use std::sync::Arc;

use ipnet::IpNet;

use crate::policy::admit::access::Access;
use crate::policy::admit::admission::Refused;
use crate::policy::balance::hash::name_key;
use crate::policy::client::Client;
use crate::policy::first_bytes::client_hello::ClientHello;
use crate::policy::first_bytes::route::{self, Choice, Known};
use crate::shared::{
    Backend, BackendId, By, HashedWords, Limit, Listener, Obstacle, Pick, Pool, PoolId,
    RefuseReason, Snapshot, SourceRule,
};

use super::choose::chooser::Chooser;
use super::choose::picker::{Asking, PassedOver};
use super::life::admission::refused_for;
use super::life::connect::may_retry;
use super::life::source::own_address;

/// The client that is asked about, and when.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The listener it would connect to.
    pub listener: &'a Listener,
    /// The client, as limits and hashes see it.
    pub client: Client,
    /// The server it would name in its TLS hello, in lower case.
    pub server_name: Option<&'a str>,
    /// The time, in microseconds since the process started.
    pub now_us: u64,
}

/// What would come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Turned away.
    Refused(RefuseReason),
    /// It would wait in the line of its pool.
    Waits,
    /// It would be given a backend.
    Served,
}

/// The decisions, in the order in which they are made.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What comes of them.
    pub outcome: Outcome,
    /// The network of a ban that is about the client.
    pub ban: Option<IpNet>,
    /// What the access lists say.
    pub access: Access,
    /// What the limits say, in the order of the listener's.
    pub limits: Vec<LimitSaid>,
    /// How the pool is found.
    pub route: RouteSaid,
    /// What the pool's policy says; `None` when the client does not get so far.
    pub choice: Option<ChoiceSaid>,
}

/// What a limit of a listener says of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSaid {
    /// The limit is not about the client; nothing else here counts then.
    pub unconcerned: bool,
    /// The client is exempt from it.
    pub exempt: bool,
    /// The limit that it is over.
    pub over: Option<Refused>,
    /// More connections that it may make at once, of its own rate.
    pub left: Option<u64>,
    /// Sessions it has open, as far as they are counted.
    pub sessions: u64,
}

/// How the pool of a connection is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSaid {
    /// The pool.
    pub pool: PoolId,
    /// A route leads there; else it is the listener's own pool.
    pub is_routed: bool,
    /// Another pool may come of what the client says first.
    pub depends_on_hello: bool,
    /// Another backend may come of it: the pool hashes what the client says.
    pub depends_on_words: bool,
    /// Another backend may come of the client's port, which the pool hashes and the question lacks.
    pub depends_on_port: bool,
}

/// Whether a backend would be connected from the client's own address, and the client has none of
/// its family.
fn has_no_source(backend: &Backend, client: Client) -> bool {
    matches!(backend.source.as_deref(), Some(SourceRule::Client))
        && own_address(client, &backend.address).is_none()
}

/// What the policy of a pool says.
#[derive(Debug, Clone)]
pub struct ChoiceSaid {
    /// The backend; where chance or turns decide, one of those that may come.
    pub backend: Option<Arc<Backend>>,
    /// How it is chosen.
    pub pick: Pick,
    /// The next connection gets the very same.
    pub is_certain: bool,
    /// Backends that are passed over, and why.
    pub skipped: Vec<(Arc<Backend>, Obstacle)>,
    /// Clients that wait before it.
    pub waiting: u64,
}

impl Explanation {
    /// Decides as for a connection that arrives now.
    #[must_use]
    pub fn of(snapshot: &Snapshot, question: &Question<'_>) -> Self {
        let seen = snapshot.nat64.see(question.client);
        let question = &Question { client: seen.client, ..*question };
        let Question { listener, client, .. } = *question;
        let bans = snapshot.bans.latest();
        let ban = bans.and_then(|bans| bans.covering_seen(seen, question.now_us));
        let access = listener.access.judge(seen);
        let limits: Vec<LimitSaid> =
            listener.limits.iter().map(|it| limit_says(it, client, question.now_us)).collect();
        let route = find_route(snapshot, question);
        let refused = if ban.is_some() {
            Some(RefuseReason::Ban)
        } else if !access.is_admitted() {
            Some(RefuseReason::Access)
        } else if let Some(reason) = refusing(listener, &limits) {
            Some(reason)
        } else if !has_room(snapshot, listener) {
            Some(RefuseReason::MaxSessions)
        } else {
            None
        };
        if let Some(reason) = refused {
            let outcome = Outcome::Refused(reason);
            return Self { outcome, ban, access, limits, route, choice: None };
        }
        let pool = snapshot.pool(route.pool);
        let choice = pool.map(|pool| {
            let mut choice = choose(snapshot, pool, question);
            choice.is_certain &= !route.depends_on_port;
            choice
        });
        let outcome = match (&choice, pool) {
            (Some(ChoiceSaid { waiting: 1.., .. }), _) => Outcome::Waits,
            (Some(ChoiceSaid { backend: Some(_), .. }), _) => Outcome::Served,
            (_, Some(pool)) if pool.is_only_full() => Outcome::Waits,
            _ => Outcome::Refused(RefuseReason::NoBackend),
        };
        Self { outcome, ban, access, limits, route, choice }
    }
}

impl LimitSaid {
    /// The reason for which a client over the limit is refused.
    #[must_use]
    pub fn reason(self) -> Option<RefuseReason> {
        self.over.map(|refused| refused_for(refused.over))
    }
}

/// What a client is refused for by the limits that are enforced: of several the longest wait.
fn refusing(listener: &Listener, limits: &[LimitSaid]) -> Option<RefuseReason> {
    let enforced = listener.limits.iter().zip(limits).filter(|(limit, _)| !limit.observe);
    let refused = enforced.filter_map(|(_, said)| said.over);
    let wait_us = |refused: &Refused| refused.wait.map_or(0, |wait| wait.retry_after_us);
    let longest = refused.reduce(
        |longest, other| {
            if wait_us(&other) > wait_us(&longest) { other } else { longest }
        },
    );
    longest.map(|refused| refused_for(refused.over))
}

fn limit_says(limit: &Limit, client: Client, now_us: u64) -> LimitSaid {
    let ip = client.ip();
    if !limit.concerns(ip) {
        let exempt = limit.is_exempt(ip);
        return LimitSaid { unconcerned: true, exempt, over: None, left: None, sessions: 0 };
    }
    let asked = limit.asked(ip);
    let Limit { limiter, rules, .. } = limit;
    LimitSaid {
        unconcerned: false,
        exempt: false,
        over: asked.look(now_us).err(),
        left: rules.rate.map(|meter| limiter.left(asked.key, now_us, &meter)),
        sessions: limiter.sessions(asked.key),
    }
}

fn has_room(snapshot: &Snapshot, listener: &Listener) -> bool {
    snapshot.sessions.value() < snapshot.sessions_max
        && listener.state.active.value() < listener.sessions_max
}

fn find_route(snapshot: &Snapshot, question: &Question<'_>) -> RouteSaid {
    let Question { listener, client, server_name, .. } = *question;
    let routes = listener.routing.as_ref().map_or(&[][..], |routing| &routing.routes);
    let hello = server_name
        .map(|name| ClientHello { server_name: Some(name.to_owned()), protocols: vec![] });
    let known = hello.as_ref().map_or(Known::NoHello, Known::Hello);
    let depends_on_hello = server_name.is_none()
        && route::choose(routes, client.ip(), Known::Nothing) == Choice::NeedsHello;
    let (pool, is_routed) = match route::choose(routes, client.ip(), known) {
        Choice::Taken(pool, _) => (pool, true),
        Choice::Default | Choice::NeedsHello => (listener.pool, false),
    };
    let hash = snapshot.pool(pool).map(|pool| &pool.hash);
    let depends_on_words = hash
        .and_then(|hash| hash.said.as_ref())
        .is_some_and(|words| *words != HashedWords::ServerName || server_name.is_none());
    let is_without_port = client.ip().is_some() && client.port() == 0;
    let depends_on_port = is_without_port && hash.is_some_and(|hash| hash.with_port);
    RouteSaid { pool, is_routed, depends_on_hello, depends_on_words, depends_on_port }
}

fn choose(snapshot: &Snapshot, pool: &Arc<Pool>, question: &Question<'_>) -> ChoiceSaid {
    let passed_over = PassedOver::default();
    let hashes_name = pool.hash.said == Some(HashedWords::ServerName);
    let name = question.server_name.filter(|_| hashes_name);
    let mut tried = Vec::new();
    let chosen = loop {
        let asking = Asking {
            client: question.client,
            key: name.map(|name| name_key(name, pool.hash.seed)),
            now_us: question.now_us,
            tried: &tried,
            may_repeat: false,
            full: &[],
            generation: snapshot.generation,
            passed_over: &passed_over,
        };
        let chosen = Chooser::that_only_looks().choose(pool, &asking);
        match chosen {
            // The one failure that is known before.
            Some((backend, _)) if has_no_source(backend, question.client) => {
                tried.push(backend.id);
                if !may_retry(tried.len(), pool.terms.retries) {
                    break None;
                }
            }
            chosen => break chosen,
        }
    };
    let (backend, pick) = chosen.unzip();
    let mut skipped: Vec<_> = tried.iter().map(|id| (*id, Obstacle::Failed)).collect();
    let noted = passed_over.into_list().into_iter().map(|skip| (skip.backend, skip.why));
    skipped.extend(noted.filter(|(id, _)| !tried.contains(id)));
    // Choices by weight do not look at backends that have none.
    let weightless = pool.backends().filter(|backend| backend.weight == 0);
    let is_named = |id: BackendId| {
        backend.is_some_and(|chosen| chosen.id == id) || skipped.iter().any(|(one, _)| *one == id)
    };
    let weightless: Vec<_> = weightless.map(|one| one.id).filter(|id| !is_named(*id)).collect();
    skipped.extend(weightless.into_iter().map(|id| (id, Obstacle::NoWeight)));
    let skipped =
        skipped.into_iter().filter_map(|(id, why)| Some((snapshot.backend(id)?.clone(), why)));
    ChoiceSaid {
        is_certain: pick.is_some_and(|pick| match pick.by {
            By::Balance(algorithm) => algorithm.is_certain(),
            By::Sticky => true,
            By::Nothing => false,
        }),
        backend: backend.and_then(|chosen| snapshot.backend(chosen.id).cloned()),
        pick: pick.unwrap_or_default(),
        skipped: skipped.collect(),
        waiting: if pool.has_line() { pool.state.line.len() } else { 0 },
    }
}
