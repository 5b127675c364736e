//! `backends` of a pool: its servers.

use std::collections::HashMap;

use crate::policy::address_range::AddressRange;
use crate::policy::terms::Address;

use super::address::{Purpose, address, reaches};
use super::bind::Bind;
use super::bounds::SESSIONS_MAX;
use super::entries::Entries;
use super::file::{Field, Section, Value, shown};
use super::key::{Key, KeyTable, Shape};
use super::name::{NAME_BYTES_MAX, check_name};
use super::process::Admin;
use super::report::{FilePlace, Finding, Report};
use super::scalar;
use super::unix;

/// Keys of an entry of `backends` that is a table.
pub(super) static BACKEND: KeyTable = KeyTable {
    name: "Backend",
    title: "an entry of `backends`",
    sample: "",
    keys: &[
        Key::new("address", Shape::Text("address")).note("no port 0, no wildcard").means(
            "Where it listens, `\"unix:/path\"` too; without a port, at the port to which the \
                    client connected.",
        ),
        Key::new("name", Shape::TextOf("text", 1, NAME_BYTES_MAX))
            .or_else("the address as written")
            .note(" without `/` (but for that address), spaces, control characters")
            .means("For commands, logs and metrics."),
        Key::new("weight", Shape::Count(0, 65_535))
            .default("1")
            .means("Share relative to the others."),
        Key::new("backup", Shape::Boolean).default("false").means(
            "Serves only when no other can: down, drained, full, or failed for this session.",
        ),
        Key::new("max_sessions", Shape::Count(1, SESSIONS_MAX))
            .or_else("no bound")
            .means("Sessions at once, those being connected too."),
        Key::new("drain", Shape::Boolean)
            .default("false")
            .reload("now")
            .means("Takes no new sessions."),
    ],
    also: &[],
};
/// One server of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its name; the address as written unless given.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// Share relative to the others: 0 (no new sessions) to 65535.
    pub weight: u32,
    /// Serves only when no other can.
    pub backup: bool,
    /// Sessions it may hold at once.
    pub max_sessions: Option<u32>,
    /// Takes no new sessions.
    pub drain: bool,
}

/// Most backends of a pool: as far as the algorithms number them.
pub(super) const BACKENDS_MAX: usize = 65_535;

/// A backend with its place.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) backend: BackendConfig,
    pub(super) place: FilePlace,
}

/// Reads `backends`, which is required.
pub(super) fn backends(name: &str, section: &Section<'_>, report: &mut Report<'_>) -> Vec<Member> {
    const SAMPLE: &str = "[\"10.0.0.11:5432\", \"10.0.0.12:5432\"]";
    let field = section
        .read("backends", report, |value, report| scalar::list(value, SAMPLE, report, member));
    if let Field::Given(members, place) = &field {
        compare_count(members.len(), section, place, report);
    }
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

/// Checks how many backends there are: as many as the algorithms can number, and some.
fn compare_count(count: usize, section: &Section<'_>, place: &FilePlace, report: &mut Report<'_>) {
    if count > BACKENDS_MAX {
        let finding = Finding::new(format!("this pool has {count} backends"))
            .expected(format!("at most {BACKENDS_MAX}, which is as far as they are numbered"))
            .hint("spread them over several pools");
        report.error(place, finding);
    } else if count == 0 && !section.partial {
        let finding = Finding::new("this pool has no backend: its clients are refused")
            .hint("they get `no_backend` until a reload brings a backend");
        report.warning(place, finding);
    }
}

/// Reads one backend: an address, or a table with one.
fn member(value: &Value<'_>, report: &mut Report<'_>) -> Option<Member> {
    if let Some(text) = value.text() {
        let address = address(value, Purpose::Connect, report)?;
        if !unix::check_as_name(text, &value.place, report) {
            return None;
        }
        let backend = backend(&Section::absent(&BACKEND), report)(text.to_owned(), address);
        return Some(Member { backend, place: value.place.clone() });
    }
    let Some(section) = Section::of(value, &BACKEND) else {
        let expected = "an address such as \"10.0.0.11:5432\", or a table with `address`";
        scalar::wrong_type(value, expected, None, report);
        return None;
    };
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
    let backend = backend(&section, report);
    let (address, text) = address.value()?;
    let place = place.unwrap_or_else(|| value.place.clone());
    if given.is_absent() && !unix::check_as_name(&text, &place, report) {
        return None;
    }
    Some(Member { backend: backend(given.or(text), address), place })
}

/// What a table says of a backend beside its name and its address.
fn backend(
    section: &Section<'_>,
    report: &mut Report<'_>,
) -> impl FnOnce(String, Address) -> BackendConfig + use<> {
    let weight = section.count32_or_default("weight", report);
    let backup = section.boolean_or_default("backup", report);
    let max_sessions = section.count32("max_sessions", report).value();
    let drain = section.boolean_or_default("drain", report);
    move |name, address| BackendConfig { name, address, weight, backup, max_sessions, drain }
}

/// Names are unique within a pool. An address may stand under several, each a backend of its own.
fn compare_members(members: &[Member], report: &mut Report<'_>) {
    let mut names = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        let first = *names.entry(&member.backend.name).or_insert(index);
        if first == index {
            continue;
        }
        let first = &members[first];
        let (message, hint) = if first.backend.address == member.backend.address {
            (
                format!("backend `{}` stands twice in this pool", member.backend.address),
                "for a larger share give it a `weight`, or give each a `name` of its own",
            )
        } else {
            let name = shown(&member.backend.name);
            (format!("two backends of this pool are called `{name}`"), "give each its own `name`")
        };
        let finding = Finding::new(message).hint(hint).beside(&first.place, "first given here");
        report.error(&member.place, finding);
    }
}

/// Checks that no backend is one of our own listeners.
pub(super) fn compare_with_binds(members: &[Member], binds: &[Bind], report: &mut Report<'_>) {
    for member in members {
        let address = &member.backend.address;
        let own = binds.iter().find(|bind| reaches(address, &bind.addresses));
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
    let page = admin.http.map(|page| AddressRange::from(Address::Ip(page)));
    for member in members {
        let address = &member.backend.address;
        let (own, hint) = if matches!(address, Address::Unix(path) if **path == *admin.socket) {
            ("socket", "every client of a listener could command this process")
        } else if page.as_ref().is_some_and(|page| reaches(address, page)) {
            ("page", "every client of a listener could watch this process")
        } else {
            continue;
        };
        let finding = Finding::new(format!("backend `{address}` is our own admin {own}"))
            .expected("the address of another server")
            .hint(hint);
        report.error(&member.place, finding);
    }
}

impl BackendConfig {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(&self) -> Entries {
        let Self { name, address, weight, backup, max_sessions, drain } = self;
        Entries::default()
            .text("address", address)
            .text("name", name)
            .plain("weight", weight)
            .plain("backup", backup)
            .given(*max_sessions, |out, most| out.plain("max_sessions", most))
            .plain("drain", drain)
    }
}
