//! Worker threads that accept connections and move their bytes.
//!
//! Each worker owns its epoll instance, its listening sockets, its sessions, timers and pipes; it
//! shares nothing with other workers but the snapshot and the atomics of [`crate::shared`]. It
//! knows nothing of tokio, TOML or files, and of HTTP only how to turn a client away. All that the
//! control plane can do is start a worker, send it a [`Command`], wake it and join it.
//!
//! The map, from the outside in: `handle` starts a `thread`, which sleeps in epoll and has a
//! [`worker`] take a turn. The worker accepts (`listening`, `handover`) and lets events set
//! latches; `sessions` runs the `life` of each [`session`], chapter by chapter, at the
//! `desk`. A session's bytes are moved by its [`stream`], its backend is chosen in `choose`,
//! refused clients that take time are `held` apart. Below lie [`slots`], [`timers`], [`clock`]
//! and the [`kernel`], which is [`linux`] or a test's. `explain` asks what decides, and takes
//! nothing.

#![deny(clippy::indexing_slicing, reason = "a panic here would end every session")]

mod bell;
mod choose;
pub mod clock;
mod command;
mod desk;
mod explain;
mod handle;
mod handover;
mod held;
pub mod kernel;
mod leaving;
mod life;
pub mod linux;
mod listening;
mod look;
mod looking;
mod make_room;
mod parked;
mod parking;
mod passed_session;
pub mod ready_queue;
pub mod session;
mod sessions;
pub mod slots;
pub mod stream;
mod thread;
pub mod timers;
mod wires;
pub mod worker;

pub use command::{Arrival, Command, Inbox, Peer, SCRATCH_BYTES, WorkerSetup};
pub use explain::{ChoiceSaid, Explanation, LimitSaid, Outcome, Question, RouteSaid};
pub use handle::WorkerHandle;
pub use linux::pipes::PipeShare;
pub use look::{
    DESCRIBED_PER_TURN, Description, SessionFilter, SessionLook, SessionShown, Sighting,
};
pub use parked::{WINDOW_SESSIONS_MAX, Window};
pub use passed_session::{ArrivedSession, PassedParticulars, PassedSession};
pub use ready_queue::TurnBounds;
pub use slots::SlotKey;
pub use stream::pacing::PassedPacing;
pub use stream::passed::PassedStream;
pub use stream::relay::passed::PassedRelay;
