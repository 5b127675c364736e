//! `bandwidth` of a listener.

use crate::policy::pace::pacer::{Rate, Rates};

use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape};
use super::report::{Finding, Report};
use super::size;
use super::units::show_size;

/// Keys of `bandwidth`.
pub(super) static BANDWIDTH: KeyTable = KeyTable {
    name: "Bandwidth",
    title: "`bandwidth` of [listener.NAME]",
    sample: "bandwidth = { down = \"1MiB/s\" }",
    keys: &[
        Key::new("up", Shape::Bandwidth(1, 64 << 30))
            .or_else("no bound")
            .reload("now, for open sessions too")
            .means("From the client to the backend."),
        Key::new("down", Shape::Bandwidth(1, 64 << 30))
            .or_else("no bound")
            .reload("now, for open sessions too")
            .means("From the backend to the client."),
    ],
    also: &[],
};
/// Reads `bandwidth`.
pub(super) fn bandwidth(listener: &Section<'_>, report: &mut Report<'_>) -> Rates {
    let Some(section) = listener.open("bandwidth", report) else { return Rates::default() };
    let up = size::per_second(&section, "up", report);
    let down = size::per_second(&section, "down", report);
    if up.is_absent() && down.is_absent() && !section.partial {
        let finding = Finding::new("`bandwidth` bounds nothing");
        let finding = finding.expected("`up`, `down` or both, such as `down = \"1MiB/s\"`");
        report.error(&section.header(), finding);
    }
    [up.value(), down.value()]
}

/// Its keys as `evenkeel config` shows them.
pub(super) fn entries(rates: Rates) -> Entries {
    let [up, down] = rates;
    let shown = |rate: Rate| format!("{}/s", show_size(rate.get()));
    Entries::default()
        .given(up, |out, rate| out.text("up", shown(rate)))
        .given(down, |out, rate| out.text("down", shown(rate)))
}
