//! `[pool.NAME]`: interchangeable servers, and how one is chosen and connected.

use std::net::IpAddr;

use crate::policy::balance::BalanceAlgorithm;
use crate::policy::balance::hash::Prefix;
use crate::policy::balance::maglev::TABLE_SIZE_MAX;
use crate::policy::balance::source::SOURCES_MAX;
use crate::policy::first_bytes::proxy_header::tlv::KINDS_MAX;
use crate::policy::first_bytes::proxy_header::{ProxyVersion, V2_BYTES_MAX, WRITTEN_BYTES_MAX};
use crate::policy::health::probe_step::ProbeStep;
use crate::policy::session_terms::PoolTerms;
use crate::policy::terms::Address;

use super::backend::{BACKEND, BACKENDS_MAX, BackendConfig, Member, backends};
use super::bounds::{LONGEST, SHORTEST, ZERO};
use super::companions::report_idle;
use super::entries::Entries;
use super::file::{Section, bare_or_quoted};
use super::hash::{HashKey, HashKeyForm, hash_key, load_factor, table_size};
use super::health::{HEALTH, Health, Probe, health};
use super::key::{Argument, Companion, IfIdle, Key, KeyTable, Shape, Values, words};
use super::leave::{LeaveConfig, LeaveForm, leave};
use super::outlier::{self, OUTLIER, outlier};
use super::prefix::{self, HASH_PREFIX, prefix};
use super::queue::{self, QUEUE, queue};
use super::report::Report;
use super::size;
use super::source::{compare_source, source};
use super::sticky::{STICKY, StickyConfig, sticky};
use super::tlvs;
use super::units::{show_size, show_thousandths};

/// What of a client is hashed: for the table of maglev, or to know the client again.
const WITH_HASH: &[Companion] =
    &[Companion::new("balance", MAGLEV, IfIdle::Warned).or_beside("sticky")];
const WITH_MAGLEV_TABLE: &[Companion] = &[Companion::new("balance", MAGLEV, IfIdle::Warned)];
const WITH_MAGLEV: &[Companion] = &[Companion::new("balance", MAGLEV, IfIdle::Refused)];
const WITH_HEALTH: &[Companion] = &[Companion::new("health", Values::Any, IfIdle::Warned)];
const NOT_WITH_FIRST: &[Companion] =
    &[Companion::new("balance", Values::Except(&["first"]), IfIdle::Refused)];

const MAGLEV: Values = Values::Among(&["maglev"]);

const _: () = assert!(WRITTEN_BYTES_MAX == 107 && V2_BYTES_MAX == 4_096, "see `send_proxy_max`");

