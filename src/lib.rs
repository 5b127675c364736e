//! evenkeel: a Layer-4 TCP load balancer for Linux with a userspace fast path.
//!
//! The map, in dependency order. Two planes meet only in [`shared`]: an immutable snapshot and
//! atomics. `tests/tidy.rs` holds the import direction; ARCHITECTURE.md tells the reasons.

pub mod config;
pub mod import;
pub mod policy;
pub mod shared;
pub mod sys;

pub mod dataplane;

pub mod control;
