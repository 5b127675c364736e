//! What the first bytes of a connection say, and where that leads.
//!
//! [`proxy_header`] names the client behind a proxy, [`client_hello`] the server that a TLS client
//! wants, [`request_head`] a field of an HTTP request; [`route`] chooses a pool by them.
//! [`request_start`] reads as much of a request as the answer to it depends on.

pub mod client_hello;
pub mod proxy_header;
pub mod request_head;
pub mod request_start;
pub mod route;
