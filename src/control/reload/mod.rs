//! From a configuration to the snapshot that workers use.

pub(crate) mod apply;
pub(crate) mod compile;
pub(crate) mod diff;
pub(crate) mod publish;
pub(crate) mod services;
