//! Pure decisions. Nothing here reads a clock, a socket, the environment or a random source: the
//! time, seeds and random numbers come in as arguments, so every decision can be replayed.
//!
//! The map: who may come in ([`access`], [`limiter`] over [`bucket`] and [`table`]), which backend
//! serves ([`maglev`] over [`hash`], [`round_robin`], [`least_connections`], [`panic_mode`]), and
//! what is believed of a backend ([`health`], [`backoff`]). It imports nothing else of the crate.

/// Networks that may connect, may not, or are exempt.
pub mod access;
/// When to try again, and how to keep many from doing so at once.
pub mod backoff;
/// One token bucket as one number.
pub mod bucket;
/// The stable hash that every node agrees on.
pub mod hash;
/// Rise/fall verdict for one backend.
pub mod health;
/// The backend with the fewest sessions for its weight.
pub mod least_connections;
/// Per-client rate and concurrency, for all workers together.
pub mod limiter;
/// Consistent hashing of clients to backends.
pub mod maglev;
/// When too few backends are healthy to believe the probes.
pub mod panic_mode;
/// Smooth weighted round-robin.
pub mod round_robin;
mod sync;
/// Fixed-size lock-free table of small per-key states.
pub mod table;
