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
mod backend;
mod bandwidth;
mod between;
mod bind;
mod bounds;
mod by_key;
mod cells;
mod companions;
mod difference;
mod entries;
mod file;
mod gate;
mod hash;
mod health;
mod http_probe;
mod keepalive;
mod key;
mod key_path;
mod leave;
mod limit;
mod lints;
mod listener;
mod load;
mod log;
mod model;
mod name;
mod named_pool;
mod nat64;
mod network;
mod outlier;
mod parse;
mod payload;
mod peek;
mod pool;
mod prefix;
mod problem;
mod process;
mod queue;
mod refusal;
mod report;
mod route;
mod scalar;
mod schema;
mod size;
mod source;
mod spots;
mod steps;
mod sticky;
mod suggest;
mod tls_probe;
mod tlvs;
mod unix;
mod unknown;
mod without_port;

pub use crate::policy::address_range::AddressRange;
pub use crate::policy::balance::BalanceAlgorithm;
pub use crate::policy::balance::hash::Prefix;
pub use crate::policy::first_bytes::proxy_header::ProxyVersion;
pub use crate::policy::terms::{
    Address, Keepalive, KernelRefusal, LimitAction, Protocol, Queue, SpliceMode,
};
pub use accept_proxy::AcceptProxyConfig;
pub(crate) use address::is_in_the_way;
pub use backend::BackendConfig;
pub use difference::{Difference, differences};
pub use gate::{access_obstacle, gate_obstacle};
pub use hash::HashKey;
pub use health::{Health, Probe, ProbeTls};
pub use key_path::KeyPath;
pub use leave::{LeaveConfig, pace};
pub use limit::{LimitAlgorithm, LimitConfig};
pub use listener::ListenerConfig;
pub use load::{load, load_once};
pub use log::{Log, LogFormat, LogLevel, LogTarget};
pub use model::Config;
pub use parse::{Parsed, admin_socket, parse};
pub(crate) use payload::escaped;
pub use pool::PoolConfig;
pub use problem::{Problem, Severity, render};
pub use process::{Admin, Global};
pub use refusal::RefusalConfig;
pub use route::RouteConfig;
pub use schema::schema;
pub use sticky::StickyConfig;
pub use tls_probe::Trust;
pub use units::EventRate;
