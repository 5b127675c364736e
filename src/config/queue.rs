//! `queue` of a pool.

use crate::policy::terms::Queue;

use super::bounds::{LONGEST, ZERO};
use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape};
use super::report::{Finding, Report};

/// Keys of `queue`.
pub(super) static QUEUE: KeyTable = KeyTable {
    name: "Queue",
    title: "`queue` of [pool.NAME]",
    sample: "queue = { max = 100, timeout = \"10s\" }",
    keys: &[
        Key::new("max", Shape::Count(0, 65_535)).default("0").means(
            "Clients that wait at once, over all workers; one more is turned away \
                    (`no_backend`).",
        ),
        Key::new("timeout", Shape::Duration(ZERO, LONGEST))
            .default("0s")
            .note("; above 0s when `max` is")
            .reload("now")
            .means(
                "How long each waits; then it is turned away (`no_backend`, in the session log \
                    `sQ` and \"no place at a backend in time\").",
            ),
    ],
    also: &[],
};
/// Reads `queue`; `None` when no client may wait.
pub(super) fn queue(pool: &Section<'_>, report: &mut Report<'_>) -> Option<Queue> {
    let section = pool.open("queue", report)?;
    let max = section.count32_or_default("max", report);
    let timeout = section.duration_or_default("timeout", report);
    if max == 0 || section.partial {
        return None;
    }
    if timeout.is_zero() {
        let place = section.get("max").map_or_else(|| section.header(), |value| value.place);
        let finding = Finding::new("clients cannot wait in this queue")
            .expected("a `timeout` above 0s beside `max`")
            .hint("add `timeout = \"10s\"`");
        report.error(&place, finding);
    }
    Some(Queue { max, timeout })
}

/// Its keys as `evenkeel config` shows them.
pub(super) fn entries(queue: Queue) -> Entries {
    let Queue { max, timeout } = queue;
    Entries::default().plain("max", max).duration("timeout", timeout)
}
