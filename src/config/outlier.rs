//! `[pool.NAME.outlier]`: from the table to an [`Outlier`].

use super::Outlier;
use super::file::Section;
use super::report::Report;

/// Reads when a pool ejects backends, if it does.
pub(super) fn outlier(pool: &Section<'_>, report: &mut Report<'_>) -> Option<Outlier> {
    let section = pool.open("outlier", report)?;
    Some(Outlier {
        consecutive_failures: section.count32_or_default("consecutive_failures", report),
        eject: section.duration_or_default("eject", report),
        max_ejected: section.percent_or_default("max_ejected", report),
    })
}
