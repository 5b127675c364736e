//! The checked configuration the program runs with, and how text becomes it.
//!
//! [`Config`] is total: every default is filled in, every name resolved,
//! every value in range, so nothing that receives it has to validate again.
//! [`parse()`](crate::config::parse()) turns text into a `Config` or into the list of every
//! [`Problem`]; [`load()`] reads the file first.
//! Nothing here opens a socket.

/// Every key of the file and the tables it is valid in.
pub mod keys;
/// Durations, rates and percentages as they are written, both ways.
pub mod units;

mod accept_proxy;
mod address;
mod balance;
mod bind;
mod companions;
mod effective;
mod file;
mod health;
mod key_path;
mod limit;
mod listener;
mod load;
mod member;
mod model;
mod named_pool;
mod network;
mod outlier;
mod parse;
mod payload;
mod pool;
mod problem;
mod process;
mod report;
mod route;
mod scalar;
mod schema;
mod size;
mod source;
mod suggest;
mod tls_probe;
mod unix;
mod words;

pub use crate::policy::balance::BalanceAlgorithm;
pub use crate::policy::balance::hash::Prefix;
pub use crate::policy::first_bytes::proxy_header::ProxyVersion;
pub use crate::policy::terms::{Address, Keepalive, LimitAction, Protocol, Queue, SpliceMode};
pub(crate) use address::is_in_the_way;
pub use key_path::KeyPath;
pub use load::{load, load_once};
pub use model::*;
pub use parse::{Parsed, admin_socket, parse};
pub(crate) use payload::escaped;
pub use problem::{Problem, Severity, render};
pub use schema::schema;
