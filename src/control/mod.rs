//! Everything that never touches a session's bytes.
//!
//! One tokio runtime on the thread `control`. It acts on workers only through
//! [`crate::dataplane::WorkerHandle`] and the atomics of [`crate::shared`].
//!
//! One folder for each duty, each importing only those below it: `start` starts workers, serves and
//! stops; [`admin`] serves operators; `upgrade` replaces the program while it serves; `reload`
//! turns a configuration into a snapshot and publishes it; [`sessions`] lists and ends sessions;
//! `tell` makes metrics, status and explanations; `watch` probes backends and ejects outliers;
//! `plane` is the state that all of these share; `host` opens sockets and knows what the host
//! grants; `log` writes lines.

pub mod admin;
mod host;
mod log;
mod off_thread;
mod plane;
mod reload;
mod run_error;
pub mod sessions;
mod start;
mod tell;
mod upgrade;
mod watch;
mod words;

pub use host::warnings::check;
pub use run_error::RunError;
pub use start::demo;
pub use start::run::{RunOptions, Served, run};
pub use tell::status;
pub use upgrade::report::UpgradeReport;
pub use words::wants_colour;
