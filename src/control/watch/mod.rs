//! What is watched while the process serves: backends by probes and by real sessions, certificates,
//! source ports.

pub(crate) mod certificate;
pub(crate) mod outlier;
pub(crate) mod panic;
pub(crate) mod prober;
pub(crate) mod source_ports;
pub(crate) mod verdict;
