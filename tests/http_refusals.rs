//! A refused client that speaks HTTP gets an answer it can read, whatever it is doing at that
//! moment; one that speaks another protocol is closed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, read_all};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// An answer as a client of HTTP/1.1 reads it from a connection that is then closed.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    #[track_caller]
    fn number(&self, name: &str) -> u64 {
        let field = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        field.unwrap_or_else(|| panic!("no {name} in {}", self.head)).parse().unwrap()
    }
}

/// Sends a request and reads to the end; a reset fails the test.
#[track_caller]
fn ask(address: SocketAddr, request: &[u8]) -> Answer {
    let mut client = connect(address);
    client.write_all(request).unwrap();
    Answer::of(&read_all(&mut client).unwrap())
}

/// A proxy whose clients have used up their rate, and the session that did.
fn over_its_rate(keys: &str) -> (Proxy, Backend) {
    let backend = Backend::named("hello");
    let limit = format!("rate = \"1/h\"\nburst = 1\n{keys}");
    let proxy = Setup::of(&[&backend]).listener("protocol = \"http\"").limit(&limit).start();
    assert_eq!(support::visit(proxy.address()), "hello");
    (proxy, backend)
}

fn outcome(proxy: &Proxy, outcome: &str, count: u32) {
    let labels = [("listener", "front"), ("outcome", outcome)];
    proxy.wait_for_metric("evenkeel_refusal_outcomes_total", &labels, count.into());
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

// If this fails, a client over its rate does not learn it, or not when to come again.
#[test]
fn over_its_rate_a_client_is_told_when_to_come_again() {
    let backend = Backend::named("hello");
    let limit = "rate = \"6/min\"\nburst = 2";
    let proxy = Setup::of(&[&backend]).listener("protocol = \"http\"").limit(limit).start();
    for _ in 0..2 {
        assert_eq!(support::visit(proxy.address()), "hello");
    }
    let before = unix_now();
    let answer = ask(proxy.address(), GET);
    let after = unix_now();
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer:?}");
    assert_eq!(answer.number("Content-Length"), answer.body.len() as u64);
    assert!(answer.head.contains("\r\nConnection: close"), "{answer:?}");
    // One more after ten seconds, both after twenty; as many seconds earlier as the test is slow.
    let retry = answer.number("Retry-After");
    assert!((1..=10).contains(&retry), "{answer:?}");
    for name in ["X-RateLimit", "RateLimit"] {
        assert_eq!(answer.number(&format!("{name}-Limit")), 2);
        assert_eq!(answer.number(&format!("{name}-Remaining")), 0);
    }
    let reset = answer.number("RateLimit-Reset");
    assert_eq!(reset, retry + 10, "{answer:?}");
    let moment = answer.number("X-RateLimit-Reset");
    assert!((before + reset..=after + reset + 1).contains(&moment), "{answer:?}");
    outcome(&proxy, "answered", 1);
    let lines = proxy.wait_for_session_lines(3);
    let line = lines.iter().find(|line| line["term"] == "PR").unwrap();
    assert_eq!(line["reason"], "client over its rate (answered)");
    let length = answer.head.len() + 4 + answer.body.len();
    assert_eq!(line["bytes_to_client"], length);
    proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", "limit")], 1.0);
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 0.0);
}

// If this fails, the answer names another limit than the one that the client met.
#[test]
fn each_limit_tells_its_own_number() {
    let backend = Backend::named("hello");
    for (limit, number, reason) in [
        ("max_concurrent = 3", 3, "concurrent"),
        ("listener_rate = \"3/h\"", 3, "listener_rate"),
        ("algorithm = \"fixed-window\"\nrate = \"3/h\"", 3, "limit"),
        ("algorithm = \"sliding-window\"\nrate = \"3/d\"", 3, "limit"),
    ] {
        let proxy = Setup::of(&[&backend]).listener("protocol = \"http\"").limit(limit).start();
        let open: Vec<TcpStream> = (0..3)
            .map(|_| {
                let mut client = connect(proxy.address());
                assert_eq!(support::read_line(&mut client).unwrap(), "hello");
                client
            })
            .collect();
        let answer = ask(proxy.address(), GET);
        assert_eq!((answer.status, answer.number("X-RateLimit-Limit")), (429, number), "{limit}");
        assert!(answer.number("Retry-After") >= 1, "{answer:?}");
        let labels = [("reason", reason)];
        proxy.wait_for_metric("evenkeel_listener_refused_total", &labels, 1.0);
        drop(open);
    }
}

