//! The state of the process as one document: `status --json`, `GET /v1/status`, the admin page.
//!
//! What is configured is listed, and listeners that are gone but still have sessions. Numbers count
//! from the start of the process; rates are made by the reader, which knows how often it looks.
//! Names are the keys of objects, sorted.

pub(crate) mod document;
pub(crate) mod gather;
pub(crate) mod table;
pub mod text;

pub use document::{
    AdminAddresses, BackendStatus, ConfigStatus, LimitStatus, ListenerStatus, OffenderStatus,
    PoolStatus, SourceStatus, Status, WorkerStatus,
};
