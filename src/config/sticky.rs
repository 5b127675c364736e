//! `sticky` of a pool.

use std::time::Duration;

use super::bounds::{CLIENTS_MAX, CLIENTS_MIN, LONGEST, SECOND};
use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape};
use super::report::Report;

/// Keys of `sticky`.
pub(super) static STICKY: KeyTable = KeyTable {
    name: "Sticky",
    title: "`sticky` of [pool.NAME]",
    sample: "sticky = { for = \"1h\" }",
    keys: &[
        Key::new("for", Shape::WholeSeconds(SECOND, LONGEST))
            .default("1h")
            .reload("new; a shorter one forgets what would last longer")
            .means(
                "How long a choice is remembered after the client's latest session began; \
                    renewed when an eighth of it has passed.",
            ),
        Key::new("size", Shape::Count(CLIENTS_MIN, CLIENTS_MAX))
            .default("65536")
            .reload("new; starts empty")
            .means("Clients that are remembered, rounded up to a power of two, 8 bytes each."),
    ],
    also: &[],
};
/// `sticky` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyConfig {
    /// How long a choice is remembered after the client's latest session (whole seconds).
    pub time: Duration,
    /// Clients in the table (fixed memory, 8 bytes each).
    pub size: u32,
}

/// Reads `sticky`.
pub(super) fn sticky(pool: &Section<'_>, report: &mut Report<'_>) -> Option<StickyConfig> {
    let section = pool.open("sticky", report)?;
    Some(StickyConfig {
        time: section.whole_seconds("for", "", report),
        size: section.count32_or_default("size", report),
    })
}

impl StickyConfig {
    /// Its keys as `evenkeel config` shows them.
    pub(super) fn entries(self) -> Entries {
        let Self { time, size } = self;
        Entries::default().duration("for", time).plain("size", size)
    }
}
