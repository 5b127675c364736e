//! Settings of operators at run time, beside the file.

use std::collections::HashMap;

use crate::config::BackendConfig;
use crate::shared::AdminState;

/// What was set at run time for one backend. It survives reloads until the file says it, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) admin: Option<AdminState>,
    pub(crate) weight: Option<u32>,
}

impl Override {
    /// What of it differs from what the file says of the backend.
    pub(crate) fn beyond(self, file: &BackendConfig) -> Self {
        Self {
            admin: self.admin.filter(|admin| *admin != admin_by_file(file)),
            weight: self.weight.filter(|weight| *weight != file.weight),
        }
    }
}

/// What the file wants of a backend.
pub(crate) fn admin_by_file(backend: &BackendConfig) -> AdminState {
    if backend.drain { AdminState::Drain } else { AdminState::Ready }
}

/// Overrides by pool and backend name.
pub(crate) type Overrides = HashMap<(String, String), Override>;
