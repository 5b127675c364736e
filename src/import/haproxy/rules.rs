//! `tcp-request` rules of HAProxy, as access lists, limits and the wait for a TLS hello.

use ipnet::IpNet;

use crate::import::access::AccessRules;
use crate::import::amounts::{RateFit, set_rate};
use crate::import::draft::KeyLines;
use crate::import::networks::{difference, everything, intersection, shown};
use crate::import::notes::Notes;

use super::conditions::{AclTest, Acls, ClientCounter, CounterHome, Subject};
use super::quantities::haproxy_time;
use super::sections::ConfigLine;
use super::tables::{ClientMask, StickTable};

/// What the rules of a listener come to.
#[derive(Debug, Default)]
pub(super) struct RequestRules {
    pub(super) access: AccessRules,
    pub(super) limits: Vec<KeyLines>,
    /// How long HAProxy waits for first bytes.
    pub(super) inspect_delay: Option<std::time::Duration>,
    /// Whether clients without a TLS hello are refused.
    pub(super) is_only_tls: bool,
    /// Whether a rule has let clients with a hello in.
    accepts_hello: bool,
    tracked: Vec<TrackedSlot>,
}

/// What one slot (`sc0`) tracks, and of whom.
#[derive(Debug)]
struct TrackedSlot {
    line: ConfigLine,
    is_used: bool,
    number: u8,
    table: String,
    mask: ClientMask,
    clients: ClientScope,
}

/// Clients that a rule is about: of all or of some, those outside of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ClientScope {
    only: Option<Vec<IpNet>>,
    without: Vec<IpNet>,
}

impl ClientScope {
    /// The scope of tests about networks, all of which have to hold.
    fn of<'a>(tests: impl Iterator<Item = &'a AclTest>) -> Self {
        let mut scope = Self::default();
        for test in tests {
            let Subject::Networks(networks) = &test.subject else { continue };
            if test.is_negated {
                scope.without.extend_from_slice(networks);
                continue;
            }
            scope.only = Some(match scope.only.take() {
                Some(only) => intersection(&only, networks),
                None => networks.clone(),
            });
        }
        scope
    }

    fn networks(&self) -> Option<Vec<IpNet>> {
        let all = self.only.clone().unwrap_or_else(everything);
        difference(&all, &self.without)
    }
}

/// Where rules find what they name.
pub(super) struct RuleContext<'a> {
    pub(super) proxy: &'a str,
    pub(super) acls: &'a Acls,
    pub(super) tables: &'a [StickTable],
}

/// When a rule is asked, in the order in which HAProxy does.
const LAYERS: [&str; 3] = ["connection", "session", "content"];

/// Reads the rules of a proxy.
pub(super) fn request_rules(
    lines: &[ConfigLine],
    context: &RuleContext<'_>,
    notes: &mut Notes,
) -> RequestRules {
    let mut rules = RequestRules::default();
    for line in lines {
        match line.word(1) {
            "inspect-delay" => match haproxy_time(line.word(2)) {
                Some(time) => rules.inspect_delay = Some(time),
                None => notes.lost(line, "it is no time to wait"),
            },
            layer if LAYERS.contains(&layer) => {}
            other => notes.lost(line, format!("`tcp-request {other}` has no counterpart")),
        }
    }
    for layer in LAYERS {
        rules.access.next_layer();
        for line in lines.iter().filter(|line| line.word(1) == layer) {
            if rules.access.is_decided() {
                notes.lost(line, "no connection comes to this rule: an earlier one is for all");
            } else if let Err(why) = rules.rule(line, context, notes) {
                notes.lost(line, why);
            }
        }
    }
    for slot in rules.tracked.iter().filter(|slot| !slot.is_used) {
        notes.lost(&slot.line, "nothing that was carried over looks at what it counts");
    }
    rules
}

impl RequestRules {
    fn rule(
        &mut self,
        line: &ConfigLine,
        context: &RuleContext<'_>,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let action = line.word(2);
        let condition = line.words.iter().position(|word| word == "if" || word == "unless");
        let condition = condition.map_or(&[][..], |at| line.from(at));
        let terms = context.acls.alternatives(condition)?;
        if let Some(why) = terms.iter().flatten().find_map(|test| match &test.subject {
            Subject::Unknown(why) => Some(why),
            _ => None,
        }) {
            return Err(why.clone());
        }
        let terms: Vec<Vec<AclTest>> = terms.into_iter().filter_map(simplified).collect();
        if let Some(slot) = action.strip_prefix("track-sc") {
            return self.track(slot, line, &terms, context);
        }
        if !matches!(action, "accept" | "reject" | "silent-drop") {
            let action = action.split('(').next().unwrap_or_default();
            return Err(format!("`{action}` has no counterpart"));
        }
        if action == "silent-drop" {
            notes.differs(line, "these clients get a reset, and a client over a limit the tarpit");
        }
        terms.iter().try_for_each(|term| self.judge(line, term, context, notes))
    }

