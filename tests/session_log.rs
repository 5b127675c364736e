//! Which sessions the log has lines for, and what a line says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use rustix::process::Signal;
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, read_line, visit};

/// A session that ends in order.
fn succeed(proxy: &Proxy) {
    assert_eq!(visit(proxy.address()), "b1");
    proxy.wait_for_sessions(0);
}

/// A client that is turned away: no backend of the second listener can be reached.
fn fail(proxy: &Proxy) {
    let mut client = connect(proxy.addresses()[1]);
    read_line(&mut client).unwrap_err();
}

fn setup(backend: &Backend, log: &str) -> Setup {
    let refusing = Backend::refusing();
    Setup::of(&[backend]).global(&format!("log = {{ {log} }}")).also(&format!(
        "[listener.nowhere]\nbind = [\"127.0.0.1:0\"]\npool = \"empty\"\n\
         [pool.empty]\nconnect_timeout = \"1s\"\nbackends = [\"{}\"]",
        refusing.address()
    ))
}

fn listeners(lines: &[serde_json::Value]) -> Vec<&str> {
    lines.iter().map(|line| line["listener"].as_str().unwrap()).collect()
}

// If this fails, `failed` writes a line for each session, or none for a client that was refused.
#[test]
fn only_what_failed_is_logged_on_request() {
    let backend = Backend::named("b1");
    let proxy = setup(&backend, "sessions = 'failed'").start();
    succeed(&proxy);
    fail(&proxy);
    succeed(&proxy);
    fail(&proxy);
    let lines = proxy.wait_for_session_lines(2);
    assert_eq!(listeners(&lines), ["nowhere"; 2]);
}

// If this fails, a sample hides what failed, or a reload does not change it.
#[test]
fn a_sample_leaves_out_sessions_that_ended_in_order() {
    let backend = Backend::named("b1");
    let config = setup(&backend, "sample = 4_000_000_000").text();
    let proxy = Proxy::start(&config);
    (0..5).for_each(|_| succeed(&proxy));
    fail(&proxy);
    assert_eq!(listeners(&proxy.wait_for_session_lines(1)), ["nowhere"]);
    proxy.reload_with(&config.replace("4_000_000_000", "1"));
    succeed(&proxy);
    assert_eq!(listeners(&proxy.wait_for_session_lines(2)), ["nowhere", "front"]);
}

// If this fails, the checks of a balancer in front fill the log, or a session with bytes has no
// line.
#[test]
fn silent_sessions_are_left_out_on_request() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).global("log = { silent = false }").start();
    for _ in 0..3 {
        drop(connect(proxy.address()));
    }
    proxy.wait_for_metric("evenkeel_backend_sessions_total", &[], 3.0);
    proxy.wait_for_sessions(0);
    let mut client = connect(proxy.address());
    client.write_all(b"word\n").unwrap();
    assert_eq!(read_line(&mut client).unwrap(), "word");
    drop(client);
    let lines = proxy.wait_for_session_lines(1);
    assert_eq!(lines[0]["bytes_to_client"], 5);
}

// If this fails, clients that were to be left out are logged, or others are not.
#[test]
fn networks_are_left_out() {
    let backend = Backend::named("b1");
    let config = setup(&backend, "except = ['127.0.0.0/8']").text();
    let proxy = Proxy::start(&config);
    succeed(&proxy);
    proxy.reload_with(&config.replace("127.0.0.0/8", "192.0.2.0/24"));
    succeed(&proxy);
    let lines = proxy.wait_for_session_lines(1);
    assert_eq!(lines[0]["session"], 2, "{lines:?}");
}