/// Keys of `[pool.NAME]`.
pub(super) static POOL: KeyTable = KeyTable {
    name: "Pool",
    title: "[pool.NAME]",
    sample: "",
    keys: &[
        Key::new("balance", Shape::Word(words::<BalanceAlgorithm>))
            .default("maglev")
            .means("How a backend is chosen."),
        Key::new("hash_key", Shape::WordWith(words::<HashKeyForm>, Argument::Name))
            .default("client-ip")
            .beside(WITH_HASH)
            .means("What `maglev` hashes, and by what `sticky` knows a client."),
        Key::new("hash_prefix", Shape::Table(&HASH_PREFIX))
            .or_else("see below")
            .beside(WITH_HASH)
            .means("How much of the address is hashed, with `maglev` and for `sticky`."),
        Key::new("table_size", Shape::Count(2, TABLE_SIZE_MAX as u64))
            .default("65537")
            .note("; a prime above the number of backends")
            .beside(WITH_MAGLEV_TABLE)
            .means("Slots of the `maglev` table, 2 bytes each."),
        Key::new("load_factor", Shape::Factor(1_000, 100_000))
            .or_else("no bound")
            .beside(WITH_MAGLEV)
            .means(
                "`maglev` only: pass over a backend that has more than this times its share, by \
                    weight, of the sessions of all that could serve, rounded up.",
            ),
        Key::new("sticky", Shape::TableOrFalse(&STICKY))
            .or_else("nothing is remembered")
            .means("Send a client where it was sent before, see [below](#sticky-of-poolname)."),
        Key::new("backends", Shape::StringsOrTables(&BACKEND, BACKENDS_MAX))
            .note("; each name once")
            .reload("new ones serve at once; sessions of gone ones go on")
            .means("Addresses, or tables as below."),
        Key::new("connect_timeout", Shape::Duration(SHORTEST, LONGEST))
            .default("3s")
            .reload("now")
            .means("How long one attempt to connect may take."),
        Key::new("retries", Shape::Count(0, 100)).default("2").reload("now").means(
            "Further attempts after a failed one, each on another backend while there is \
                    one, then again on those tried.",
        ),
        Key::new("retry_delay", Shape::Duration(ZERO, LONGEST)).default("1s").reload("now").means(
            "How long after an attempt that failed the same backend is not tried again for \
                    the client, at most `connect_timeout`. Another backend is tried at once.",
        ),
        Key::new("queue", Shape::TableOrFalse(&QUEUE))
            .or_else("no client waits")
            .reload("new; a longer or shorter `timeout` now")
            .means(
                "What a client does while every backend is full, see \
                    [below](#queue-of-poolname).",
            ),
        Key::new("send_proxy", Shape::Word(words::<ProxyVersion>))
            .or_else("none")
            .reload("new; the next probe")
            .means(
                "Begin each connection to a backend with a PROXY protocol header that names the \
                    client and where it connected to.",
            ),
        Key::new("pass_tlvs", Shape::Numbers(KINDS_MAX, 1, 255))
            .default("[2]")
            .note("; not 0x03 or 0x04; with `send_proxy = \"v2\"`")
            .means("TLVs of a client's own PROXY header that backends get, too, in this order."),
        Key::new("send_proxy_max", Shape::Size(107, 4_096))
            .default("107B")
            .note("; with `send_proxy = \"v2\"`")
            .means("Longest header; a TLV for which there is no room is left out."),
        Key::new("source", Shape::ListUpTo("list", SOURCES_MAX))
            .or_else("the kernel chooses")
            .note(
                " IP addresses of this host, without ports; not with `transparent` or \
                   Unix sockets",
            )
            .reload("new; the next probe")
            .means(
                "Connect to backends from these addresses, in turn, see \
                    [below](#source-and-transparent).",
            ),
        Key::new("transparent", Shape::Boolean)
            .default("false")
            .note("not with `source` or Unix sockets")
            .means(
                "Connect to backends from the client's own address, so that they see it without \
                    a header.",
            ),
        Key::new("slow_start", Shape::Duration(ZERO, LONGEST))
            .default("0s")
            .reload("now")
            .beside(NOT_WITH_FIRST)
            .means(
                "The share of a backend that comes up, or that a reload adds, grows along a line \
                    over this time, in 256 steps from nearly nothing.",
            ),
        Key::new("panic_threshold", Shape::PercentOr("never")).default("0%").reload("now").means(
            "When at most this share of the pool's backends is healthy, those that probes or \
                    sessions took out are tried again.",
        ),
        Key::new("on_down", Shape::WordWith(words::<LeaveForm>, Argument::Rate))
            .default("keep")
            .note(" (any rate)")
            .reload("now")
            .beside(WITH_HEALTH)
            .means("What happens to sessions of a backend that its probes (`health`) take down."),
        Key::new("on_up", Shape::WordWith(words::<LeaveForm>, Argument::Rate))
            .default("keep")
            .note(" (any rate)")
            .reload("now")
            .means(
                "What happens to sessions on backups when a primary, a backend that is no backup, \
                    can serve again.",
            ),
        Key::new("health", Shape::TableOrFalse(&HEALTH))
            .or_else("no probes")
            .reload("now")
            .means("Active probes, see [below](#poolnamehealth)."),
        Key::new("outlier", Shape::TableOrFalse(&OUTLIER))
            .or_else("no ejections")
            .reload("now")
            .means("Ejection by what sessions meet, see [below](#poolnameoutlier)."),
    ],
    also: &[],
};
/// `[pool.NAME]`: interchangeable servers and how one is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Its name in the file.
    pub name: String,
    /// How a backend is chosen.
    pub balance: BalanceAlgorithm,
    /// What is hashed by `maglev`.
    pub hash_key: HashKey,
    /// Prefix lengths kept before hashing.
    pub hash_prefix: Prefix,
    /// Slots of the Maglev table; prime, more than the number of backends, at most 5,000,011.
    pub table_size: u32,
    /// A client is sent where it was sent before, for a while; `None`: the choice is made anew.
    pub sticky: Option<StickyConfig>,
    /// May be empty: then its clients are refused. Names are unique within the pool.
    pub backends: Vec<BackendConfig>,
    /// What holds for each session that goes there.
    pub terms: PoolTerms,
    /// Addresses to connect from, used in turn, no two the same; empty: the kernel chooses.
    pub source: Vec<IpAddr>,
    /// Connect from the client's own address. Not together with `source`.
    pub transparent: bool,
    /// What happens to sessions of a backend that goes down.
    pub on_down: LeaveConfig,
    /// What happens to sessions on backups when a primary can serve again.
    pub on_up: LeaveConfig,
    /// Active probes; `None` when the table is absent.
    pub health: Option<Health>,
}

