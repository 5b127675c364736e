//! Refused clients that are held apart from sessions, to be answered or kept waiting (ADR 0028).
//!
//! [`client`] is one of them, [`table`] all of a worker's, [`room`] what happens to them.

pub(super) mod client;
pub(super) mod room;
pub(super) mod table;