// If this fails, a request that comes in pieces is not answered, or before it is whole.
#[test]
fn a_head_in_pieces_is_answered_once_it_is_whole() {
    let (proxy, _backend) = over_its_rate("");
    let mut client = connect(proxy.address());
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    for byte in &request[..request.len() - 1] {
        client.write_all(&[*byte]).unwrap();
    }
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let early = client.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock, "{early}");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&request[request.len() - 1..]).unwrap();
    assert_eq!(Answer::of(&read_all(&mut client).unwrap()).status, 429);
}

// If this fails, a client that sends much or many requests sees a reset instead of the answer.
#[test]
fn uploads_and_pipelines_see_the_answer_and_no_reset() {
    let (proxy, _backend) = over_its_rate("");
    let upload = |size: usize| {
        let mut bytes =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + size, b'u');
        bytes
    };
    let upgrades = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n".to_vec();
    for request in [GET.repeat(200), upload(1 << 20), upgrades, upload(4 << 20)] {
        let mut client = connect(proxy.address());
        // All of it first, as many clients do.
        client.write_all(&request).unwrap();
        let answer = Answer::of(&read_all(&mut client).unwrap());
        assert_eq!(answer.status, 429);
        assert_eq!(answer.body.matches("HTTP/").count(), 0, "one answer, not one for each");
    }
    outcome(&proxy, "answered", 4);
}

// If this fails, a client that keeps its connection open keeps a place for ever.
#[test]
fn a_client_that_does_not_close_is_let_go() {
    let (proxy, _backend) = over_its_rate("");
    let mut client = connect(proxy.address());
    client.write_all(GET).unwrap();
    assert_eq!(Answer::of(&read_all(&mut client).unwrap()).status, 429);
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 0.0);
    outcome(&proxy, "answered", 1);
}

// If this fails, an answer to HEAD has a body, which the client takes for its next answer.
#[test]
fn head_gets_no_body() {
    let (proxy, _backend) = over_its_rate("");
    let answer = ask(proxy.address(), b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (429, ""));
    assert!(answer.number("Content-Length") > 0);
}

// If this fails, a client of another protocol gets an answer it cannot read, or hangs.
#[test]
fn what_is_not_http_is_closed() {
    let (proxy, _backend) = over_its_rate("");
    let cases: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0; 200_000],
    ];
    for bytes in cases {
        let mut client = connect(proxy.address());
        client.write_all(bytes).unwrap();
        assert_eq!(read_all(&mut client).unwrap(), b"", "{} bytes", bytes.len());
    }
    // Half a request and the end.
    let mut client = connect(proxy.address());
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"");
    outcome(&proxy, "not_http", 5);
    outcome(&proxy, "answered", 0);
}

// If this fails, a client that sends its head slowly, or nothing, keeps a place as long as it
// likes.
#[test]
fn a_slow_head_is_bounded_in_time_and_size() {
    let (proxy, _backend) = over_its_rate("");
    let mut slow = connect(proxy.address());
    slow.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    let mut silent = connect(proxy.address());
    let began = Instant::now();
    assert_eq!(Answer::of(&read_all(&mut slow).unwrap()).status, 429);
    assert_eq!(read_all(&mut silent).unwrap(), b"");
    assert!(began.elapsed() > Duration::from_millis(2_900), "{:?}", began.elapsed());
    let mut endless = b"GET / HTTP/1.1\r\nCookie: ".to_vec();
    endless.resize(200_000, b'c');
    assert_eq!(ask(proxy.address(), &endless).status, 429);
    drop((slow, silent));
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 0.0);
}

// If this fails, clients take an outage for a broken network.
#[test]
fn without_a_backend_the_answer_is_503() {
    let backend = Backend::refusing();
    let proxy = Setup::of(&[&backend]).listener("protocol = \"http\"").start();
    for (request, has_body) in [(GET, true), (b"HEAD / HTTP/1.1\r\n\r\n", false)] {
        let answer = ask(proxy.address(), request);
        assert_eq!((answer.status, answer.body.is_empty()), (503, !has_body));
        assert!(answer.number("Retry-After") >= 1);
        assert!(!answer.head.contains("RateLimit"), "{answer:?}");
    }
    // Here the head came before the connect failed, or after.
    let mut client = connect(proxy.address());
    for piece in GET.chunks(7) {
        client.write_all(piece).unwrap();
    }
    assert_eq!(Answer::of(&read_all(&mut client).unwrap()).status, 503);
    proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", "no_backend")], 3.0);
    proxy.wait_for_sessions(0);
    drop(client);
    let lines = proxy.wait_for_session_lines(3);
    for line in &lines {
        assert_eq!((line["term"].as_str(), line["pool"].as_str()), (Some("SC"), Some("back")));
        assert!(line["bytes_to_client"].as_u64().unwrap() > 100, "{line}");
    }
    // Drained, there is not even an attempt.
    proxy.tell("back/b1", "drain");
    assert_eq!(ask(proxy.address(), GET).status, 503);
}

