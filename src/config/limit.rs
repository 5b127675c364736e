//! `[listener.NAME.limit]`, once or several times: admission per client.

use std::time::Duration;

use ipnet::IpNet;

use crate::policy::balance::hash::Prefix;
use crate::policy::terms::{KernelRefusal, LimitAction, Word};

use super::bounds::{CLIENTS_MAX, CLIENTS_MIN, U32_MAX};
use super::companions::report_idle;
use super::entries::Entries;
use super::file::{Field, Section, Value, shown};
use super::key::{Companion, IfIdle, Key, KeyTable, Shape, Values, words};
use super::name::{NAME_BYTES_MAX, check_name};
use super::network;
use super::prefix::{self, LIMIT_KEY, prefix};
use super::report::{FilePlace, Finding, Report};
use super::scalar;
use super::units::{EventRate, show_duration, show_rate};

/// Time a spent budget may take to come back: what the limiter's clock can hold.
const HORIZON: Duration = Duration::from_secs(30 * 86_400);

/// Most limits of one listener.
const LIMITS_MAX: usize = 16;
/// What the only limit of a listener is called unless it says otherwise.
const DEFAULT_NAME: &str = "default";

/// Most that is counted in one window: what the limiter's word has room for.
const WINDOW_COUNT_MAX: u64 = 100_000;

/// Only a token bucket has a burst, and that of its rate.
const WITH_TOKEN_BUCKET: &[Companion] = &[
    Companion::new("algorithm", Values::Among(&["token-bucket"]), IfIdle::Refused),
    Companion::new("rate", Values::Any, IfIdle::Refused),
];

/// Keys of `[listener.NAME.limit]`.
pub(super) static LIMIT: KeyTable = KeyTable {
    name: "Limit",
    title: "[listener.NAME.limit]",
    sample: "limit = { rate = \"100/s\" }",
    keys: &[
        Key::new("name", Shape::TextOf("name", 1, NAME_BYTES_MAX))
            .default(DEFAULT_NAME)
            .means("What log, metrics and `status` call it; required where there are several."),
        Key::new("clients", Shape::List("networks"))
            .or_else("all")
            .means("Clients that it is about."),
        Key::new("algorithm", Shape::Word(words::<LimitAlgorithm>))
            .default("token-bucket")
            .means("How `rate` and `listener_rate` are measured."),
        Key::new("rate", Shape::Rate)
            .or_else("no bound")
            .note("; in windows up to 100,000 in each period")
            .means("Connections per time and client."),
        Key::new("burst", Shape::Count(1, U32_MAX))
            .or_else("the number of `rate`")
            .note("; the whole burst must be back within 30 days")
            .beside(WITH_TOKEN_BUCKET)
            .means("`token-bucket` only: connections a quiet client may make at once."),
        Key::new("max_concurrent", Shape::Count(1, U32_MAX))
            .or_else("no bound")
            .means("Open sessions per client."),
        Key::new("key", Shape::Table(&LIMIT_KEY))
            .or_else("see below")
            .means("What counts as one client."),
        Key::new("action", Shape::Word(words::<LimitAction>))
            .or_else(
                "`\"reset\"`; `\"reply\"` where `protocol` is `\"http\"` or `refusal` has `bytes`",
            )
            .means(
                "What a client over its limit gets: RST; FIN; an HTTP answer or the `bytes` of \
                    `refusal`, without either the same as `\"close\"`; silence and then RST.",
            ),
        Key::new("mode", Shape::Word(words::<LimitMode>)).default("enforce").means(
            "`\"observe\"`: count what would be refused \
                    (`evenkeel_limit_decisions_total{decision=\"would_refuse\"}`) and let it \
                    through.",
        ),
        Key::new("exempt", Shape::List("networks"))
            .default("[]")
            .means("Never limited, never counted, by `listener_rate` neither."),
        Key::new("table_size", Shape::Count(CLIENTS_MIN, CLIENTS_MAX))
            .default("65536")
            .means("Clients whose rate is remembered, 8 bytes each, rounded up to a power of two."),
        Key::new("listener_rate", Shape::Rate)
            .or_else("no bound")
            .note("; in windows up to 100,000 in each period")
            .means("Connections per time of all clients together, exact over all workers."),
        Key::new("kernel_refusal", Shape::Word(words::<KernelRefusal>)).default("auto").means(
            "Whether the kernel refuses clients that are over their `rate`, see \
                    [below](#refusals-in-the-kernel): where it can, never, or else the \
                    configuration is refused.",
        ),
    ],
    also: &[],
};
/// `[listener.NAME.limit]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitConfig {
    /// Its name, unique in its listener.
    pub name: String,
    /// Networks of the clients that it is about; empty is all.
    pub clients: Vec<IpNet>,
    /// How rates are measured.
    pub algorithm: LimitAlgorithm,
    /// Connections per time and client.
    pub rate: Option<EventRate>,
    /// Connections a quiet client may make at once; of a token bucket.
    pub burst: u32,
    /// Open sessions per client.
    pub max_concurrent: Option<u32>,
    /// Prefix lengths that count as one client.
    pub key: Prefix,
    /// What a client over its limit gets.
    pub action: LimitAction,
    /// Count and log only, let through.
    pub observe: bool,
    /// Networks that are never limited.
    pub exempt: Vec<IpNet>,
    /// Clients in the table (fixed memory, 8 bytes each).
    pub table_size: u32,
    /// Connections per time of all clients together.
    pub listener_rate: Option<EventRate>,
    /// Whether the kernel refuses clients over their rate.
    pub kernel_refusal: KernelRefusal,
}

