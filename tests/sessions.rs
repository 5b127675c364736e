//! Sessions in the hands of an operator: listed, joined with both peers and the log, killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel::control::sessions::document::{SessionRow, SessionsPage};
use support::switched::{clients, echoes};
use support::verbs::{code, evenkeel, text};
use support::{Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually, read_line};

const CLOSED: &str = "evenkeel_sessions_closed_total";
const KILLED: (&str, &str) = ("reason", "killed");

/// Says in a line from which address and port it was connected, then echoes.
fn naming() -> Backend {
    Backend::serving(|mut stream, _| {
        let from = stream.peer_addr()?;
        stream.write_all(format!("{from}\n").as_bytes())?;
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        Ok(())
    })
}

fn page(proxy: &Proxy, query: &str) -> SessionsPage {
    let answer = proxy.ask("GET", &format!("/v1/sessions?{query}"), "");
    assert_eq!(answer.code, 200, "{query}: {}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// The session of a client; it is looked for until it moves bytes.
fn session_of(proxy: &Proxy, client: &TcpStream) -> SessionRow {
    let own = client.local_addr().unwrap().to_string();
    eventually(&format!("{own} is listed"), PATIENCE, || {
        let all = page(proxy, "limit=1000").sessions;
        all.into_iter().find(|session| session.client == own && session.stage == "moving")
    })
}

fn run(proxy: &Proxy, arguments: &[&str]) -> Output {
    let socket = proxy.admin_socket();
    let socket = socket.to_str().unwrap();
    evenkeel(&[arguments, &["--socket", socket]].concat())
}

fn assert_reset(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

// If this fails, a line of the list cannot be joined with the log of the backend, with a packet
// capture on either side, or with the line that the session writes at its end.
#[test]
fn a_session_is_shown_with_both_addresses_of_both_legs() {
    let backend = naming();
    let proxy = Setup::of(&[&backend]).global("workers = 2").start();
    let mut client = connect(proxy.address());
    let seen_by_backend = read_line(&mut client).unwrap();
    assert!(echoes(&mut client));
    let session = session_of(&proxy, &client);
    let own = client.local_addr().unwrap().to_string();
    let (front, back) = (proxy.address().to_string(), backend.address().to_string());
    assert_eq!((session.client_peer, session.client_local), (Some(own.clone()), Some(front)));
    assert_eq!((session.backend_local, session.backend_peer), (Some(seen_by_backend), Some(back)));
    assert_eq!(session.listener, "front");
    assert_eq!((session.pool.as_deref(), session.backend.as_deref()), (Some("back"), Some("b1")));
    assert_eq!(session.bytes_to_backend, 1);
    let shown = text(&run(&proxy, &["sessions"]).stdout);
    assert!(shown.starts_with("1 of 1 sessions, the oldest first\n"), "{shown}");
    assert!(shown.contains(&own), "{shown}");
    drop(client);
    let line = &proxy.wait_for_session_lines(1)[0];
    assert_eq!(line["session"], session.id);
}

// If this fails, an operator looks at sessions of others, or a slip in a name looks like an idle
// system.
#[test]
fn a_list_has_what_was_asked_for() {
    let backends = [naming(), naming()];
    let setup = Setup::of(&backends.iter().collect::<Vec<_>>()).pool("balance = \"round-robin\"");
    let proxy = setup.start();
    let from = |host: u8| {
        let source = IpAddr::from([127, 0, 1, host]);
        let mut client = connect_from((source, 0), proxy.address()).unwrap();
        read_line(&mut client).unwrap();
        client
    };
    let _clients: Vec<_> = (1..=4).map(from).collect();
    let total = |query: &str| page(&proxy, query).total;
    assert_eq!(total(""), 4);
    assert_eq!(total("client=127.0.1.2"), 1);
    assert_eq!(total("client=127.0.1.0/30"), 3);
    assert_eq!(total("backend=back%2Fb1"), 2);
    assert_eq!(total("backend=*%2Fb%3F&listener=fr*&pool=back"), 4);
    assert_eq!(total("backend=back%2Fb1&client=127.0.1.0/24"), 2);
    for (query, code, words) in [
        ("listener=web", 404, "no listener \"web\"; there are: front"),
        ("pool=x*", 404, "no pool \"x*\"; there are: back"),
        ("backend=b1", 404, "no backend \"b1\"; there are: back/b1, back/b2"),
        ("client=front", 400, "is no network like 192.0.2.0/24"),
        ("sort=name", 400, "there are: age, idle, bytes, rate"),
        ("limit=0", 400, "limit 0 is not in 1..=1000"),
        ("after=7", 400, "is no `next`"),
        ("order=age", 400, "unknown field"),
    ] {
        let answer = proxy.ask("GET", &format!("/v1/sessions?{query}"), "");
        assert_eq!(answer.code, code, "{query}: {}", answer.body);
        let error: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(error["error"].as_str().unwrap().contains(words), "{query}: {error}");
    }
    let failed = run(&proxy, &["sessions", "--pool", "web"]);
    assert_eq!(code(&failed), 1);
    assert!(text(&failed.stderr).contains("no pool \"web\""), "{}", text(&failed.stderr));
}

// If this fails, a list that goes over several pages has a session twice or not at all, or one page
// grows with the number of sessions.
#[test]
fn pages_follow_one_another() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).global("workers = 2").start();
    // Beyond the slots of a slice of the look, one worker has about half.
    let clients = clients(&proxy, 300);
    for order in ["age", "idle", "bytes"] {
        let (mut seen, mut query) = (Vec::new(), format!("sort={order}&limit=70"));
        let pages = loop {
            let page = page(&proxy, &query);
            assert_eq!(page.total, 300);
            assert!(page.sessions.len() <= 70);
            seen.push(page.sessions);
            match page.next {
                Some(next) => query = format!("sort={order}&limit=70&after={next}"),
                None => break seen.len(),
            }
        };
        assert_eq!(pages, 5);
        let ids: BTreeSet<u64> = seen.iter().flatten().map(|session| session.id).collect();
        assert_eq!((ids.len(), seen.iter().flatten().count()), (300, 300), "{order}");
    }
    let output = run(&proxy, &["sessions", "--json", "--most", "0"]);
    let list: SessionsPage = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((list.sessions.len(), list.next), (clients.len(), None));
}

// If this fails, the session that eats the bandwidth, or the one that has been forgotten, is
// somewhere in the middle of the list.
#[test]
fn a_list_is_in_the_order_that_was_asked_for() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let mut clients = clients(&proxy, 3);
    clients[1].write_all(&[7; 5000]).unwrap();
    clients[1].read_exact(&mut [0; 5000]).unwrap();
    assert!(echoes(&mut clients[0]));
    let own: Vec<String> =
        clients.iter().map(|client| client.local_addr().unwrap().to_string()).collect();
    let ordered = |order: &str| -> Vec<usize> {
        let rows = page(&proxy, &format!("sort={order}")).sessions;
        let place = |row: &SessionRow| own.iter().position(|own| *own == row.client).unwrap();
        rows.iter().map(place).collect()
    };
    assert_eq!(ordered("age"), [0, 1, 2]);
    assert_eq!(ordered("idle"), [2, 1, 0]);
    assert_eq!(ordered("bytes")[0], 1);
    let mut busy = clients[2].try_clone().unwrap();
    let until = Instant::now() + PATIENCE;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let traffic = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) && Instant::now() < until {
            assert!(echoes(&mut busy));
        }
    });
    let first = &page(&proxy, "sort=rate").sessions[0];
    stop.store(true, Ordering::Relaxed);
    traffic.join().unwrap();
    assert_eq!(first.client, own[2]);
    assert!(first.bytes_per_second.unwrap() > 0);
    assert_eq!(page(&proxy, "sort=age").sessions[0].bytes_per_second, None);
}

