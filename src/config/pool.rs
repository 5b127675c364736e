//! `[pool.NAME]` and its `backends`: from the table to a [`PoolConfig`].

use std::collections::HashMap;

use super::Address;
use super::address::{Purpose, address, reaches};
use super::balance::{load_factor, on_down, queue, sticky};
use super::companions::refuse_idle;
use crate::policy::balance::maglev::{TABLE_SIZE_MAX, is_prime};

use super::bind::Bind;
use super::file::{Section, Value, shown};
use super::health::health;
use super::keys::KeyTable;
use super::limit::prefix;
use super::member::Member;
use super::outlier::outlier;
use super::report::{FilePlace, Finding, Report};
use super::route::hash_key;
use super::scalar;
use super::source::{compare_source, source};
use super::unix;
use super::{Admin, BackendConfig, OnDownConfig, PoolConfig};

/// Longest name of a pool, listener or backend.
const NAME_LENGTH_MAX: usize = 128;

/// Reads one pool.
pub(super) fn pool(
    name: &str,
    section: &Section<'_>,
    report: &mut Report<'_>,
) -> (PoolConfig, Vec<Member>) {
    let members = backends(name, section, report);
    let mut pool = PoolConfig {
        name: name.to_owned(),
        balance: section.word_or_default("balance", report),
        hash_key: hash_key(section, report),
        hash_prefix: prefix(section, "hash_prefix", report),
        table_size: table_size(section, members.len(), report),
        load_factor: load_factor(section, report),
        sticky: sticky(section, report),
        backends: members.iter().map(|member| member.backend.clone()).collect(),
        connect_timeout: section.duration_or_default("connect_timeout", report),
        retries: section.count32_or_default("retries", report),
        send_proxy: section.word("send_proxy", report).value(),
        source: source(section, report),
        transparent: section.boolean_or_default("transparent", report),
        queue: queue(section, report),
        slow_start: Some(section.duration_or_default("slow_start", report))
            .filter(|time| !time.is_zero()),
        panic_threshold: section.percent_or_default("panic_threshold", report),
        on_down: section.read("on_down", report, on_down).or(OnDownConfig::Keep),
        health: health(section, unix_backend(&members), report),
        outlier: outlier(section, report),
    };
    if let Some(health) = &mut pool.health {
        health.send_proxy = pool.send_proxy;
        health.source.clone_from(&pool.source);
    }
    compare_source(section, &pool.source, pool.transparent, &members, report);
    refuse_idle(section, report);
    (pool, members)
}

/// The first address that has no port.
fn unix_backend(members: &[Member]) -> Option<&Address> {
    let mut addresses = members.iter().map(|member| &member.backend.address);
    addresses.find(|address| matches!(address, Address::Unix(_)))
}

/// Reads `backends`, which is required.
fn backends(name: &str, section: &Section<'_>, report: &mut Report<'_>) -> Vec<Member> {
    const SAMPLE: &str = "[\"10.0.0.11:5432\", \"10.0.0.12:5432\"]";
    let field = section.read("backends", report, |value, report| {
        if value.elements().is_some_and(|elements| elements.is_empty()) {
            let finding = Finding::new("`backends` is empty")
                .expected("at least one address to connect to")
                .hint(format!("write `backends = {SAMPLE}`"));
            report.error(&value.place, finding);
            return None;
        }
        scalar::list(value, SAMPLE, report, member)
    });
    if field.is_absent() && !section.partial {
        let finding = Finding::new(format!("pool `{}` has no `backends`", shown(name)))
            .expected("the addresses of its servers")
            .hint(format!("add `backends = {SAMPLE}`"));
        report.error(&section.header(), finding);
    }
    let members = field.or(Vec::new());
    compare_members(&members, report);
    members
}

/// Reads one backend: an address, or a table with one.
fn member(value: &Value<'_>, report: &mut Report<'_>) -> Option<Member> {
    if let Some(text) = value.text() {
        let address = address(value, Purpose::Connect, report)?;
        if !unix::check_as_name(text, &value.place, report) {
            return None;
        }
        let backend = backend(text.to_owned(), address);
        return Some(Member { backend, place: value.place.clone() });
    }
    let Some(section) = Section::of(value, KeyTable::Backend) else {
        let expected = "an address such as \"10.0.0.11:5432\", or a table with `address`";
        scalar::wrong_type(value, expected, None, report);
        return None;
    };
    section.refuse_unknown(report);
    let address = section.read("address", report, |value, report| {
        let address = address(value, Purpose::Connect, report)?;
        Some((address, value.text().unwrap_or("").to_owned()))
    });
    if address.is_absent() {
        let finding = Finding::new("a backend without `address`")
            .expected("`address = \"10.0.0.11:5432\"` in it");
        report.error(&value.place, finding);
    }
    let place = address.place().cloned();
    let own_address = section.get("address");
    let given = section.read("name", report, |value, report| {
        let name = scalar::string(value, "a name such as \"b2\"", report)?;
        // What it would be called anyway: that of a Unix socket has slashes.
        if own_address.as_ref().is_some_and(|address| address.text() == Some(&name)) {
            return unix::check_as_name(&name, &value.place, report).then_some(name);
        }
        check_name(&name, &value.place, report).then_some(name)
    });
    let weight = section.count32_or_default("weight", report);
    let backup = section.boolean_or_default("backup", report);
    let max_sessions = section.count32("max_sessions", report).value();
    let drain = section.boolean_or_default("drain", report);
    let (address, text) = address.value()?;
    let place = place.unwrap_or_else(|| value.place.clone());
    if given.is_absent() && !unix::check_as_name(&text, &place, report) {
        return None;
    }
    let name = given.or(text);
    let backend = BackendConfig { name, address, weight, backup, max_sessions, drain };
    Some(Member { backend, place })
}

