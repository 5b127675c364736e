//! How fast: the bytes of a session ([`pacer`]), a worker that waits busily ([`spin`]), and which
//! worker takes a new session ([`handover`]).

pub mod handover;
pub mod pacer;
pub mod spin;
