//! `[pool.NAME.outlier]`: from the table to an [`Outlier`].

use std::time::Duration;

use super::Outlier;
use super::file::Section;
use super::keys::Table;
use super::listener::SHORTEST;
use super::report::Report;
use super::scalar;

/// Most failures in a row that may be waited for.
const FAILURES_MAX: u32 = 1_000;
/// Longest ejection, the first as well as those that are longer.
const EJECT_MAX: Duration = Duration::from_secs(5 * 60);

/// Reads when a pool ejects backends, if it does.
pub(super) fn outlier(pool: &Section<'_>, report: &mut Report<'_>) -> Option<Outlier> {
    let section = pool.open("outlier", Table::Outlier, report)?;
    Some(Outlier {
        consecutive_failures: section
            .count32("consecutive_failures", 1..=FAILURES_MAX, report)
            .or(5),
        eject: section.duration("eject", SHORTEST..=EJECT_MAX, report).or(Duration::from_secs(30)),
        max_ejected: section.read("max_ejected", report, scalar::percent).or(50),
    })
}
