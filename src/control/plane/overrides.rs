//! Settings of operators at run time, beside the file.

use std::collections::HashMap;

use crate::shared::AdminState;

/// The settings of one backend that an operator made at run time; they survive reloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) admin: Option<AdminState>,
    pub(crate) weight: Option<u32>,
}

/// Overrides by pool and backend name.
pub(crate) type Overrides = HashMap<(String, String), Override>;
