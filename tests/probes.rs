//! What probes say and hear: the real binary in front of servers with habits of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::sync::mpsc::channel;

use evenkeel::policy::first_bytes::proxy_header::parse;
use parking_lot::Mutex;
use support::backend::EarlyEnd;
use support::{Backend, PATIENCE, Setup, eventually};

/// As many probes as possible, of which each failure would be a verdict.
const OFTEN: &str = "interval = \"10ms\"\nfast_interval = \"10ms\"\ntimeout = \"5s\"\nfall = 1";

// If this fails, a responder that answers before it reads (xinetd, `nc -c`) is down now and then.
#[test]
fn an_answer_before_the_request_passes() {
    let whole: &[&str] = &["HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nup\n"];
    let parts: &[&str] = &["HTTP/1.0 200 OK\r\n", "Content-Length: 3\r\n\r\nup\n"];
    let ends = [EarlyEnd::Closes, EarlyEnd::AfterTheRequest, EarlyEnd::Reset];
    let servers = ends.map(|end| [whole, parts].map(|parts| Backend::answering_first(parts, end)));
    let servers: Vec<&Backend> = servers.iter().flatten().collect();
    let health = format!("[pool.back.health]\nprobe = \"http\"\n{OFTEN}");
    let setup = Setup::of(&servers).global("log = { level = \"debug\" }").also(&health);
    let proxy = setup.start();
    let probes = |result| {
        let metrics = proxy.metrics();
        metrics.sum("evenkeel_backend_probes_total", &[("result", result)])
    };
    eventually("1,000 probes", PATIENCE * 3, || (probes("pass") >= 1_000.0).then_some(()));
    assert!(support::admin::is_same(probes("fail"), 0.0), "{}", proxy.said());
}

// If this fails, Postfix, Apache httpd and Varnish refuse the probes of their balancer.
#[test]
fn a_probe_of_version_1_names_its_own_addresses() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::serving(move |mut stream, _| {
        let (mut header, mut byte) = (Vec::new(), [0]);
        while matches!(parse(&header), Ok(None)) {
            stream.read_exact(&mut byte)?;
            header.extend(byte);
        }
        let ends = (stream.peer_addr()?, stream.local_addr()?);
        let _test_is_over = tell.lock().send((header, ends));
        stream.write_all(b"220 ready\r\n")
    });
    let health = format!("[pool.back.health]\nprobe = \"tcp\"\n{OFTEN}");
    let _proxy = Setup::of(&[&backend]).pool("send_proxy = \"v1\"").also(&health).start();
    let (header, (source, destination)) = told.recv_timeout(PATIENCE).unwrap();
    let named = parse(&header).unwrap().unwrap().ends.unwrap();
    assert_eq!((named.source, named.destination), (source, destination));
}
