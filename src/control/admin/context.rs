//! What a route of the admin interface is given.

use crate::control::reload::services::Services;
use crate::control::tell::status::document::{AdminAddresses, Status};
use crate::control::tell::status::gather;

/// The process, and where it is reached.
#[derive(Debug, Clone)]
pub(crate) struct AdminContext {
    pub(crate) services: Services,
    pub(crate) addresses: AdminAddresses,
}

impl AdminContext {
    /// The state of the process at this moment.
    pub(crate) fn status(&self) -> Status {
        let Services { plane, logging, .. } = &self.services;
        gather::status(plane, &self.addresses, logging.dropped())
    }
}
