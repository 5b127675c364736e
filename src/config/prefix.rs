//! Prefix lengths: `hash_prefix` of a pool and `key` of a limit.

use crate::policy::balance::hash::Prefix;

use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape};
use super::report::Report;

/// Keys of `hash_prefix`.
pub(super) static HASH_PREFIX: KeyTable = KeyTable {
    name: "HashPrefix",
    title: "`hash_prefix` of [pool.NAME]",
    sample: "hash_prefix = { v4 = 32, v6 = 128 }",
    keys: &[
        Key::new("v4", Shape::Count(0, 32))
            .default("32")
            .means("Leading bits of an IPv4 address that are hashed."),
        Key::new("v6", Shape::Count(0, 128))
            .default("128")
            .means("Leading bits of an IPv6 address that are hashed."),
    ],
    also: &[],
};
/// Keys of `key` of a limit.
pub(super) static LIMIT_KEY: KeyTable = KeyTable {
    name: "LimitKey",
    title: "`key` of [listener.NAME.limit]",
    sample: "key = { v4 = 32, v6 = 64 }",
    keys: &[
        Key::new("v4", Shape::Count(0, 32))
            .default("32")
            .means("Leading bits of an IPv4 address that make one client."),
        Key::new("v6", Shape::Count(0, 128))
            .default("64")
            .means("Leading bits of an IPv6 address that make one client."),
    ],
    also: &[],
};
/// Reads a table of prefix lengths.
pub(super) fn prefix(section: &Section<'_>, name: &str, report: &mut Report<'_>) -> Prefix {
    let section = section.open_or_absent(name, report);
    Prefix {
        v4: section.length_or_default("v4", report),
        v6: section.length_or_default("v6", report),
    }
}

/// Its keys as `evenkeel config` shows them.
pub(super) fn entries(prefix: Prefix) -> Entries {
    let Prefix { v4, v6 } = prefix;
    Entries::default().plain("v4", v4).plain("v6", v6)
}