/// Reads one pool.
pub(super) fn pool(
    name: &str,
    section: &Section<'_>,
    report: &mut Report<'_>,
) -> (PoolConfig, Vec<Member>) {
    let members = backends(name, section, report);
    let terms = terms(section, report);
    let source = source(section, report);
    let mut health = health(section, unix_backend(&members), report);
    if let Some(health) = &mut health {
        health.send_proxy = terms.send_proxy;
        if health.source.is_empty() {
            health.source.clone_from(&source);
        }
    }
    let mut pool = PoolConfig {
        name: name.to_owned(),
        balance: section.word_or_default("balance", report),
        hash_key: hash_key(section, report),
        hash_prefix: prefix(section, "hash_prefix", report),
        table_size: table_size(section, members.len(), report),
        sticky: sticky(section, report),
        backends: members.iter().map(|member| member.backend.clone()).collect(),
        terms,
        source,
        transparent: section.boolean_or_default("transparent", report),
        on_down: section.read_or_default("on_down", report, leave),
        on_up: section.read_or_default("on_up", report, leave),
        health,
    };
    tlvs::compare_version(section, pool.terms.send_proxy, report);
    pool.forget_idle();
    compare_source(section, &pool.source, pool.transparent, &members, report);
    report_idle(section, report);
    (pool, members)
}

fn terms(section: &Section<'_>, report: &mut Report<'_>) -> PoolTerms {
    let slow_start = section.duration_or_default("slow_start", report);
    PoolTerms {
        connect_timeout: section.duration_or_default("connect_timeout", report),
        retries: section.count32_or_default("retries", report),
        retry_delay: section.duration_or_default("retry_delay", report),
        send_proxy: section.word("send_proxy", report).value(),
        pass_tlvs: tlvs::pass_tlvs(section, report),
        send_proxy_max: size::bytes_or_default(section, "send_proxy_max", report),
        queue: queue(section, report),
        load_factor: load_factor(section, report),
        slow_start: Some(slow_start).filter(|time| !time.is_zero()),
        panic_threshold: section.panic_threshold("panic_threshold", report),
        outlier: outlier(section, report),
    }
}

/// The first address that has no port.
fn unix_backend(members: &[Member]) -> Option<&Address> {
    let mut addresses = members.iter().map(|member| &member.backend.address);
    addresses.find(|address| matches!(address, Address::Unix(_)))
}

impl PoolConfig {
    /// What of a client is hashed, for the table of `maglev` or to know the client again; `None`
    /// where nothing is.
    #[must_use]
    pub fn hashed(&self) -> Option<&HashKey> {
        let is_hashed = self.balance == BalanceAlgorithm::Maglev || self.sticky.is_some();
        is_hashed.then_some(&self.hash_key)
    }

    /// Takes what counts for nothing back to its default, so that two pools are equal that do the
    /// same.
    fn forget_idle(&mut self) {
        let mut nothing = Report::new("", String::new());
        let absent = Section::absent(&POOL);
        if self.hashed().is_none() {
            self.hash_key = hash_key(&absent, &mut nothing);
            self.hash_prefix = prefix(&absent, "hash_prefix", &mut nothing);
        }
        if self.balance != BalanceAlgorithm::Maglev {
            self.table_size = table_size(&absent, 0, &mut nothing);
        }
    }

