//! Everything that never touches a session's bytes.
//!
//! One tokio runtime on the thread `control`. It acts on workers only through
//! [`crate::dataplane::WorkerHandle`] and the atomics of [`crate::shared`].
//!
//! One folder for each duty: `start` opens sockets, starts workers and stops them; `reload`
//! turns a configuration into a snapshot and publishes it; `watch` probes backends and ejects
//! outliers; `tell` makes metrics, status and explanations; [`admin`] serves operators; `log`
//! writes lines.

pub mod admin;
mod log;
mod reload;
mod start;
mod tell;
mod watch;

#[cfg(feature = "defects")]
pub use crate::policy::defects;
pub use start::demo;
pub use start::host::check;
pub use start::run::{RunOptions, Served, run};
pub use start::run_error::RunError;
pub use tell::status;
