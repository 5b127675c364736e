//! The decision that a client would get now, for people and programs: `evenkeel explain`,
//! `GET /v1/explain`.
//!
//! The data plane decides ([`crate::dataplane::Explanation`]); here its answer is put into words,
//! with what is known of the backends that were passed over.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::config::units::show_duration;
use crate::dataplane::{ChoiceSaid, Explanation, LimitSaid, Outcome, Question};
use crate::policy::admit::access::Access;
use crate::policy::admit::meter::LEFT_MAX;
use crate::policy::balance::BalanceAlgorithm;
use crate::policy::client::Client;
use crate::policy::terms::Word;
use crate::shared::{
    Address, AddressRange, Backend, Balance, By, Limit, Listener, Obstacle, Pool, RefuseReason,
    Snapshot,
};

use crate::control::tell::status::document::{BackendStatus, Status};
use crate::control::words::count;

/// The answer. Fields that do not apply are `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Explained {
    listener: String,
    client: String,
    /// `served`, `waits` or `refused`.
    outcome: &'static str,
    /// The label that the refusal would have in metrics.
    reason: Option<&'static str>,
    access: AccessDocument,
    /// In the order of the file.
    limits: Vec<LimitDocument>,
    route: RouteDocument,
    pick: Option<PickDocument>,
    /// All of it for people, one line a step.
    pub(crate) text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct AccessDocument {
    admitted: bool,
    /// The rule that decides: `deny 10.9.0.0/16`.
    rule: Option<String>,
    /// Where clients are refused that are not admitted: `kernel` or `workers`.
    refused_by: &'static str,
    /// Why workers refuse.
    refused_by_reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LimitDocument {
    name: String,
    mode: &'static str,
    /// Whether it is about the client; the rest does not apply otherwise.
    concerned: bool,
    exempt: bool,
    /// The limit that it is over: `limit`, `concurrent` or `listener_rate`.
    over: Option<&'static str>,
    retry_after_ms: Option<u64>,
    /// Connections that it may make at once.
    left: Option<u64>,
    /// Sessions it has, if they are bounded.
    sessions: Option<u64>,
    /// Where it is refused, from the second time on, once it is over its rate: `kernel` or
    /// `workers`.
    refused_by: &'static str,
    /// Why workers refuse.
    refused_by_reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RouteDocument {
    pool: String,
    routed: bool,
    /// What the client says first may lead elsewhere.
    depends_on_hello: bool,
    depends_on_words: bool,
    /// The client's port may lead to another backend, and the question has none.
    depends_on_port: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PickDocument {
    by: Option<&'static str>,
    slot: Option<u32>,
    backend: Option<String>,
    address: Option<String>,
    /// False: turns, chance or a race decide, and another may come.
    certain: bool,
    skipped: Vec<SkippedDocument>,
    /// Clients in the line before it.
    waiting: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SkippedDocument {
    backend: String,
    why: &'static str,
    reason: Option<String>,
}

/// A client as an operator writes it: an address, with a port or without, or `unix`.
pub(crate) fn parse_client(text: &str) -> Option<Client> {
    if text == "unix" {
        return Some(Client::Unix);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let without_port = |ip: IpAddr| SocketAddr::new(ip, 0);
    let address = text.parse().ok().or_else(|| bare.parse().ok().map(without_port));
    address.map(|address: SocketAddr| {
        SocketAddr::new(address.ip().to_canonical(), address.port()).into()
    })
}

/// Asks, and puts the answer into words; `status` is what is so at this moment.
pub(crate) fn explained(
    snapshot: &Snapshot,
    question: &Question<'_>,
    status: &Status,
) -> Explained {
    let answer = Explanation::of(snapshot, question);
    let words = ExplainedWords { snapshot, question, answer: &answer, status };
    let Question { listener, client, .. } = *question;
    let access_why_not = listener.access_refusing.why_not();
    let (outcome, reason) = match answer.outcome {
        Outcome::Served => ("served", None),
        Outcome::Waits => ("waits", None),
        Outcome::Refused(reason) => ("refused", Some(reason.label())),
    };
    Explained {
        listener: listener.name.clone(),
        client: shown(client),
        outcome,
        reason,
        access: AccessDocument {
            admitted: answer.ban.is_none() && answer.access.is_admitted(),
            rule: rule_of(&answer),
            refused_by: if access_why_not.is_none() { "kernel" } else { "workers" },
            refused_by_reason: access_why_not,
        },
        limits: limits_said(listener, &answer).map(|(it, said)| limit_document(it, said)).collect(),
        route: RouteDocument {
            pool: words.pool_name(),
            routed: answer.route.is_routed,
            depends_on_hello: answer.route.depends_on_hello,
            depends_on_words: answer.route.depends_on_words,
            depends_on_port: answer.route.depends_on_port,
        },
        pick: answer.choice.as_ref().map(|choice| words.pick_document(choice)),
        text: words.text(),
    }
}

/// Without the port where none is given.
fn shown(client: Client) -> String {
    match (client.ip(), client.port()) {
        (Some(ip), 0) => ip.to_string(),
        _ => client.to_string(),
    }
}

fn rule_of(answer: &Explanation) -> Option<String> {
    match (answer.ban, answer.access) {
        (Some(net), _) => Some(format!("ban {net}")),
        (None, Access::Open | Access::NotAllowed) => None,
        (None, Access::Allowed(net)) => Some(format!("allow {net}")),
        (None, Access::Denied(net)) => Some(format!("deny {net}")),
    }
}

/// The limits with what they say.
fn limits_said<'a>(
    listener: &'a Listener,
    answer: &'a Explanation,
) -> impl Iterator<Item = (&'a Limit, LimitSaid)> {
    listener.limits.iter().zip(answer.limits.iter().copied())
}

fn limit_document(limit: &Limit, said: LimitSaid) -> LimitDocument {
    let why_not = limit.refusing.why_not();
    let wait = said.over.and_then(|over| over.wait);
    LimitDocument {
        name: limit.name.to_string(),
        mode: if limit.observe { "observe" } else { "enforce" },
        concerned: !said.unconcerned,
        exempt: said.exempt,
        over: said.reason().map(RefuseReason::label),
        retry_after_ms: wait.map(|wait| wait.retry_after_us.div_ceil(1_000)),
        left: said.left,
        sessions: limit.rules.concurrent_max.filter(|_| !said.unconcerned).map(|_| said.sessions),
        refused_by: if why_not.is_none() { "kernel" } else { "workers" },
        refused_by_reason: why_not,
    }
}

/// Everything that the words are made of.
struct ExplainedWords<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question<'a>,
    answer: &'a Explanation,
    status: &'a Status,
}

impl ExplainedWords<'_> {
    fn pool(&self) -> Option<&Pool> {
        self.snapshot.pool(self.answer.route.pool).map(|pool| &**pool)
    }

    fn pool_name(&self) -> String {
        self.pool().map(|pool| pool.name.clone()).unwrap_or_default()
    }

    fn backend_status(&self, backend: &Backend) -> Option<&BackendStatus> {
        self.status.pools.get(&backend.pool_name)?.backends.get(&backend.name)
    }

    fn pick_document(&self, choice: &ChoiceSaid) -> PickDocument {
        let skipped = choice.skipped.iter().map(|(backend, why)| SkippedDocument {
            backend: backend.name.clone(),
            why: why.word(),
            reason: self.reason(backend, *why),
        });
        PickDocument {
            by: choice.pick.by.word(),
            slot: choice.pick.slot(),
            backend: choice.backend.as_ref().map(|backend| backend.name.clone()),
            address: choice.backend.as_ref().map(|backend| self.address(backend)),
            certain: choice.is_certain,
            skipped: skipped.collect(),
            waiting: choice.waiting,
        }
    }

    /// What `status` says of a backend that is passed over, where that tells more than the word.
    fn reason(&self, backend: &Backend, why: Obstacle) -> Option<String> {
        match why {
            Obstacle::Failed => Some(
                "no_source: its pool is transparent, and the client has no address of its family"
                    .to_owned(),
            ),
            Obstacle::Loaded | Obstacle::Starting | Obstacle::NoWeight => None,
            _ => self.backend_status(backend).map(|status| status.reason.clone()),
        }
    }

    fn text(&self) -> String {
        let Question { listener, client, .. } = self.question;
        let client = shown(*client);
        let mut out = format!("{client} at listener {}: {}\n\n", listener.name, self.outcome());
        let mut line = |step: &str, said: String| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(out, "{step:<9}{said}");
        };
        if let Some(said) = header_said(listener) {
            line("header", said);
        }
        line("access", self.access());
        if self.answer.ban.is_some() || !self.answer.access.is_admitted() {
            line("refusal", refused_by_words(listener.access_refusing.why_not(), ""));
        }
        for (limit, said) in limits_said(listener, self.answer) {
            let name =
                if listener.limits.len() > 1 { format!("{}: ", limit.name) } else { String::new() };
            line("limit", name.clone() + &limit_words(limit, said));
            if !said.unconcerned && !said.exempt && !limit.observe && limit.rules.rate.is_some() {
                let when = ", while it is over its rate";
                line("refusal", name + &refused_by_words(limit.refusing.why_not(), when));
            }
        }
        line("room", self.room());
        line("route", self.route());
        if let Some(choice) = &self.answer.choice {
            self.choice(choice, &mut line);
        }
        out
    }

    fn outcome(&self) -> String {
        let choice = self.answer.choice.as_ref();
        match self.answer.outcome {
            Outcome::Refused(reason) => format!("refused, {}", reason.words()),
            Outcome::Waits => format!("waits for a place in pool {}", self.pool_name()),
            Outcome::Served => match choice.and_then(|choice| choice.backend.as_ref()) {
                Some(backend) if choice.is_some_and(|choice| choice.is_certain) => {
                    format!("goes to {}/{}", backend.pool_name, backend.name)
                }
                _ => format!("goes to pool {}", self.pool_name()),
            },
        }
    }

    fn access(&self) -> String {
        if let Some(net) = self.answer.ban {
            return format!("not admitted: ban {net}");
        }
        match self.answer.access {
            Access::Open => "admitted: no rule is about it".to_owned(),
            Access::Allowed(net) => format!("admitted by allow {net}"),
            Access::Denied(net) => format!("not admitted: deny {net}"),
            Access::NotAllowed => "not admitted: no network of `allow` covers it".to_owned(),
        }
    }

    fn room(&self) -> String {
        let Question { listener, .. } = self.question;
        let Snapshot { sessions, sessions_max, .. } = self.snapshot;
        let mut said = format!("{} of {sessions_max} sessions", sessions.value());
        if listener.sessions_max != u64::MAX {
            let own = listener.state.active.value();
            let _ = write!(said, ", {own} of {} of this listener", listener.sessions_max);
        }
        said
    }

    fn route(&self) -> String {
        let route = self.answer.route;
        let name = self.pool_name();
        let mut said = match (route.is_routed, &self.question.listener.routing) {
            (true, _) => format!("pool {name}, by a route"),
            (false, Some(routing)) if !routing.routes.is_empty() => {
                format!("pool {name}, as no route matches")
            }
            (false, _) => format!("pool {name}"),
        };
        if route.depends_on_hello {
            said.push_str("; a name or protocol in its TLS hello may lead elsewhere (--sni NAME)");
        }
        if route.depends_on_words {
            said.push_str(
                "; its backend depends on what it says first, this is for one that says nothing",
            );
        }
        if route.depends_on_port {
            said.push_str("; its backend depends on the client's port (CLIENT_IP:PORT)");
        }
        said
    }

    fn choice(&self, choice: &ChoiceSaid, line: &mut impl FnMut(&str, String)) {
        if choice.waiting > 0 {
            let others = count(choice.waiting, "client");
            line("queue", format!("{others} waiting, each is served before this one"));
        }
        line("balance", self.balance(choice));
        for (backend, why) in &choice.skipped {
            let reason = self.reason(backend, *why).map(|reason| format!(": {reason}"));
            let reason = reason.unwrap_or_default();
            line("skipped", format!("{} ({}{reason})", backend.name, why.word()));
        }
        if let Some(backend) = &choice.backend {
            line("backend", self.backend(backend, choice.is_certain));
        }
    }

    fn balance(&self, choice: &ChoiceSaid) -> String {
        let Some(pool) = self.pool() else { return "the pool is gone".to_owned() };
        let panic = if pool.state.is_panicking() { ", verdicts ignored (panic)" } else { "" };
        let said = match choice.pick.by {
            By::Nothing => "no backend can serve".to_owned(),
            By::Balance(BalanceAlgorithm::Maglev) => {
                let slot = choice.pick.slot().unwrap_or_default();
                let tables = [&pool.primary, &pool.backup].map(|group| &group.balance);
                let of = tables.into_iter().find_map(|balance| match balance {
                    Balance::Maglev(table) => Some(table.slots().len()),
                    _ => None,
                });
                format!("maglev, slot {slot} of {}", of.unwrap_or_default())
            }
            By::Balance(algorithm) => format!("{}, {}", algorithm.word(), algorithm.explained()),
            By::Sticky => "sticky, where it was before".to_owned(),
        };
        said + panic
    }

    fn backend(&self, backend: &Backend, is_certain: bool) -> String {
        let may = if is_certain { "" } else { ", or another that can serve" };
        let kind = if backend.backup { ", a backup" } else { "" };
        let state = self.backend_status(backend).map_or("", |status| &status.state);
        let sessions = match backend.sessions_max {
            Some(max) => format!("{} of {}", backend.state.active(), count(max.into(), "session")),
            None => count(backend.state.active(), "session"),
        };
        let address = self.address(backend);
        format!("{} {address} ({state}{kind}, {sessions}){may}", backend.name)
    }

    /// Where a client of the listener is connected to a backend: one without a port has the ports
    /// of the listener.
    fn address(&self, backend: &Backend) -> String {
        let Address::Host(host) = backend.address else { return backend.address.to_string() };
        let ports = self.question.listener.addresses.iter().filter_map(AddressRange::ports);
        let mut shown = Vec::new();
        for ports in ports {
            let there = AddressRange::up_to(host.at(*ports.start()), *ports.end()).to_string();
            if !shown.contains(&there) {
                shown.push(there);
            }
        }
        shown.join(" ")
    }
}

/// What has to come before everything else.
fn header_said(listener: &Listener) -> Option<String> {
    let rule = listener.accept_proxy.as_ref()?;
    Some(if rule.is_direct_else {
        "peers of `accept_proxy` name their client by a PROXY header; this is for a client so \
         named, or one that connects directly"
            .to_owned()
    } else {
        "only for a client that a peer of `accept_proxy` names by a PROXY header; others are \
         refused"
            .to_owned()
    })
}

fn limit_words(limit: &Limit, said: LimitSaid) -> String {
    if said.exempt {
        return "exempt".to_owned();
    }
    if said.unconcerned {
        return "not about this client".to_owned();
    }
    let mut parts = Vec::new();
    if let Some((refused, reason)) = said.over.zip(said.reason()) {
        let observed = if limit.observe { " (observed only)" } else { "" };
        parts.push(format!("{}{observed}", reason.words()));
        if let Some(wait) = refused.wait {
            let wait = Duration::from_millis(wait.retry_after_us.div_ceil(1_000));
            parts.push(format!("one more in {}", show_duration(wait)));
        }
    }
    if let Some((left, meter)) = said.left.zip(limit.rules.rate) {
        let more = if left == LEFT_MAX { " or more" } else { "" };
        parts.push(format!("{left}{more} of {} connections left", meter.budget()));
    }
    if let Some(max) = limit.rules.concurrent_max {
        parts.push(format!("{} of {}", said.sessions, count(max.into(), "session")));
    }
    if parts.is_empty() {
        parts.push("within the listener's rate".to_owned());
    }
    parts.join(", ")
}

/// Who refuses a client; `when` the kernel does.
fn refused_by_words(why_not: Option<String>, when: &str) -> String {
    match why_not {
        None => format!("by the kernel{when}"),
        Some(why) => format!("by a worker: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, an operator cannot ask about a client as the log shows it.
    #[test]
    fn clients_are_written_as_the_log_shows_them() {
        let parsed = |text: &str| parse_client(text).map(shown);
        for text in ["192.0.2.1", "192.0.2.1:4711", "2001:db8::1", "[2001:db8::1]:70", "unix"] {
            assert_eq!(parsed(text).as_deref(), Some(text));
        }
        assert_eq!(parsed("[2001:db8::1]").as_deref(), Some("2001:db8::1"));
        assert_eq!(parsed("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        for text in ["", "here", "192.0.2", "192.0.2.1:99999", "10.0.0.0/8"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