// If this fails, an operator cannot end one session, ends another one, or cannot tell later that it
// was an operator.
#[test]
fn one_session_is_killed() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).global("workers = 2").start();
    let mut clients = clients(&proxy, 3);
    let id = session_of(&proxy, &clients[1]).id.to_string();
    let output = run(&proxy, &["kill", &id]);
    assert_eq!(
        (code(&output), text(&output.stdout)),
        (0, format!("killing 1 session at once: id {id}\n"))
    );
    assert_reset(&mut clients.remove(1));
    assert!(clients.iter_mut().all(echoes));
    let line = &proxy.wait_for_session_lines(1)[0];
    assert_eq!(line["session"].to_string(), id);
    assert_eq!((&line["term"], &line["reason"]), (&"KD".into(), &"killed by an operator".into()));
    assert_eq!(proxy.metric(CLOSED, &[KILLED]), 1.0);
    let gone = run(&proxy, &["kill", &id]);
    assert_eq!(code(&gone), 1);
    assert!(text(&gone.stderr).contains(&format!("no session has id {id}")));
    let other = session_of(&proxy, &clients[0]).id;
    assert_eq!(proxy.ask("DELETE", &format!("/v1/sessions/{other}"), "").code, 200);
    assert_reset(&mut clients[0]);
}