/// A backend of which only the address is known.
fn backend(name: String, address: Address) -> BackendConfig {
    BackendConfig { name, address, weight: 1, backup: false, max_sessions: None, drain: false }
}

/// Checks that a name can stand in commands (`POOL/BACKEND`), paths, logs and metrics.
pub(super) fn check_name(name: &str, place: &FilePlace, report: &mut Report<'_>) -> bool {
    let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '/';
    let wrong = if name.is_empty() {
        "a name cannot be empty".to_owned()
    } else if name.len() > NAME_LENGTH_MAX {
        "this name is too long".to_owned()
    } else if name.chars().any(is_odd) {
        format!("`{}` cannot be a name", shown(name))
    } else {
        return true;
    };
    let finding = Finding::new(wrong).expected(format!(
        "1 to {NAME_LENGTH_MAX} bytes without `/`, spaces or control characters"
    ));
    report.error(place, finding);
    false
}

/// Names and addresses are unique within a pool.
fn compare_members(members: &[Member], report: &mut Report<'_>) {
    let mut addresses = HashMap::new();
    let mut names = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        let by_address = *addresses.entry(&member.backend.address).or_insert(index);
        let by_name = *names.entry(&member.backend.name).or_insert(index);
        let first = by_address.min(by_name);
        if first == index {
            continue;
        }
        let first = &members[first];
        let message = if first.backend.address == member.backend.address {
            format!("backend `{}` stands twice in this pool", member.backend.address)
        } else {
            format!("two backends of this pool are called `{}`", shown(&member.backend.name))
        };
        let hint = if first.backend.address == member.backend.address {
            "for a larger share give it a `weight`"
        } else {
            "give each a `name` of its own"
        };
        let finding = Finding::new(message).hint(hint).beside(&first.place, "first given here");
        report.error(&member.place, finding);
    }
}

/// Reads `table_size`: prime and larger than the number of backends.
fn table_size(section: &Section<'_>, backends: usize, report: &mut Report<'_>) -> u32 {
    let size = section.count32_or_default("table_size", report);
    let place = section.get("table_size").map(|value| value.place);
    if place.as_ref().is_some_and(|place| report.has_error_at(place)) {
        return size;
    }
    let place = place.or_else(|| section.get("backends").map(|value| value.place));
    let Some(place) = place else { return size };
    if !is_prime(size) {
        let finding = Finding::new(format!("`table_size` {size} is no prime number"))
            .expected("a prime number")
            .hint(format!("the nearest are {}", nearest_primes(size)));
        report.error(&place, finding);
    } else if usize::try_from(size).is_ok_and(|size| size <= backends) {
        let finding =
            Finding::new(format!("a `table_size` of {size} is too small for {backends} backends"))
                .expected("a prime number larger than the number of backends")
                .hint("about a hundred slots per backend keep the shares within 1 %");
        report.error(&place, finding);
    }
    size
}

/// The primes below and above a number, within what is allowed.
fn nearest_primes(number: u32) -> String {
    let below = (2..number).rev().find(|number| is_prime(*number));
    let above = (number..=TABLE_SIZE_MAX).find(|number| is_prime(*number));
    let both: Vec<String> = below.iter().chain(&above).map(u32::to_string).collect();
    both.join(" and ")
}

/// Checks that no backend is one of our own listeners.
pub(super) fn compare_with_binds(members: &[Member], binds: &[Bind], report: &mut Report<'_>) {
    for member in members {
        let address = &member.backend.address;
        let own = binds.iter().find(|bind| reaches(address, &bind.address));
        let Some(bind) = own else { continue };
        let owner = shown(&bind.listener);
        let finding = Finding::new(format!("backend `{address}` is our own listener `{owner}`"))
            .expected("the address of another server")
            .hint("every session would connect back to this process, over and over")
            .beside(&bind.place, "accepts there");
        report.error(&member.place, finding);
    }
}

/// Checks that no backend is what this process is commanded and watched by.
pub(super) fn compare_with_admin(members: &[Member], admin: &Admin, report: &mut Report<'_>) {
    let page = admin.http.map(Address::Ip);
    for member in members {
        let address = &member.backend.address;
        let (own, hint) = if matches!(address, Address::Unix(path) if **path == *admin.socket) {
            ("socket", "whoever may connect to a listener could command this process")
        } else if page.as_ref().is_some_and(|page| reaches(address, page)) {
            ("page", "whoever may connect to a listener could watch this process")
        } else {
            continue;
        };
        let finding = Finding::new(format!("backend `{address}` is our own admin {own}"))
            .expected("the address of another server")
            .hint(hint);
        report.error(&member.place, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If it fails, good table sizes are refused or bad ones accepted.
    #[test]
    fn primes_are_told_apart() {
        for prime in [2, 3, 251, 65_537, 655_373, TABLE_SIZE_MAX] {
            assert!(is_prime(prime), "{prime}");
        }
        for composite in [0, 1, 4, 65_536, 65_535, 5_000_009] {
            assert!(!is_prime(composite), "{composite}");
        }
        assert_eq!(nearest_primes(65_536), "65521 and 65537");
        assert_eq!(nearest_primes(4), "3 and 5");
    }
}
