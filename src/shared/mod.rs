//! What both planes may see.
//!
//! A [`Snapshot`] is immutable and replaced whole; everything that changes between two snapshots
//! is an atomic in [`BackendState`], [`PoolState`], [`ListenerState`] or [`WorkerState`]. Nothing
//! here opens a socket or reads a clock.

mod backend;
mod ids;
mod offenders;
mod publish;
mod reasons;
mod session_record;
mod snapshot;
mod stats;

pub use backend::{AdminState, BackendState, Claim, PoolState};
pub use ids::{BackendId, Generation, ListenerId, PoolId};
pub use offenders::{Offender, Offenders, most_frequent};
pub use publish::{Publisher, Subscriber};
pub use reasons::{CloseReason, ConnectFailure, HeldOutcome, RefuseReason};
pub use session_record::{ClosedSession, Detail, SessionLog, SessionRecord};
pub use snapshot::{
    Backend, Balance, Group, HashPlan, Keepalive, Limit, LimitAction, Listener, Pool, Protocol,
    Snapshot, SpliceMode,
};
pub use stats::{
    BackendCounters, CONNECT_SECONDS, Counter, Direction, Gauge, Histogram, LimitDecision,
    ListenerCounters, ListenerState, PathKind, SESSION_SECONDS, WorkerState,
};
