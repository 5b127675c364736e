//! From a configuration to the snapshot that workers use.

pub(crate) mod apply;
pub(crate) mod compile;
pub(crate) mod kept;
pub(crate) mod outcome;
pub(crate) mod prepare;
pub(crate) mod publish;
pub(crate) mod saved;
pub(crate) mod services;
pub(crate) mod succession;
