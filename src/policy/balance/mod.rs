//! Which backend serves a session, and from which of our addresses it is connected.
//!
//! [`maglev`] hashes consistently over [`hash`], the function that every node agrees on;
//! [`round_robin`], [`least_connections`], [`least_latency`] and [`random`] choose by turn, load,
//! waiting time or chance. [`bounded_load`] and [`slow_start`] limit what one backend gets,
//! [`sticky`] remembers the backend that a client had, and [`panic_mode`] says when too few
//! backends are healthy to believe the verdicts. [`source`] chooses the address to connect from.

pub mod bounded_load;
pub mod hash;
pub mod least_connections;
pub mod least_latency;
pub mod maglev;
pub mod panic_mode;
pub mod random;
pub mod round_robin;
pub mod slow_start;
pub mod source;
pub mod sticky;
