//! Whether a client may come in, and what a client that is turned away is told.
//!
//! [`ban_set`] knows the networks that are banned; [`access`] asks the lists of networks;
//! [`admission`] asks every limit of a listener, cheapest first: the client's rate and concurrent
//! sessions in a [`limiter`] (words of a [`table`](super::table), each a [`bucket`] or a
//! [`window`], measured by a [`meter`]) and the rate of all clients together in a [`shared_rate`].
//! [`gate`] says what the kernel may refuse by itself, [`flat_networks`] how it is told of lists
//! and bans, [`http_answer`] writes what an HTTP client is told.

pub mod access;
pub mod admission;
pub mod ban_set;
pub mod bucket;
pub mod flat_networks;
pub(crate) mod fraction;
pub mod gate;
pub mod http_answer;
pub mod limiter;
pub(crate) mod measure;
pub mod meter;
pub mod shared_rate;
pub mod window;