// If this fails, a full proxy resets clients it could tell to come again.
#[test]
fn full_the_answer_is_503() {
    let backend = Backend::named("hello");
    for (setup, reason) in [
        (Setup::of(&[&backend]).listener("max_sessions = 1"), "max_sessions"),
        (Setup::of(&[&backend]).backend(1, "max_sessions = 1"), "no_backend"),
    ] {
        let proxy = setup.listener("protocol = \"http\"").start();
        let mut open = connect(proxy.address());
        assert_eq!(support::read_line(&mut open).unwrap(), "hello");
        assert_eq!(ask(proxy.address(), GET).status, 503);
        proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", reason)], 1.0);
    }
}

/// How a connection ends for a client that sends a request.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Reset,
    Closed,
    Answered,
}

fn end(address: SocketAddr) -> End {
    let Ok(mut client) = support::try_connect(address) else { return End::Reset };
    let _may_be_late = client.write_all(GET);
    match read_all(&mut client) {
        Ok(bytes) if bytes.is_empty() => End::Closed,
        Ok(_) => End::Answered,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
        Err(error) => panic!("{error}"),
    }
}

// If this fails, an action does something else than the manual says of it.
#[test]
fn each_action_does_what_it_says_under_either_protocol() {
    let backend = Backend::named("hello");
    for (protocol, action, expected) in [
        ("http", "", End::Answered),
        ("http", "action = \"reply\"", End::Answered),
        ("http", "action = \"close\"", End::Closed),
        ("http", "action = \"reset\"", End::Reset),
        ("tcp", "", End::Reset),
        ("tcp", "action = \"reply\"", End::Closed),
    ] {
        let deny = "deny = [\"127.0.0.9/32\"]\nkernel_refusal = \"off\"";
        let proxy = Setup::of(&[&backend])
            .listener(&format!("protocol = \"{protocol}\"\n{deny}"))
            .limit(&format!("rate = \"1/h\"\n{action}"))
            .start();
        assert_eq!(support::visit(proxy.address()), "hello");
        assert_eq!(end(proxy.address()), expected, "{protocol} {action}");
        // A client that may not connect at all is told nothing.
        let denied = support::connect_from(("127.0.0.9".parse().unwrap(), 0), proxy.address());
        let denied = denied.and_then(|mut client| read_all(&mut client));
        assert_eq!(denied.unwrap_err().kind(), ErrorKind::ConnectionReset, "{protocol} {action}");
    }
}

// If this fails, refusals that are held take all descriptors, or are dropped without a trace.
#[test]
fn no_more_are_held_than_there_is_room_for() {
    let backend = Backend::named("hello");
    // An eighth of the sessions: two.
    let proxy = Setup::of(&[&backend])
        .global("max_sessions = 16")
        .listener("protocol = \"http\"")
        .limit("rate = \"1/h\"")
        .start();
    assert_eq!(support::visit(proxy.address()), "hello");
    let waiting: Vec<TcpStream> = (0..2)
        .map(|count| {
            let client = connect(proxy.address());
            proxy.wait_for_metric("evenkeel_refusals_held", &[], f64::from(count + 1));
            client
        })
        .collect();
    assert_eq!(end(proxy.address()), End::Reset);
    outcome(&proxy, "no_room", 1);
    drop(waiting);
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 0.0);
    assert_eq!(end(proxy.address()), End::Answered);
}

// If this fails, a stop or a reload hangs on clients that were refused, or resets their answers.
#[test]
fn a_stop_and_a_reload_let_held_refusals_end() {
    let (mut proxy, backend) = over_its_rate("");
    let mut partial = connect(proxy.address());
    partial.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut silent = connect(proxy.address());
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 2.0);
    // The listener is another one now; a client refused before is still answered.
    let setup = Setup::of(&[&backend]).listener("protocol = \"tcp\"");
    proxy.reload_with(&setup.text());
    partial.write_all(b"Host: a\r\n\r\n").unwrap();
    assert_eq!(Answer::of(&read_all(&mut partial).unwrap()).status, 429);
    drop(partial);
    proxy.signal(Signal::TERM);
    assert_eq!(read_all(&mut silent).unwrap(), b"");
    drop(silent);
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
    assert_eq!(proxy.session_lines().len(), 3, "{}", proxy.said());
}

