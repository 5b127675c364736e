//! The data plane between real sockets in network namespaces: bytes, endings, faults.
//!
//! Needs root and what scripts/install-test-tools.sh installs. All traffic stays in namespaces that
//! the test makes and removes; docs/reliability.md has a table of what is injected and seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails a test is part of the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod actor;
mod books;
mod clocks;
mod crowd;
mod destroyed;
mod faulty_backends;
mod faulty_calls;
mod faulty_ends;
mod faulty_links;
mod floods;
mod full_disk;
mod integrity;
mod kernel_access;
mod kernel_refusal;
mod late_address;
mod limits;
mod meddler;
mod net;
mod origins;
mod packets;
mod peer;
mod rest;
mod shuffler;
mod sources;
mod strace;
mod streams;
mod syn_flood;

/// The line of the fault matrix that a test fills in.
fn show(injected: &str, expected: &str, seen: &str) {
    println!("injected: {injected}\nexpected: {expected}\nseen: {seen}");
}