    fn track(
        &mut self,
        slot: &str,
        line: &ConfigLine,
        terms: &[Vec<AclTest>],
        context: &RuleContext<'_>,
    ) -> Result<(), String> {
        let number = slot.parse().map_err(|_| "it is no slot".to_owned())?;
        let mask = ClientMask::of(line.word(3))
            .ok_or("a limit is about the client's address, `src`, and nothing else")?;
        let table = match line.word(4) {
            "table" => line.word(5).to_owned(),
            _ => context.proxy.to_owned(),
        };
        let clients = match terms {
            [term] if term.iter().all(|test| matches!(test.subject, Subject::Networks(_))) => {
                ClientScope::of(term.iter())
            }
            _ => return Err("a limit is about networks, and nothing else".to_owned()),
        };
        let (line, is_used) = (line.clone(), false);
        self.tracked.push(TrackedSlot { line, is_used, number, table, mask, clients });
        Ok(())
    }

    /// Takes one alternative of a rule that accepts or rejects.
    fn judge(
        &mut self,
        line: &ConfigLine,
        term: &[AclTest],
        context: &RuleContext<'_>,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let is_accept = line.word(2) == "accept";
        let is_network = |test: &&AclTest| matches!(test.subject, Subject::Networks(_));
        let scope = ClientScope::of(term.iter().filter(is_network));
        let others: Vec<&AclTest> = term.iter().filter(|test| !is_network(test)).collect();
        match others.as_slice() {
            [] if !is_accept && self.accepts_hello && term.is_empty() => {
                self.is_only_tls = true;
                Ok(())
            }
            [] => self.decide(is_accept, &scope),
            [test] => match (&test.subject, test.is_negated, is_accept) {
                (Subject::Above { counter, of, allowed }, false, false) => {
                    let asked =
                        LimitAsked { line, counter: *counter, of, allowed: *allowed, scope };
                    self.limit(&asked, context, notes)
                }
                (Subject::Hello, false, true) if term.len() == 1 => {
                    self.accepts_hello = true;
                    Ok(())
                }
                (Subject::Hello, true, false) if term.len() == 1 => {
                    self.is_only_tls = true;
                    Ok(())
                }
                (Subject::Sni(_) | Subject::Alpn(_) | Subject::Hello, ..) => {
                    Err("what a client says chooses a pool, by a route, and refuses none"
                        .to_owned())
                }
                _ => Err("a limit refuses clients that are above it, and nothing else".to_owned()),
            },
            _ => Err("a rule with several such tests has no counterpart".to_owned()),
        }
    }

    fn decide(&mut self, is_accept: bool, scope: &ClientScope) -> Result<(), String> {
        let many = || "it takes too many networks to write it as `allow` and `deny`".to_owned();
        match (is_accept, &scope.only, scope.without.as_slice()) {
            (true, None, []) => self.access.accept_all(),
            (false, None, []) => self.access.reject_all(),
            (false, None, without) => self.access.reject_unless(without),
            (true, ..) => self.access.accept(&scope.networks().ok_or_else(many)?),
            (false, ..) => {
                let networks = scope.networks().ok_or_else(many)?;
                self.access.reject(&networks).map_err(|_| many())?;
            }
        }
        Ok(())
    }

