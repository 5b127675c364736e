//! Everything that never touches a session's bytes.
//!
//! One tokio runtime on the thread `control`: reading the configuration, opening sockets,
//! publishing snapshots, probes, the admin API, metrics, signals, systemd. It acts on workers
//! only through [`crate::dataplane::WorkerHandle`] and the atomics of [`crate::shared`].

mod admin;
mod compile;
mod difference;
mod listeners;
mod logging;
mod notify;
mod plane;
mod probe;
mod probe_http;
mod probe_pace;
mod prober;
mod reload;
mod run;
mod sizing;

pub use run::{RunError, RunOptions, run};
