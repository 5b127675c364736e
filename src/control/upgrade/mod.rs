//! The program is replaced while it serves: the process that runs starts another one and passes on
//! to it what it has.
//!
//! `packets` is what the two say to each other, `manifest` what is passed on; `predecessor` is the
//! side of the process that runs, with `program` (which binary, how started), `successor` that of
//! the new one. See docs/adr/0050-one-process-hands-over-to-the-next.md. Live sessions follow:
//! `move_out` and `move_in`, docs/adr/0054-live-sessions-change-hands.md.

pub(crate) mod latest;
pub(crate) mod manifest;
pub(crate) mod move_in;
pub(crate) mod move_out;
pub(crate) mod packets;
pub(crate) mod predecessor;
pub(crate) mod program;
pub(crate) mod report;
mod session_packet;
pub(crate) mod successor;
pub(crate) mod tables;
pub(crate) mod verdicts;
