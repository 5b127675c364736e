//! Observation of backends by probes and by real sessions, of their certificates, of source ports,
//! of clients that the kernel refuses, and of sockets that cannot accept.

pub(crate) mod accepting;
pub(crate) mod certificate;
pub(crate) mod leave;
pub(crate) mod outlier;
pub(crate) mod panic;
pub(crate) mod prober;
pub(crate) mod refused_in_kernel;
pub(crate) mod source_ports;
pub(crate) mod verdict;
