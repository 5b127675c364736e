//! What the first bytes of a connection say, and where that leads.
//!
//! [`proxy_header`] names the client behind a proxy, [`client_hello`] the server that a TLS client
//! wants, [`request_head`] a field of an HTTP request, [`mqtt`] and [`rdp`] a device or a user;
//! [`postgres`] tells how its clients ask for TLS. [`route`] chooses a pool by them.
//! [`request_start`] reads as much of a request as the answer to it depends on.

pub mod client_hello;
pub mod mqtt;
pub mod postgres;
pub mod proxy_header;
pub mod rdp;
pub mod request_head;
pub mod request_start;
pub mod route;
