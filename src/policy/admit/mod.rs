//! Who may come in, and what a client that is turned away is told.
//!
//! [`access`] asks the lists of networks; [`admission`] asks every limit of a listener, cheapest
//! first: the client's rate and concurrent sessions in a [`limiter`] (rows of a [`table`], each a
//! [`bucket`] or a [`window`], measured by a [`meter`]) and the rate of all clients together in a
//! [`shared_rate`]. [`request_start`] reads as much of a request as an answer needs, and
//! [`http_answer`] writes that answer.

pub mod access;
pub mod admission;
pub mod bucket;
pub mod http_answer;
pub mod limiter;
pub mod meter;
pub mod request_start;
pub mod shared_rate;
pub mod table;
pub mod window;