/// How the rates of a limit are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAlgorithm {
    /// A burst at once, then evenly.
    TokenBucket,
    /// About as many as the rate says in any period.
    SlidingWindow,
    /// So many in a period that begins with the first.
    FixedWindow,
}

impl Word for LimitAlgorithm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("token-bucket", Self::TokenBucket),
        ("sliding-window", Self::SlidingWindow),
        ("fixed-window", Self::FixedWindow),
    ];
}

/// `mode` of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitMode {
    /// Clients over it are turned away.
    Enforce,
    /// They are counted and let through.
    Observe,
}

impl Word for LimitMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

/// Reads the limits of a listener. `is_told`: clients can be told of a refusal, and are unless the
/// file says otherwise.
pub(super) fn limits(
    listener: &Section<'_>,
    is_told: bool,
    report: &mut Report<'_>,
) -> Vec<LimitConfig> {
    let sections = listener.open_each("limit", report);
    if let Some(last) = sections.get(LIMITS_MAX) {
        let finding = Finding::new("this listener has too many limits")
            .expected(format!("at most {LIMITS_MAX}: each is asked for every connection"));
        report.error(&last.header(), finding);
    }
    let limits: Vec<LimitConfig> =
        sections.iter().map(|section| limit(section, is_told, report)).collect();
    for (index, (limit, section)) in limits.iter().zip(&sections).enumerate() {
        let place = name_place(section);
        let is_taken = limits.iter().take(index).any(|earlier| earlier.name == limit.name);
        if is_taken && !report.has_error_at(&place) {
            report.error(&place, same_name(&limit.name, section));
        }
    }
    limits
}

fn same_name(name: &str, section: &Section<'_>) -> Finding {
    let finding = Finding::new(format!("two limits of this listener are called `{}`", shown(name)));
    match section.get("name") {
        Some(_) => finding.expected("a name of its own for each"),
        None => finding.expected("a `name` for each").hint("add `name = \"per-network\"`"),
    }
}

/// Where the name stands, or the limit that has none.
fn name_place(section: &Section<'_>) -> FilePlace {
    section.get("name").map_or_else(|| section.header(), |value| value.place)
}

fn limit(section: &Section<'_>, is_told: bool, report: &mut Report<'_>) -> LimitConfig {
    let name = section.read("name", report, name);
    let clients = network::list(section, "clients", report);
    refuse_no_clients(section, report);
    let algorithm = section.word_or_default("algorithm", report);
    let rate = section.rate("rate", report);
    let listener_rate = section.rate("listener_rate", report);
    let burst = section.count32("burst", report);
    let max_concurrent = section.count32("max_concurrent", report);
    if !section.partial {
        require_something(section, report);
        report_idle(section, report);
        if algorithm == LimitAlgorithm::TokenBucket {
            check_burst(&rate, &burst, report);
        }
        for rate in [&rate, &listener_rate] {
            check_window(algorithm, rate, report);
        }
    }
    let rate = rate.value();
    let natural = rate.map_or(1, |rate| u32::try_from(rate.count).unwrap_or(u32::MAX));
    LimitConfig {
        name: name.or(DEFAULT_NAME.to_owned()),
        clients: clients.or(Vec::new()),
        algorithm,
        rate,
        burst: burst.or(natural),
        max_concurrent: max_concurrent.value(),
        key: prefix(section, "key", report),
        action: section.word("action", report).or(default_action(is_told)),
        observe: section.word_or_default::<LimitMode>("mode", report) == LimitMode::Observe,
        exempt: network::list(section, "exempt", report).or(Vec::new()),
        table_size: section.count32_or_default("table_size", report),
        listener_rate: listener_rate.value(),
        kernel_refusal: section.word_or_default("kernel_refusal", report),
    }
}

