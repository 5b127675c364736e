//! Pure decisions. Nothing here reads a clock, a socket, the environment or a random source: the
//! time, seeds and random numbers come in as arguments, so every decision can be replayed. It
//! imports nothing else of the crate.
//!
//! The map: who may come in (`access`, and `admission` over `limiter`, `gate`, `meter`, `bucket`,
//! `window` and `table`), what the others are told (`request_head`, `http_answer`), which backend
//! serves (`maglev` over `hash`, `round_robin`, `least_connections`, `random`, `panic_mode`) on
//! which worker (`spread`, `spin`), and what is believed of a backend (`health`, `backoff`).

// Networks that may connect, may not, or are exempt.
pub mod access;
// What a listener's limits say of one connection.
pub mod admission;
// What a client that speaks HTTP is told when it is turned away, and once it has asked.
pub mod http_answer;
pub mod request_head;
// Rate and concurrency per client, for all workers together; the rate of all clients together.
pub mod gate;
pub mod limiter;
// How a rate is measured: one bucket, one window; the table of their states.
pub mod bucket;
pub mod meter;
pub mod table;
pub mod window;
// Atomics and a mutex that loom can replace.
pub(crate) mod sync;

// Faults that tests put in.
pub mod defects;

// The stable hash that every node agrees on, and the consistent hashing built on it.
pub mod hash;
pub mod maglev;
// The backend whose turn it is; the one with the fewest sessions for its weight; one by chance.
pub mod least_connections;
pub mod random;
pub mod round_robin;
// Which worker gets a new session.
pub mod spread;
// Whether to wait busily.
pub mod spin;
// When too few backends are healthy to believe the verdicts.
pub mod panic_mode;

// Rise and fall of one backend, and when to look or try again.
pub mod backoff;
pub mod health;
