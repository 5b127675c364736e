//! Tables of clients of the process before an upgrade, which the first snapshot of this one carries
//! on as a reload carries on those of the snapshot before.

use std::collections::HashMap;

use crate::shared::{HashPlan, Limit, Sticky};

/// What the first snapshot goes on from; empty without an upgrade, and after that snapshot.
#[derive(Debug, Default)]
pub(crate) struct InheritedTables {
    /// Limits, by the names of their listeners.
    pub(crate) limits: HashMap<String, Box<[Limit]>>,
    /// Choices that pools remember, by the names of these.
    pub(crate) choices: HashMap<String, InheritedChoices>,
}

/// The remembered choices of one pool. They name backends by marks, which the first snapshot gives
/// anew: the table is filled after that.
#[derive(Debug)]
pub(crate) struct InheritedChoices {
    /// What was one client there.
    pub(crate) hash: HashPlan,
    pub(crate) sticky: Sticky,
}