    fn limit(
        &mut self,
        asked: &LimitAsked<'_>,
        context: &RuleContext<'_>,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let is_it = |slot: &&mut TrackedSlot| match asked.of {
            CounterHome::Slot(number) => slot.number == *number,
            CounterHome::Table(name) => slot.table == name.as_deref().unwrap_or(context.proxy),
        };
        let tracked = self.tracked.iter_mut().find(is_it);
        let tracked =
            tracked.ok_or("no rule before it that was carried over tracks `src` there")?;
        tracked.is_used = true;
        let scope = asked.scope.within(&tracked.clients);
        let (table, mask) = (tracked.table.clone(), tracked.mask);
        let stick = context.tables.iter().find(|other| other.owner == table);
        let stick = stick.ok_or_else(|| format!("there is no stick-table in {table}"))?;
        if !stick.is_v4 {
            return Err("a limit counts addresses: `type ip` or `type ipv6`".to_owned());
        }
        let mut keys = KeyLines::default();
        if let Some(only) = &scope.only {
            keys.set_list("clients", &only.iter().map(shown).collect::<Vec<_>>());
        } else if !stick.is_v6 {
            keys.set_list("clients", &["0.0.0.0/0"]);
        }
        let exempt = scope.without.iter().chain(self.access.accepted());
        let exempt: Vec<String> = exempt.map(shown).collect();
        if !exempt.is_empty() {
            keys.set_list("exempt", &exempt);
        }
        keys.set("key", mask.key());
        if let Some(entries) = stick.entries() {
            keys.set("table_size", entries);
        }
        if asked.line.word(2) == "silent-drop" {
            keys.set_text("action", "tarpit");
        }
        self.set_bound(asked, keys, stick, notes)
    }

    /// Adds the bound to a limit that is about the same clients and has none of this kind, or
    /// makes one.
    fn set_bound(
        &mut self,
        asked: &LimitAsked<'_>,
        about: KeyLines,
        stick: &StickTable,
        notes: &mut Notes,
    ) -> Result<(), String> {
        let mut bound = KeyLines::default();
        match asked.counter {
            ClientCounter::OpenConnections => {
                let most = asked.allowed.min(u64::from(u32::MAX));
                bound.set("max_concurrent", most);
            }
            ClientCounter::ConnectionRate => {
                let period = stick.period.ok_or("the table stores no conn_rate")?;
                let fit = set_rate(&mut bound, asked.allowed, period)
                    .ok_or("evenkeel has no such rate")?;
                let more = match fit {
                    RateFit::Same => "",
                    RateFit::Bucket => "; after a quiet time up to twice as many in one period",
                    RateFit::Rounded => {
                        "; after a quiet time up to twice as many in one period, and the rate is \
                         rounded down"
                    }
                };
                let reason = format!(
                    "HAProxy counts refused connections too; `rate` only those that were let \
                     in{more}"
                );
                notes.differs(asked.line, reason);
            }
        }
        let is_free = |limit: &&mut KeyLines| {
            let same = about.iter().all(|(key, value)| limit.get(key) == Some(value))
                && ["clients", "exempt", "action"]
                    .iter()
                    .all(|key| limit.get(key) == about.get(key));
            same && bound.iter().all(|(key, _)| limit.get(key).is_none())
        };
        match self.limits.iter_mut().find(is_free) {
            Some(limit) => bound.iter().for_each(|(key, value)| limit.set(key, value)),
            None => {
                about.iter().for_each(|(key, value)| bound.set(key, value));
                self.limits.push(bound);
            }
        }
        Ok(())
    }
}

/// A rule that rejects clients above a bound.
struct LimitAsked<'a> {
    line: &'a ConfigLine,
    counter: ClientCounter,
    of: &'a CounterHome,
    allowed: u64,
    scope: ClientScope,
}

impl ClientScope {
    /// Clients in both.
    fn within(&self, other: &Self) -> Self {
        let only = match (&self.only, &other.only) {
            (Some(left), Some(right)) => Some(intersection(left, right)),
            (left, right) => left.clone().or_else(|| right.clone()),
        };
        let mut without = self.without.clone();
        without.extend(other.without.iter().filter(|net| !self.without.contains(net)));
        Self { only, without }
    }
}

/// An alternative without tests that always hold; `None` when it never does.
fn simplified(term: Vec<AclTest>) -> Option<Vec<AclTest>> {
    let mut left = Vec::new();
    for test in term {
        match (&test.subject, test.is_negated) {
            (Subject::Always, false) | (Subject::Never, true) => {}
            (Subject::Always, true) | (Subject::Never, false) => return None,
            _ => left.push(test),
        }
    }
    Some(left)
}

/// Alternatives of a condition without tests that always hold, and without those that never do.
pub(super) fn possible(acls: &Acls, condition: &[String]) -> Result<Vec<Vec<AclTest>>, String> {
    Ok(acls.alternatives(condition)?.into_iter().filter_map(simplified).collect())
}