// If this fails, a client kept waiting takes a backend, is told something, or waits for ever.
#[test]
fn a_tarpit_keeps_silent_and_lets_go_of_a_client_that_leaves() {
    let (proxy, backend) = over_its_rate("action = \"tarpit\"");
    let accepted = backend.accepted();
    let mut client = connect(proxy.address());
    client.write_all(GET).unwrap();
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 1.0);
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let silence = client.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock, "{silence}");
    proxy.wait_for_sessions(0);
    assert_eq!(backend.accepted(), accepted);
    drop(client);
    outcome(&proxy, "left", 1);
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 0.0);
    let lines = proxy.wait_for_session_lines(2);
    assert!(lines.iter().any(|line| line["term"] == "CT"), "{lines:#?}");
}

// If this fails, a client kept waiting holds its connection for longer than it may.
#[test]
fn a_tarpit_ends_in_a_reset() {
    let (proxy, _backend) = over_its_rate("action = \"tarpit\"");
    let mut client = connect(proxy.address());
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let began = Instant::now();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
    outcome(&proxy, "tarpitted", 1);
    let lines = proxy.wait_for_session_lines(2);
    let line = lines.iter().find(|line| line["term"] == "PT").unwrap();
    assert_eq!(line["reason"], "client over its rate (kept waiting)");
}

// If this fails, a change of mind or a stop leaves clients waiting.
#[test]
fn a_tarpit_is_given_up_when_the_listener_changes_or_ends() {
    let backend = Backend::named("hello");
    let setup = |action: &str| {
        let limit = format!("rate = \"1/h\"\naction = \"{action}\"");
        Setup::of(&[&backend]).limit(&limit)
    };
    let mut proxy = setup("tarpit").start();
    assert_eq!(support::visit(proxy.address()), "hello");
    let reset = |mut client: TcpStream| {
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    };
    let client = connect(proxy.address());
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 1.0);
    // Another change of the same listener is none of its business.
    proxy.reload_with(&setup("tarpit").pool("retries = 1").text());
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 1.0);
    proxy.reload_with(&setup("reset").text());
    reset(client);
    outcome(&proxy, "given_up", 1);
    proxy.reload_with(&setup("tarpit").text());
    let client = connect(proxy.address());
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 1.0);
    proxy.signal(Signal::TERM);
    reset(client);
    assert_eq!(proxy.wait_for_exit().code(), Some(0));
}

// If this fails, waiting clients keep others out when descriptors run out.
#[test]
fn held_refusals_give_way_when_descriptors_run_out() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let (proxy, _backend) = over_its_rate("action = \"tarpit\"");
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| connect(proxy.address())).collect();
    proxy.wait_for_metric("evenkeel_refusals_held", &[], 20.0);
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let open = proxy.descriptors();
    let bound = |current| {
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    };
    bound(Some(open as u64));
    eventually("the waiting are given up", PATIENCE, || {
        // They stay: what ended after the bound was set has left numbers below it to use up.
        waiting.extend(support::try_connect(proxy.address()));
        (proxy.descriptors() < open - 10).then_some(())
    });
    bound(maximum);
    let labels = [("outcome", "given_up")];
    assert!(proxy.metric("evenkeel_refusal_outcomes_total", &labels) > 19.5);
    drop(waiting);
}

// If this fails, an admitted client is turned away for want of a descriptor that a refused one has.
#[test]
fn held_refusals_give_way_to_a_connect() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let backend = Backend::named("hello");
    let limit = "rate = \"1/h\"\nburst = 1\naction = \"tarpit\"";
    let proxy = Setup::of(&[&backend]).limit(limit).start();
    let at_start = proxy.descriptors();
    // The bound below is one of numbers, not of how many are open: what ends after the waiting have
    // come would leave a number free below theirs.
    let only_waiting = |count: usize| {
        eventually("nothing else is open", PATIENCE, || {
            (proxy.descriptors() == at_start + count).then_some(())
        });
    };
    assert_eq!(support::visit(proxy.address()), "hello");
    only_waiting(0);
    let waiting: Vec<TcpStream> = (0..20).map(|_| connect(proxy.address())).collect();
    only_waiting(waiting.len());
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let bound = |current| {
        prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap();
    };
    // Room to accept one more client, and none for its backend.
    let open = |number: &u64| Path::new(&format!("/proc/{}/fd/{number}", proxy.pid())).exists();
    bound((0..).filter(|number| !open(number)).nth(1));
    let other = (std::net::Ipv4Addr::new(127, 0, 0, 9).into(), 0);
    let mut client = support::connect_from(other, proxy.address()).unwrap();
    let greeting = support::read_line(&mut client);
    bound(maximum);
    assert_eq!(greeting.unwrap(), "hello");
    outcome(&proxy, "given_up", 20);
    drop(waiting);
}
