//! placeholder

use std::sync::Arc;

use super::logging::Logging;
use super::plane::Plane;
use super::prober::Prober;
use super::run::RunError;

#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) plane: Arc<Plane>,
    pub(crate) prober: Arc<Prober>,
    pub(crate) logging: Arc<Logging>,
}

#[derive(Debug)]
pub(crate) struct AdminSockets;

pub(crate) fn open(_admin: &crate::config::Admin) -> Result<AdminSockets, RunError> {
    Ok(AdminSockets)
}

pub(crate) fn serve(_sockets: AdminSockets, _context: Context) {}
