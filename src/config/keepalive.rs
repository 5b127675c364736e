//! `keepalive` of a listener.

use std::time::Duration;

use crate::policy::terms::Keepalive;

use super::bounds::SECOND;
use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape};
use super::report::{Finding, Report};

/// Longest time that the kernel takes for keepalive.
const KERNEL_SECONDS_MAX: Duration = Duration::from_secs(32_767);

/// Keys of `keepalive`.
pub(super) static KEEPALIVE: KeyTable = KeyTable {
    name: "Keepalive",
    title: "`keepalive` of [listener.NAME]",
    sample: "keepalive = { idle = \"60s\" }",
    keys: &[
        Key::new("idle", Shape::WholeSeconds(SECOND, KERNEL_SECONDS_MAX))
            .default("60s")
            .means("Silence before the first keepalive packet."),
        Key::new("interval", Shape::WholeSeconds(SECOND, KERNEL_SECONDS_MAX))
            .default("15s")
            .means("Time between packets."),
        Key::new("count", Shape::Count(1, 127))
            .default("4")
            .means("Unanswered packets that end the connection."),
    ],
    also: &[],
};
/// Reads `keepalive`.
pub(super) fn keepalive(listener: &Section<'_>, report: &mut Report<'_>) -> Keepalive {
    const WHY: &str = "the kernel counts keepalive in seconds";
    let section = listener.open_or_absent("keepalive", report);
    let is_overruled = listener.get("user_timeout").is_some() && !listener.partial;
    if let Some((count, _)) = section.entries().into_iter().find(|(it, _)| it.name == "count")
        && is_overruled
    {
        let finding = Finding::new("`keepalive.count` has no effect beside `user_timeout`").hint(
            "the kernel gives a silent peer up at the first packet that is unanswered after \
             `user_timeout`; remove one of them",
        );
        report.warning(&count.place, finding);
    }
    Keepalive {
        idle: section.whole_seconds("idle", WHY, report),
        interval: section.whole_seconds("interval", WHY, report),
        count: section.count32_or_default("count", report),
    }
}

/// Its keys as `evenkeel config` shows them.
pub(super) fn entries(keepalive: Keepalive) -> Entries {
    let Keepalive { idle, interval, count } = keepalive;
    Entries::default().duration("idle", idle).duration("interval", interval).plain("count", count)
}
