//! Everything that never touches a session's bytes.
//!
//! One tokio runtime on the thread `control`: reading the configuration, opening sockets,
//! publishing snapshots, probes, the admin API, metrics, signals, systemd. It acts on workers
//! only through [`crate::dataplane::WorkerHandle`] and the atomics of [`crate::shared`].

pub mod admin;
mod ceilings;
mod certificate;
mod compile;
pub mod demo;
mod difference;
mod explain;
mod host;
mod listeners;
mod logging;
mod metrics;
mod notify;
mod outlier;
mod plane;
mod prober;
mod reload;
mod retired;
mod run;
mod run_error;
mod sizing;
mod socket_file;
mod source_ports;
pub mod status;
mod trust;
mod verbs;
mod words;

#[cfg(feature = "defects")]
pub use crate::policy::defects;
pub use host::check;
pub use run::{RunOptions, Served, run};
pub use run_error::RunError;
