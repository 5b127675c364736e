//! What the process says about itself: metrics, status, explanations, and to systemd.

pub(crate) mod explain;
pub(crate) mod metrics;
pub(crate) mod notify;
pub(crate) mod retired;
pub mod status;
