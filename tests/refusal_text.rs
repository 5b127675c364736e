//! What an operator has refused clients told: fields of an HTTP answer, and bytes for everything
//! else, which arrive whatever the client sends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use support::admin::is_same;
use support::{Backend, Proxy, Setup, connect, read_all, try_connect};

const BUSY: &str = "421 4.7.0 too busy\r\n";

/// A listener whose only connection an hour has been made.
fn over_its_rate(backend: &Backend, keys: &str) -> Proxy {
    let refusal = "[listener.front.refusal]\nbytes = '421 4.7.0 too busy\\r\\n'\n";
    let limit = format!("rate = \"1/h\"\n{keys}");
    let proxy = Setup::of(&[backend]).limit(&limit).also(refusal).start();
    connect(proxy.address()).read_exact(&mut [0]).unwrap();
    proxy
}

// If this fails, a mail server that is over its rate sees a broken connection instead of an answer.
#[test]
fn a_client_is_told_before_it_has_said_anything() {
    let backend = Backend::named("220 hello");
    let proxy = over_its_rate(&backend, "");
    let mut client = connect(proxy.address());
    assert_eq!(read_all(&mut client).unwrap(), BUSY.as_bytes());
    drop(client);
    let labels = [("outcome", "answered")];
    proxy.wait_for_metric("evenkeel_refusal_outcomes_total", &labels, 1.0);
    let line = proxy.wait_for_session_lines(2).pop().unwrap();
    assert_eq!(line["bytes_to_client"], BUSY.len());
    assert_eq!(line["limit"], "default");
}

// If this fails, a client that speaks at once loses the answer to a reset.
#[test]
fn a_client_that_talks_reads_the_answer_and_sees_no_reset() {
    let backend = Backend::named("hello");
    let proxy = over_its_rate(&backend, "");
    for length in [1, 50_000, 4_000_000] {
        let mut client = connect(proxy.address());
        let mut sending = client.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let sent = sending.write_all(&vec![b'x'; length]);
            sent.and_then(|()| sending.shutdown(Shutdown::Write))
        });
        assert_eq!(read_all(&mut client).unwrap(), BUSY.as_bytes(), "{length}");
        sender.join().unwrap().unwrap();
    }
}

// If this fails, an action that is written is not obeyed because there is something to say.
#[test]
fn another_action_is_still_obeyed() {
    let backend = Backend::named("hello");
    let proxy = over_its_rate(&backend, "action = \"reset\"");
    // The reset may come as early as the connect.
    let met = try_connect(proxy.address()).and_then(|mut client| client.read(&mut [0]));
    assert_eq!(met.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let proxy = over_its_rate(&backend, "action = \"close\"");
    assert_eq!(read_all(&mut connect(proxy.address())).unwrap(), b"");
}

// If this fails, a client that finds no backend or no room is reset although there is an answer.
#[test]
fn without_a_backend_or_a_place_the_client_is_told_as_well() {
    let backend = Backend::refusing();
    let refusal = "[listener.front.refusal]\nbytes = '\\x20\\x02\\0\\x03'\n";
    let proxy = Setup::of(&[&backend]).also(refusal).start();
    assert_eq!(read_all(&mut connect(proxy.address())).unwrap(), [0x20, 2, 0, 3]);
    let backend = Backend::named("hello");
    let full = Setup::of(&[&backend]).listener("max_sessions = 1").also(refusal);
    let proxy = full.start();
    let mut first = connect(proxy.address());
    first.read_exact(&mut [0]).unwrap();
    assert_eq!(read_all(&mut connect(proxy.address())).unwrap(), [0x20, 2, 0, 3]);
    let refused = proxy.metric("evenkeel_listener_refused_total", &[("reason", "max_sessions")]);
    assert!(is_same(refused, 1.0), "{refused}");
}

// If this fails, a client that never reads or never closes keeps its place for ever.
#[test]
fn a_client_that_does_not_close_is_let_go() {
    let backend = Backend::named("hello");
    let proxy = over_its_rate(&backend, "");
    let client = connect(proxy.address());
    let labels = [("outcome", "answered")];
    proxy.wait_for_metric("evenkeel_refusal_outcomes_total", &labels, 1.0);
    drop(client);
}

// If this fails, a browser hides a refusal from the page that has to show it.
#[test]
fn an_http_answer_has_the_fields_of_the_operator() {
    let backend = Backend::named("hello");
    let refusal = "[listener.front.refusal]\n\
                   headers = [\"Access-Control-Allow-Origin: *\", \"X-Why:  full \"]\n";
    let setup = Setup::of(&[&backend]).listener("protocol = \"http\"").limit("rate = \"1/h\"");
    let proxy = setup.also(refusal).start();
    connect(proxy.address()).read_exact(&mut [0]).unwrap();
    let mut client = connect(proxy.address());
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let answer = String::from_utf8(read_all(&mut client).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for field in ["Access-Control-Allow-Origin: *", "X-Why: full", "Connection: close"] {
        assert!(head.lines().any(|line| line == field), "{field} in {head}");
    }
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
}
