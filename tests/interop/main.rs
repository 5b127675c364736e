//! evenkeel between programs of other projects: what they notice is what users notice.
//!
//! scripts/install-test-tools.sh installs them. Each test starts its own servers in a directory of
//! its own and ends them; none needs or touches a service of the machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a helper that fails a test is part of the test"
)]

#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/mod.rs"]
mod support;

mod alerts;
mod board;
mod cuts;
mod http;
mod identity;
mod import;
mod iperf;
mod plainest;
mod postgres;
mod probes;
mod program;
mod promtool;
mod redis;
mod restart;
mod tls;
mod unit;

use std::net::SocketAddr;

/// A listener on port 0 in front of these servers, with more keys for the pool.
fn in_front_of(servers: &[SocketAddr], pool: &str) -> String {
    let backends: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    format!(
        "[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"p\"\n\
         [pool.p]\nbackends = [{}]\n{pool}\n",
        backends.join(", ")
    )
}
