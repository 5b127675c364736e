//! Pure decisions. Nothing here reads a clock, a socket, the environment or a random source: the
//! time, seeds and random numbers come in as arguments, so every decision can be replayed. It
//! imports nothing else of the crate.
//!
//! One folder for each question: [`first_bytes`], what the first bytes of a connection say;
//! [`admit`], whether the client may come in; [`balance`], which backend serves it; [`pace`], how
//! fast its bytes may go and on which worker; [`health`], what is believed of a backend.

pub mod admit;
pub mod balance;
pub mod first_bytes;
pub mod health;
pub mod pace;

// Where a listener accepts: one address, or the ports of a range.
pub mod address_range;
// Who connects: an address, or a peer on a Unix socket.
pub mod client;
// Names with `*` and `?`, as operators write them.
pub mod glob;
// Which sessions that have ended are logged.
pub mod log_choice;
// Clients whose IPv4 address a translator has embedded in an IPv6 address.
pub mod nat64;
// Terms that the configuration writes and the planes obey, and those that hold for each session.
pub mod session_terms;
pub mod terms;
// Atomics and a mutex that loom can replace.
pub(crate) mod sync;
// A fixed amount of memory for a state per client.
pub mod table;
