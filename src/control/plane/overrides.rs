//! What operators set at run time, beside the file.

use std::collections::HashMap;

use crate::shared::AdminState;

/// What was set at run time for one backend and survives reloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) admin: Option<AdminState>,
    pub(crate) weight: Option<u32>,
}

/// Overrides by pool and backend name.
pub(crate) type Overrides = HashMap<(String, String), Override>;
