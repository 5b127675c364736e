//! `[pool.NAME.outlier]`: ejection by what sessions meet.

use crate::policy::health::outlier::{EJECT_MAX, EjectionRules};

use super::bounds::SHORTEST;
use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape};
use super::report::Report;

/// Keys of `[pool.NAME.outlier]`.
pub(super) static OUTLIER: KeyTable = KeyTable {
    name: "Outlier",
    title: "[pool.NAME.outlier]",
    sample: "",
    keys: &[
        Key::new("consecutive_failures", Shape::Count(1, 1_000))
            .default("5")
            .reload("now")
            .means("Failures in a row, over all workers, that eject a backend."),
        Key::new("eject", Shape::Duration(SHORTEST, EJECT_MAX))
            .default("30s")
            .reload("next ejection")
            .means(
                "How long it is out: this times the number of ejections so far, at most 5 \
                    minutes.",
            ),
        Key::new("max_ejected", Shape::Percent).default("50%").reload("next ejection").means(
            "Most of the pool's backends out at once, the new one counted: one of three at \
                    50%.",
        ),
    ],
    also: &[],
};
/// Reads when a pool ejects backends, if it does.
pub(super) fn outlier(pool: &Section<'_>, report: &mut Report<'_>) -> Option<EjectionRules> {
    let section = pool.open("outlier", report)?;
    Some(EjectionRules {
        consecutive_failures: section.count32_or_default("consecutive_failures", report),
        eject: section.duration_or_default("eject", report),
        max_ejected: section.percent_or_default("max_ejected", report),
    })
}

/// Its keys as `evenkeel config` shows them.
pub(super) fn entries(rules: EjectionRules) -> Entries {
    let EjectionRules { consecutive_failures, eject, max_ejected } = rules;
    Entries::default()
        .plain("consecutive_failures", consecutive_failures)
        .duration("eject", eject)
        .text("max_ejected", format!("{max_ejected}%"))
}
