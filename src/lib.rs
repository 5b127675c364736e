//! evenkeel: a Layer-4 TCP load balancer for Linux with a userspace fast path.
//!
//! The map, in dependency order. Two planes meet only in [`shared`]: an immutable snapshot and
//! atomics. `tests/tidy.rs` holds the import direction; ARCHITECTURE.md tells the reasons.

/// Configuration text to a checked [`config::Config`], or every problem with its place.
pub mod config;
/// Pure decisions: no clock, no socket, no random source.
pub mod policy;
/// What both planes may see: the snapshot, backend state, counters.
pub mod shared;
/// The kernel: the only module that may contain `unsafe`.
pub mod sys;

/// Worker threads that accept connections and move their bytes.
pub mod dataplane;

/// Everything that never touches a session's bytes: reload, probes, admin, metrics, signals.
pub mod control;