    /// Whether its servers speak first, by what its probes wait for.
    pub(super) fn speaks_first(&self) -> bool {
        let Some(health) = self.health.as_ref().filter(|health| health.tls.is_none()) else {
            return false;
        };
        let Probe::SendExpect { steps } = &health.probe else { return false };
        let says_nothing = |step: &&ProbeStep| matches!(step, ProbeStep::Send(it) if it.is_empty());
        let first = steps.iter().find(|step| !says_nothing(step));
        first.is_some_and(|step| step.expected().is_some())
    }

    /// Its tables as `evenkeel config` shows them.
    pub(super) fn shown(&self) -> String {
        let name = bare_or_quoted(&self.name);
        let mut out = self.entries().below(&format!("[pool.{name}]"));
        if let Some(health) = &self.health {
            out += &health.entries().below(&format!("[pool.{name}.health]"));
        }
        if let Some(rules) = self.terms.outlier {
            out += &outlier::entries(rules).below(&format!("[pool.{name}.outlier]"));
        }
        out
    }

    fn entries(&self) -> Entries {
        let PoolTerms { connect_timeout, retries, retry_delay, send_proxy, queue, .. } = self.terms;
        let PoolTerms { load_factor, slow_start, panic_threshold, .. } = self.terms;
        let line = |backend: &BackendConfig| format!("  {},\n", backend.entries().in_line());
        let backends: String = self.backends.iter().map(line).collect();
        let has_tlvs = send_proxy == Some(ProxyVersion::V2);
        let tlvs_shown = has_tlvs.then_some(self.terms);
        let source = (!self.source.is_empty()).then_some(&self.source);
        let is_maglev = self.balance == BalanceAlgorithm::Maglev;
        let table_size = is_maglev.then_some(self.table_size);
        Entries::default()
            .word("balance", self.balance)
            .given(self.hashed(), |out, key| {
                let prefix = prefix::entries(self.hash_prefix);
                out.text("hash_key", key).table("hash_prefix", &prefix)
            })
            .given(table_size, |out, size| out.plain("table_size", size))
            .given(load_factor, |out, factor| out.plain("load_factor", show_thousandths(factor)))
            .given(self.sticky, |out, sticky| out.table("sticky", &sticky.entries()))
            .plain("backends", format!("[\n{backends}]"))
            .duration("connect_timeout", connect_timeout)
            .plain("retries", retries)
            .duration("retry_delay", retry_delay)
            .given(send_proxy, |out, version| out.word("send_proxy", version))
            .given(tlvs_shown, |out, terms| {
                out.plain("pass_tlvs", tlvs::shown(terms.pass_tlvs))
                    .text("send_proxy_max", show_size(terms.send_proxy_max))
            })
            .given(source, |out, source| out.list("source", source))
            .plain("transparent", self.transparent)
            .given(queue, |out, queue| out.table("queue", &queue::entries(queue)))
            .given(slow_start, |out, time| out.duration("slow_start", time))
            .text("panic_threshold", panic_threshold)
            .text("on_down", self.on_down)
            .text("on_up", self.on_up)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    /// If it fails, `check` says of a `hash_key` that it counts where nothing is hashed, or the
    /// other way round.
    #[test]
    fn what_is_hashed_is_what_the_row_says() {
        let [companion] = POOL.find("hash_key").unwrap().companions else {
            panic!("one companion")
        };
        for word in words::<BalanceAlgorithm>() {
            for sticky in ["", "sticky = {}"] {
                let text = format!(
                    "[listener.a]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[pool.p]\n\
                     backends = [\"127.0.0.1:2\"]\nbalance = \"{word}\"\n{sticky}\n"
                );
                let config = parse(&text, Path::new("a.toml")).config.unwrap();
                let is_beside = companion.or_beside == Some("sticky") && !sticky.is_empty();
                let counts = companion.admits(word) || is_beside;
                assert_eq!(config.pools[0].hashed().is_some(), counts, "{word} {sticky}");
            }
        }
    }
}
