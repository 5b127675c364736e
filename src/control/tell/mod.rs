//! What the process says about itself: metrics, status, explanations.

pub(crate) mod explain;
pub(crate) mod metrics;
pub mod status;
pub(crate) mod words;
