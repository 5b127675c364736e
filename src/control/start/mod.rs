//! From a command line to a process that serves, and to its end: what the host allows, sockets,
//! workers, signals and systemd.

pub mod demo;
pub(crate) mod host;
pub(crate) mod host_limits;
pub(crate) mod listeners;
pub(crate) mod notify;
pub(crate) mod run;
pub(crate) mod run_error;
pub(crate) mod sizing;
pub(crate) mod socket_file;
