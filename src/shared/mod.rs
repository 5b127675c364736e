//! What both planes may see.
//!
//! A [`Snapshot`] is immutable and replaced whole; everything that changes between two snapshots
//! is an atomic in [`BackendState`], [`PoolState`], [`ListenerState`] or [`WorkerState`]. Nothing
//! here opens a socket or reads a clock.

mod backend;
mod bans;
mod failure_evidence;
mod gate;
mod ids;
mod leave;
mod leave_order;
mod listener_index;
mod offenders;
mod pick;
mod publish;
mod reasons;
mod session_record;
mod snapshot;
mod source;
mod stats;
mod tally;
mod waiting;

pub use crate::policy::address_range::AddressRange;
pub use crate::policy::balance::Balance;
pub use crate::policy::terms::{
    Address, HostAddress, Keepalive, LimitAction, Protocol, Queue, SpliceMode,
};
pub use backend::{BackendState, Claim, PoolState};
pub use bans::{BanReader, Bans};
pub use failure_evidence::FailureEvidence;
pub use gate::{AccessMarks, Gate, GateCount, GateKernel, GateTotal, KernelRefusals, Refusing};
pub use ids::{BackendId, Generation, ListenerId, PoolId};
pub use leave::Leave;
pub use leave_order::{LeaveCause, LeaveOrder};
pub use listener_index::ListenerIndex;
pub use offenders::{Offender, Offenders, most_frequent};
pub use pick::{By, Obstacle, Pick, Skip, note_skip};
pub use publish::{Publisher, Subscriber};
pub use reasons::{CloseReason, ConnectFailure, EndCode, HeldOutcome, RefuseReason, Symptom};
pub use session_record::{
    ArrivedClient, ClosedSession, Detail, FirstWords, SessionLog, SessionRecord,
};
pub use snapshot::{
    AcceptProxy, Backend, Group, HashPlan, HashedWords, Limit, Listener, Pool, RefusalText,
    Routing, Snapshot, Sticky,
};
pub use source::{Source, SourcePort, SourceRule, Sources, Spill};
pub use stats::{
    BackendCounters, CONNECT_SECONDS, Counter, Direction, Gauge, Histogram, HistogramSums,
    LimitCounters, LimitDecision, LimitState, ListenerCounters, ListenerState, PathKind,
    QUEUE_SECONDS, SESSION_SECONDS, WorkerState,
};
pub use tally::{AdminState, Tally};
pub use waiting::{Callable, Waiting, WaitingLine};
