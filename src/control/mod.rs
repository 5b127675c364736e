//! Everything that never touches a session's bytes.
//!
//! One tokio runtime on the thread `control`: reading the configuration, opening sockets,
//! publishing snapshots, probes, the admin API, metrics, signals, systemd. It acts on workers
//! only through [`crate::dataplane::WorkerHandle`] and the atomics of [`crate::shared`].

mod admin;
mod admin_page;
mod admin_routes;
mod admin_socket;
/// The other end of the admin socket.
pub mod client;
mod compile;
/// Something to look at without a configuration.
pub mod demo;
mod difference;
mod host;
mod http_server;
mod listeners;
mod log_event;
mod log_line;
mod log_writer;
mod logging;
mod metrics;
mod metrics_of_backends;
mod metrics_of_listeners;
mod metrics_of_process;
mod notify;
mod plane;
mod probe;
mod probe_http;
mod probe_pace;
mod prober;
mod reload;
mod run;
mod sizing;
/// The state of the process as one document.
pub mod status;
/// The same for a person.
pub mod status_text;

pub use host::check;
pub use run::{RunError, RunOptions, Served, run};
