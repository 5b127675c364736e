//! Which backend a client gets where more than its address or its turn counts: latency, load, age.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use support::{Backend, Setup, served_by};

// If this fails, clients go on waiting for a backend that takes long, or that refuses.
#[test]
fn least_latency_avoids_who_makes_clients_wait() {
    for silent in [Backend::unanswering(), Backend::refusing()] {
        let backends = [silent, Backend::named("b2")];
        let proxy = Setup::of(&[&backends[0], &backends[1]])
            .global("workers = 2")
            .pool("balance = \"least-latency\"\nconnect_timeout = \"1s\"")
            .start();
        for _ in 0..60 {
            assert_eq!(served_by(proxy.address()).unwrap(), "b2");
        }
        // Sixty draws that never try the first: once in 2^60 runs.
        let failures = proxy.metric("evenkeel_backend_connect_failures_total", &[]);
        assert!((0.5..1.5).contains(&failures), "{failures} clients were sent there");
        let latency =
            |backend| proxy.metric("evenkeel_backend_latency_seconds", &[("backend", backend)]);
        assert!(latency("b1") > latency("b2") && latency("b2") > 0.0);
    }
}