// If this fails, an abuser keeps what he has, or others go with him; or a client that has no
// backend yet cannot be ended.
#[test]
fn the_sessions_of_a_client_are_killed_wherever_they_are() {
    let backend = Backend::echo();
    let second = "[listener.second]\nbind = [\"127.0.0.1:0\"]\npool = \"back\"\n\
                  [listener.second.accept_proxy]\nfrom = [\"127.0.0.0/8\"]";
    let proxy = Setup::of(&[&backend]).global("workers = 2").also(second).start();
    let from = |host: u8, address: SocketAddr| {
        connect_from((IpAddr::from([127, 0, 1, host]), 0), address).unwrap()
    };
    let mut abuser: Vec<_> = (0..6).map(|_| from(1, proxy.addresses()[0])).collect();
    assert!(abuser.iter_mut().all(echoes));
    // It has not said who it is: its own address is all that is known.
    abuser.push(from(1, proxy.addresses()[1]));
    let mut other = from(2, proxy.addresses()[0]);
    assert!(echoes(&mut other));
    proxy.wait_for_sessions(8);
    let output = run(&proxy, &["kill", "--client", "127.0.1.1"]);
    let said = text(&output.stdout);
    assert_eq!(said, "killing 7 sessions at once: client 127.0.1.1\n");
    abuser.iter_mut().for_each(assert_reset);
    assert!(echoes(&mut other));
    proxy.wait_for_metric(CLOSED, &[KILLED], 7.0);
    proxy.wait_for_line("killing 7 sessions at once: client 127.0.1.1");
}

// If this fails, all clients of a backend come back at one moment although they were to come one
// after the other, or a pace that was set too low by a slip goes on for hours.
#[test]
fn a_kill_has_a_pace_and_can_be_stopped() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).global("workers = 2").start();
    let mut clients = clients(&proxy, 8);
    let since = Instant::now();
    let output = run(&proxy, &["kill", "--backend", "back/b*", "--pace", "10/s"]);
    let said = text(&output.stdout);
    assert_eq!(said, "killing 8 sessions at 10/s: backend back/b*\n");
    // One that comes later stays.
    let mut later = connect(proxy.address());
    proxy.wait_for_metric(CLOSED, &[KILLED], 8.0);
    assert!(since.elapsed() >= Duration::from_millis(690), "after {:?}", since.elapsed());
    clients.iter_mut().for_each(assert_reset);
    assert!(echoes(&mut later));

    let mut clients = support::switched::clients(&proxy, 5);
    assert_eq!(code(&run(&proxy, &["kill", "--listener", "front", "--pace", "1/h"])), 0);
    proxy.wait_for_metric(CLOSED, &[KILLED], 9.0);
    let stopped = run(&proxy, &["kill", "--stop"]);
    assert_eq!(text(&stopped.stdout), "1 kill stopped\n");
    assert_eq!(text(&run(&proxy, &["kill", "--stop"]).stdout), "0 kills stopped\n");
    clients.push(later);
    let alive = clients.iter_mut().filter_map(|client| echoes(client).then_some(())).count();
    assert_eq!(alive, 5, "of six, one was killed before the stop");
}

// If this fails, a slip ends every session of the process.
#[test]
fn a_kill_has_to_name_its_sessions() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    let mut clients = clients(&proxy, 1);
    for (body, words) in [
        ("{}", "name a client, backend, pool or listener"),
        ("", "the body has to be like"),
        (r#"{"clients": "127.0.0.1"}"#, "the body has to be like"),
        (r#"{"client": "127.0.0.1", "pace": "fast"}"#, "is no rate"),
        (r#"{"client": "localhost"}"#, "is no network"),
    ] {
        let answer = proxy.ask("POST", "/v1/sessions/kill", body);
        assert_eq!(answer.code, 400, "{body}: {}", answer.body);
        assert!(answer.body.contains(words), "{body}: {}", answer.body);
    }
    for arguments in [&["kill"][..], &["kill", "x"], &["kill", "7", "--client", "::1"]] {
        assert_eq!(code(&run(&proxy, arguments)), 2, "{arguments:?}");
    }
    assert_eq!(proxy.ask("DELETE", "/v1/sessions/x", "").code, 400);
    assert!(clients.iter_mut().all(echoes));
}
