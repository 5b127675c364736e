//! The life of a session, chapter by chapter, in the order in which a session lives it.
//!
//! A chapter takes the session and the desk and answers [`next::Next`]; none has another do its
//! work. [`super::sessions`] acts on the answer.
//!
//! 1. [`arrive`]: a client was accepted; may it come in? ([`admission`]: within its limit?)
//! 2. [`read`]: what it has to say before there is a backend, where a listener wants to know.
//! 3. [`connect`]: a backend is chosen and connected ([`source`]: from which address), or another.
//! 4. [mod@line]: every backend is full; it waits for a place.
//! 5. [`greet`]: the backend gets its PROXY header.
//! 6. [`moving`]: bytes move; the backend is judged by them ([`failure_evidence`]).
//! 7. [`end`] or [`refuse`]: places are given back, and the log gets its line.

pub(super) mod admission;
pub(super) mod arrive;
pub(super) mod connect;
pub(super) mod end;
mod failure_evidence;
pub(super) mod greet;
pub(super) mod line;
pub(super) mod moving;
pub(super) mod next;
pub(super) mod read;
pub(super) mod refuse;
pub(super) mod source;