// If this fails, a line cannot be joined with the log of the backend or a capture of packets.
#[test]
fn a_line_has_both_addresses_of_both_connections() {
    let backend = Backend::named("b1");
    let config = Setup::of(&[&backend])
        .global("log = { local_addresses = true }")
        .listener("bind = [\"127.0.0.1:0\", \"0.0.0.0:0\"]");
    let proxy = config.start();
    let wildcard = proxy.addresses().iter().find(|address| address.ip().is_unspecified());
    let reached = SocketAddr::from(([127, 0, 0, 9], wildcard.unwrap().port()));
    let mut client = connect(reached);
    assert_eq!(read_line(&mut client).unwrap(), "b1");
    let own = client.local_addr().unwrap();
    drop(client);
    let line = &proxy.wait_for_session_lines(1)[0];
    assert_eq!(line["client"], own.to_string());
    assert_eq!(line["client_local"], reached.to_string());
    assert_eq!(line["bind"], wildcard.unwrap().to_string());
    assert_eq!(line["to"], backend.address().to_string());
    let from: SocketAddr = line["backend_local"].as_str().unwrap().parse().unwrap();
    assert!(from.ip().is_loopback() && from.port() != 0, "{line}");
}

/// The lines of a file that hold `words`, once there are as many.
fn lines_of(file: &Path, words: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines with {words}"), PATIENCE, || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> =
            text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

// If this fails, `to` names a file that nothing is written to, or logrotate's file stays empty.
#[test]
fn a_file_is_opened_again_when_it_was_moved() {
    let backend = Backend::named("b1");
    let room = tempfile::tempdir().unwrap();
    let [file, moved] = ["log", "log.1"].map(|name| room.path().join(name));
    let config = setup(&backend, "to = 'stderr'").text();
    let proxy = Proxy::start(&config);
    proxy.reload_with(&config.replace("'stderr'", &format!("'{}'", file.display())));
    succeed(&proxy);
    lines_of(&file, "\"event\":\"session\"", 1);
    std::fs::rename(&file, &moved).unwrap();
    succeed(&proxy);
    lines_of(&moved, "\"event\":\"session\"", 2);
    proxy.signal(Signal::USR1);
    lines_of(&file, "is open again", 1);
    succeed(&proxy);
    let line = &lines_of(&file, "\"event\":\"session\"", 1)[0];
    assert!(line.contains("\"session\":3"), "{line}");
    assert_eq!(proxy.session_lines().len(), 0, "stderr has lines, too");
    proxy.reload_with(&config);
    succeed(&proxy);
    proxy.wait_for_session_lines(1);
}

// If this fails, evenkeel runs without a log and nobody knows, or a reload that cannot log does.
#[test]
fn what_cannot_be_logged_to_is_refused() {
    let backend = Backend::named("b1");
    let nowhere = setup(&backend, "to = '/nowhere/at/all.log'").text();
    let (status, said) = Proxy::refused(&nowhere);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("cannot log to /nowhere/at/all.log"), "{said}");
    assert!(said.contains("make the directory"), "{said}");
    let proxy = Proxy::start(&setup(&backend, "sample = 1").text());
    proxy.rewrite(&nowhere);
    let answer = proxy.ask("POST", "/v1/reload", "");
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert!(answer.body.contains("cannot log to /nowhere/at/all.log"), "{}", answer.body);
    succeed(&proxy);
    proxy.wait_for_session_lines(1);
}

// If this fails, a syslog server gets lines that it cannot read, or none.
#[test]
fn a_syslog_server_gets_each_line_as_a_message() {
    let backend = Backend::named("b1");
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = setup(&backend, "to = 'stderr'").text();
    let proxy = Proxy::start(&config);
    let target = format!("'syslog:{}'", server.local_addr().unwrap());
    proxy.reload_with(&config.replace("'stderr'", &target));
    succeed(&proxy);
    let message = eventually("a session's message", PATIENCE, || {
        let mut buffer = [0; 4096];
        let count = server.recv(&mut buffer).unwrap();
        let message = String::from_utf8(buffer[..count].to_vec()).unwrap();
        message.contains(" event=session ").then_some(message)
    });
    let head: Vec<&str> = message.split(' ').take(7).collect();
    let pid = proxy.pid().to_string();
    assert_eq!(
        [head[0], head[3], head[4], head[5], head[6]],
        ["<30>1", "evenkeel", &pid, "session", "-"]
    );
    head[1].parse::<jiff::Timestamp>().unwrap();
}
