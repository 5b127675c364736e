//! Pure decisions. Nothing here reads a clock, a socket, the environment or a random source: the
//! time, seeds and random numbers come in as arguments, so every decision can be replayed. It
//! imports nothing else of the crate.
//!
//! The map: who may come in (`access`, and `admission` over `limiter`, `gate`, `meter`, `bucket`,
//! `window` and `table`), what the others are told (`answerable`, `http_answer`), which backend
//! serves (`maglev` over `hash`, `bounded_load`, `slow_start`, `round_robin`, `least_connections`,
//! `least_latency`, `random`, `sticky`, `panic_mode`) on which worker (`spread`, `spin`) and from
//! which address (`source`), how fast bytes may go (`pacer`), and what is believed of a backend
//! (`health`, `outlier`, `backoff`). What the first bytes of a connection say is read by
//! `proxy_header`, `client_hello` and `request_head`; `route` chooses by it.

// Who connects: an address, or a peer on a Unix socket.
pub mod client;
// Networks that may connect, may not, or are exempt.
pub mod access;
// What a listener's limits say of one connection.
pub mod admission;
// What a client that speaks HTTP is told when it is turned away, and once it has asked.
pub mod answerable;
pub mod http_answer;
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

// Who a client is, said before its bytes; what its first bytes ask for, and where that leads.
pub mod client_hello;
pub mod proxy_header;
pub mod request_head;
pub mod route;

// Faults that tests put in.
pub mod defects;

// The stable hash that every node agrees on, and the consistent hashing built on it.
pub mod hash;
pub mod maglev;
// A bound on what one backend gets of all; a share that grows after a start.
pub mod bounded_load;
pub mod slow_start;
// The backend whose turn it is; the one with the fewest sessions for its weight, or where they wait
// least; one by chance.
pub mod least_connections;
pub mod least_latency;
pub mod random;
pub mod round_robin;
// Which worker gets a new session.
pub mod spread;
// From which address a backend is connected.
pub mod source;
// Whether to wait busily.
pub mod spin;
// How much of a stream may pass now.
pub mod pacer;
// The backend a client had before.
pub mod sticky;
// When too few backends are healthy to believe the verdicts.
pub mod panic_mode;

// Which backend fails real sessions, and for how long it is left out.
pub mod outlier;

// Rise and fall of one backend, and when to look or try again.
pub mod backoff;
pub mod health;