fn name(value: &Value<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = scalar::string(value, "a name such as \"per-network\"", report)?;
    check_name(&text, &value.place, report).then_some(text)
}

/// An empty list is no way to say that a limit is about all clients, or about none.
fn refuse_no_clients(section: &Section<'_>, report: &mut Report<'_>) {
    let Some(value) = section.get("clients") else { return };
    if value.elements().is_some_and(|elements| elements.is_empty()) {
        let finding = Finding::new("`clients` is empty")
            .expected("at least one network")
            .hint("leave the key out to limit all clients");
        report.error(&value.place, finding);
    }
}

fn default_action(is_told: bool) -> LimitAction {
    if is_told { LimitAction::Reply } else { LimitAction::Reset }
}

/// A limit that limits nothing is a mistake.
fn require_something(section: &Section<'_>, report: &mut Report<'_>) {
    let limits = ["rate", "max_concurrent", "listener_rate"];
    if limits.iter().all(|name| section.get(name).is_none()) {
        let finding = Finding::new("this limit limits nothing")
            .expected("`rate`, `max_concurrent` or `listener_rate`")
            .hint("add `rate = \"100/s\"`");
        report.error(&section.header(), finding);
    }
}

/// Checks that a burst comes back in time.
fn check_burst(rate: &Field<EventRate>, burst: &Field<u32>, report: &mut Report<'_>) {
    let Field::Given(rate, place) = rate else { return };
    let natural = u32::try_from(rate.count).unwrap_or(u32::MAX);
    let (burst, place) = match burst {
        Field::Given(burst, place) => (*burst, place),
        Field::Absent => (natural, place),
        Field::Bad => return,
    };
    check_horizon(*rate, burst, place, report);
}

/// Checks that a window can count as far as its rate.
fn check_window(algorithm: LimitAlgorithm, rate: &Field<EventRate>, report: &mut Report<'_>) {
    let Field::Given(rate, place) = rate else { return };
    if algorithm == LimitAlgorithm::TokenBucket || rate.count <= WINDOW_COUNT_MAX {
        return;
    }
    let finding = Finding::new(format!("a window counts no further than {WINDOW_COUNT_MAX}"))
        .expected(format!("at most {WINDOW_COUNT_MAX} in each period"))
        .hint("use a shorter period, or `algorithm = \"token-bucket\"`");
    report.error(place, finding);
}

/// Checks that a spent burst comes back before the limiter forgets.
fn check_horizon(rate: EventRate, burst: u32, place: &FilePlace, report: &mut Report<'_>) {
    let refill = u128::from(burst) * rate.period.as_nanos() / u128::from(rate.count.max(1));
    if refill <= HORIZON.as_nanos() {
        return;
    }
    let most = HORIZON.as_nanos() * u128::from(rate.count) / rate.period.as_nanos().max(1);
    let (rate, horizon) = (show_rate(rate), show_duration(HORIZON));
    let finding = Finding::new(format!("a burst of {burst} takes too long to come back at {rate}"))
        .expected(format!("at most {most}: the whole burst is back within {horizon}"));
    report.error(place, finding);
}

impl LimitConfig {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        let has_burst = self.algorithm == LimitAlgorithm::TokenBucket && self.rate.is_some();
        let mode = if self.observe { LimitMode::Observe } else { LimitMode::Enforce };
        Entries::default()
            .text("name", &self.name)
            .given((!self.clients.is_empty()).then_some(&self.clients), |out, clients| {
                out.list("clients", clients)
            })
            .word("algorithm", self.algorithm)
            .given(self.rate, |out, rate| out.text("rate", show_rate(rate)))
            .given(has_burst.then_some(self.burst), |out, burst| out.plain("burst", burst))
            .given(self.max_concurrent, |out, most| out.plain("max_concurrent", most))
            .table("key", &prefix::entries(self.key))
            .word("action", self.action)
            .word("mode", mode)
            .list("exempt", &self.exempt)
            .plain("table_size", self.table_size)
            .given(self.listener_rate, |out, rate| out.text("listener_rate", show_rate(rate)))
            .word("kernel_refusal", self.kernel_refusal)
    }
}
