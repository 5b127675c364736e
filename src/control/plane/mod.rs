//! The state of the control plane, which all its duties read and some change.

pub(crate) mod ban_book;
pub(crate) mod clock;
pub(crate) mod configured;
pub(crate) mod doors;
pub(crate) mod drain_book;
pub(crate) mod gate_book;
pub(crate) mod health_book;
pub(crate) mod inherited;
pub(crate) mod kill_book;
pub(crate) mod loss_bells;
pub(crate) mod outlier_book;
pub(crate) mod overrides;
pub(crate) mod set_backends;
pub(crate) mod set_bans;
pub(crate) mod source_book;
pub(crate) mod state;
pub(crate) mod state_file;
pub(crate) mod upgrade_book;
pub(crate) mod workers;
