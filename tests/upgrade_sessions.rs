//! Live sessions change hands in an upgrade: every byte of theirs, both ways, and what is known of
//! them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use evenkeel::control::sessions::document::{SessionRow, SessionsPage};
use rustix::process::Signal;
use support::stream::{receive, receive_up_to, send};
use support::upgrade::{Heir, heard_of, reaper, shown};
use support::{PATIENCE, Proxy, connect, eventually, try_connect};

/// Sessions of one kind.
const OF_A_KIND: usize = 100;
/// More than two kernels and a pipe keep for a reader that does not read.
const MUCH: u64 = 12 * 1024 * 1024;
/// Those that say so much are a few of the first.
const MUCH_BELOW: usize = 30;
/// Bytes of sessions that say little.
const LITTLE: u64 = 5_000;
/// Bytes that a paced session has left to say, and how many a second it may.
const PACED: u64 = 60_000;
const PACE: &str = "{ up = \"40KiB/s\", down = \"40KiB/s\" }";

/// A proxy with a plain listener and a paced one, and the server behind it, which this test is.
struct House {
    proxy: Proxy,
    server: TcpListener,
}

/// Both ends of a session.
struct Ends {
    client: TcpStream,
    server: TcpStream,
}

impl House {
    fn new(splice: &str) -> Self {
        Self::with(&format!("workers = 2\nsplice = \"{splice}\""), "")
    }

    fn with(global: &str, listener: &str) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let proxy = Proxy::start(&format!(
            "[global]\n{global}\n\
             [listener.front]\nbind = [\"127.0.0.1:0\"]\npool = \"back\"\n{listener}\n\
             [listener.paced]\nbind = [\"127.0.0.1:0\"]\npool = \"back\"\nbandwidth = {PACE}\n\
             [pool.back]\nbackends = [{{ address = \"{address}\", name = \"b1\" }}]\n"
        ));
        Self { proxy, server }
    }

    fn plain(&self) -> SocketAddr {
        self.proxy.addresses()[0]
    }

    /// A session through this address.
    #[track_caller]
    fn session(&self, address: SocketAddr) -> Ends {
        let client = connect(address);
        let (server, _) = self.server.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.set_write_timeout(Some(PATIENCE)).unwrap();
        Ends { client, server }
    }

    fn sessions(&self) -> BTreeMap<u64, SessionRow> {
        let answer = self.proxy.ask("GET", "/v1/sessions?limit=1000", "");
        assert_eq!(answer.code, 200, "{}", answer.body);
        let page: SessionsPage = serde_json::from_str(&answer.body).unwrap();
        page.sessions.into_iter().map(|row| (row.id, row)).collect()
    }
}

impl Ends {
    /// Says these bytes both ways, and hears them.
    #[track_caller]
    fn talk(&mut self, key: u64, length: u64) {
        self.say_to_server(key, length);
        send(&mut self.server, key, length).unwrap();
        assert_eq!(receive_up_to(&mut self.client, key, length).0, length);
    }

    #[track_caller]
    fn say_to_server(&mut self, key: u64, length: u64) {
        send(&mut self.client, key, length).unwrap();
        assert_eq!(receive_up_to(&mut self.server, key, length).0, length);
    }
}

/// A session with a state in which it changes hands, and what is left to be said.
enum Kind {
    /// Both may say more.
    Idle(Ends),
    /// The client has said all, FIN too.
    HalfClosed(Ends),
    /// The client does not read what is being sent to it.
    UnreadByClient(Ends, JoinHandle<()>),
    /// The server does not read.
    UnreadByServer(Ends, JoinHandle<()>),
    /// A bandwidth bounds it, and it waits for that.
    Paced(Ends, JoinHandle<()>),
}

/// Sends a whole stream and FIN on a thread of its own.
fn sending(stream: &TcpStream, key: u64, length: u64) -> JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    // It waits for the end of the upgrade.
    stream.set_write_timeout(None).unwrap();
    std::thread::spawn(move || {
        send(&mut stream, key, length).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

impl Kind {
    fn begun(house: &House, number: usize) -> Self {
        let key = number as u64;
        let paced = number % 5 == 4;
        let mut ends = house.session(house.proxy.addresses()[usize::from(paced)]);
        match number % 5 {
            0 => {
                ends.talk(key, LITTLE);
                Self::Idle(ends)
            }
            1 => {
                ends.say_to_server(key, LITTLE);
                ends.client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(ends.server.read(&mut [0]).unwrap(), 0);
                Self::HalfClosed(ends)
            }
            // Few, so that the kernel has room for what is not read.
            2 if number < MUCH_BELOW => {
                let sending = sending(&ends.server, key, MUCH);
                Self::UnreadByClient(ends, sending)
            }
            3 if number < MUCH_BELOW => {
                let sending = sending(&ends.client, key, MUCH);
                Self::UnreadByServer(ends, sending)
            }
            4 => {
                let sending = sending(&ends.client, key, PACED);
                Self::Paced(ends, sending)
            }
            _ => {
                ends.say_to_server(key, LITTLE);
                Self::Idle(ends)
            }
        }
    }

    /// Says the rest, both ways, and ends it.
    #[track_caller]
    fn finish(self, key: u64) {
        let (mut ends, sending) = match self {
            Self::Idle(mut ends) => {
                ends.talk(key, LITTLE);
                ends.client.shutdown(Shutdown::Write).unwrap();
                (ends, None)
            }
            Self::HalfClosed(ends) => (ends, None),
            Self::UnreadByClient(mut ends, sending) => {
                let (length, end) = receive(&mut ends.client, key);
                assert_eq!((length, end.is_ok()), (MUCH, true), "session {key}");
                sending.join().unwrap();
                send(&mut ends.client, key, LITTLE).unwrap();
                ends.client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(receive(&mut ends.server, key).0, LITTLE);
                return;
            }
            Self::UnreadByServer(mut ends, sending) => {
                assert_eq!(receive_up_to(&mut ends.server, key, MUCH).0, MUCH, "session {key}");
                (ends, Some(sending))
            }
            Self::Paced(mut ends, sending) => {
                assert_eq!(receive_up_to(&mut ends.server, key, PACED).0, PACED, "session {key}");
                (ends, Some(sending))
            }
        };
        assert_eq!(ends.server.read(&mut [0]).unwrap(), 0, "session {key}");
        send(&mut ends.server, key + 7, LITTLE).unwrap();
        ends.server.shutdown(Shutdown::Write).unwrap();
        let (length, end) = receive(&mut ends.client, key + 7);
        assert_eq!((length, end.is_ok()), (LITTLE, true), "session {key}");
        sending.into_iter().for_each(|sending| sending.join().unwrap());
    }
}

/// Five hundred sessions of every kind change hands, with bytes held in what `splice` says.
fn every_kind_changes_hands(splice: &str) {
    reaper();
    let mut house = House::new(splice);
    let kinds: Vec<Kind> = (0..5 * OF_A_KIND).map(|number| Kind::begun(&house, number)).collect();
    let held = |proxy: &Proxy| proxy.metric("evenkeel_pipes_in_use", &[]);
    if splice == "always" {
        eventually("bytes wait in pipes", PATIENCE, || (held(&house.proxy) > 4.0).then_some(()));
    }
    let before = house.sessions();
    assert_eq!(before.len(), kinds.len());

    let (heir, told) = house.proxy.upgraded();
    assert!(told.contains("500 sessions moved, 0 left, 0 lost"), "{told}");
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
    assert_eq!(house.proxy.status().pid, heir.pid());
    let after = house.sessions();
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (id, before) in &before {
        let after = &after[id];
        let what = |row: &SessionRow| {
            let SessionRow { listener, backend, client, backend_local, worker, .. } = row.clone();
            (listener, backend, client, backend_local, worker)
        };
        assert_eq!(what(after), what(before));
        assert!(after.age_ms >= before.age_ms, "{after:?} was {before:?}");
        let [is, was] = [after, before].map(|row| [row.bytes_to_backend, row.bytes_to_client]);
        let moves = before.listener == "paced" || was.iter().any(|bytes| *bytes > LITTLE);
        assert!(is == was || moves && is >= was, "{after:?} was {before:?}");
    }
    for (number, kind) in kinds.into_iter().enumerate() {
        kind.finish(number as u64);
    }
    let lines = house.proxy.wait_for_session_lines(before.len());
    let of = |line: &serde_json::Value| line["session"].as_u64().unwrap();
    let logged: BTreeSet<u64> = lines.iter().map(of).collect();
    assert_eq!((lines.len(), logged), (before.len(), before.keys().copied().collect()));
    let counted = |field: &str| -> Vec<u64> {
        let count = |line: &serde_json::Value| line[field].as_u64().unwrap();
        lines.iter().map(count).collect::<BTreeSet<_>>().into_iter().collect()
    };
    assert_eq!(counted("bytes_to_backend"), [LITTLE, 2 * LITTLE, PACED, MUCH]);
    assert_eq!(counted("bytes_to_client"), [LITTLE, 2 * LITTLE, 3 * LITTLE, MUCH]);
    heir.signal(Signal::TERM);
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
}

// If this fails, an upgrade loses, repeats or mixes up bytes that wait in a pipe, forgets a
// session, or counts it twice.
#[test]
fn sessions_with_bytes_in_pipes_change_hands() {
    every_kind_changes_hands("always");
}

// If this fails, the same of bytes that wait in a buffer.
#[test]
fn sessions_with_bytes_in_buffers_change_hands() {
    every_kind_changes_hands("never");
}

// If this fails, a session changes hands once and not again, or an old process stays.
#[test]
fn sessions_go_through_three_generations() {
    reaper();
    let mut house = House::new("auto");
    let mut kept: Vec<Ends> = (0..150).map(|_| house.session(house.plain())).collect();
    let (mut heirs, mut said): (Vec<Heir>, u64) = (Vec::new(), 0);
    for generation in 1..=3 {
        for ends in &mut kept {
            ends.talk(generation, LITTLE);
        }
        said += LITTLE;
        let (heir, told) = house.proxy.upgraded();
        assert!(told.contains("150 sessions moved, 0 left, 0 lost"), "{told}");
        let rows = house.sessions();
        let counts = |row: &SessionRow| [row.bytes_to_backend, row.bytes_to_client] == [said; 2];
        assert!(rows.len() == kept.len() && rows.values().all(counts), "{rows:?}");
        heirs.push(heir);
        match heirs.len() {
            1 => assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said()),
            number => assert_eq!(heirs[number - 2].wait_for_exit().exit_status(), Some(0)),
        }
    }
    let newest = &house.session(house.plain()).client;
    let numbers: BTreeSet<u64> = house.sessions().into_keys().collect();
    assert_eq!(numbers.len(), kept.len() + 1, "a number is given twice: {newest:?}");
    for ends in &mut kept {
        ends.talk(9, LITTLE);
    }
}

// If this fails, operators cannot keep sessions where they are.
#[test]
fn sessions_stay_where_the_operator_says_so() {
    reaper();
    let mut house = House::new("auto");
    let mut kept = house.session(house.plain());
    kept.talk(1, LITTLE);
    let (heir, told) = house.proxy.upgraded_with(&["--keep-sessions"]);
    assert!(told.contains("0 sessions moved, 1 left, 0 lost"), "{told}");
    assert!(house.sessions().is_empty());
    kept.talk(2, LITTLE);
    drop(kept);
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
    heir.signal(Signal::TERM);
    assert_eq!(heir.wait_for_exit().exit_status(), Some(0));
}

/// A proxy that reads of each client what it says first.
fn reading() -> House {
    let route = "[[listener.front.route]]\nsni = [\"a.example\"]\npool = \"back\"";
    let peek = format!("[listener.front.peek]\ntimeout = \"30s\"\n{route}");
    House::with("workers = 2", &peek)
}

/// What a client says that turns out to be no TLS.
const SAID: [&[u8]; 2] = [&[0x16], b"no TLS after all\n"];

impl House {
    /// A client of which too little has been read.
    fn unconnected(&self) -> TcpStream {
        let before = self.sessions().len();
        let mut client = connect(self.plain());
        client.write_all(SAID[0]).unwrap();
        eventually("it is read", PATIENCE, || (self.sessions().len() == before + 1).then_some(()));
        client
    }

    /// Has that one connected.
    #[track_caller]
    fn connected(&self, mut client: TcpStream) -> Ends {
        client.write_all(SAID[1]).unwrap();
        let (mut server, _) = self.server.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut first = vec![0; SAID.concat().len()];
        server.read_exact(&mut first).unwrap();
        assert_eq!(first, SAID.concat());
        Ends { client, server }
    }

    /// Waits until no epoll instance of the old process hears of the client of a session.
    #[track_caller]
    fn wait_until_parked(&self, ends: &Ends) {
        let (peer, own) = (ends.client.local_addr().unwrap(), self.plain());
        let inode = BTreeSet::from([inode_of(own, peer)]);
        eventually("the session is parked", PATIENCE, || {
            heard_of(self.proxy.pid(), &inode).is_empty().then_some(())
        });
    }
}

// If this fails, a session that is not connected yet keeps the old process for as long as it lives.
#[test]
fn a_session_that_is_still_being_read_moves_once_it_is_served() {
    reaper();
    let mut house = reading();
    let client = house.unconnected();
    let (heir, told) = house.proxy.upgraded();
    assert!(told.contains("0 sessions moved, 1 left, 0 lost"), "{told}");
    let mut ends = house.connected(client);
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
    let rows = house.sessions();
    let bytes: Vec<u64> = rows.values().map(|row| row.bytes_to_backend).collect();
    assert_eq!(bytes, [SAID.concat().len() as u64]);
    ends.talk(3, LITTLE);
    assert_eq!(house.proxy.status().pid, heir.pid());
}

// If this fails, a process that dies while it takes sessions in takes them with it.
#[test]
fn a_new_process_that_dies_with_sessions_in_its_hands_loses_none() {
    reaper();
    let mut house = reading();
    let client = house.unconnected();
    let (heir, _) = house.proxy.upgraded();
    heir.signal(Signal::STOP);
    let mut ends = house.connected(client);
    house.wait_until_parked(&ends);
    send(&mut ends.client, 4, LITTLE).unwrap();
    heir.signal(Signal::KILL);
    assert_eq!(receive_up_to(&mut ends.server, 4, LITTLE).0, LITTLE);
    ends.talk(5, LITTLE);
    drop(ends);
    let line = &house.proxy.wait_for_session_lines(1)[0];
    assert_eq!(line["bytes_to_backend"], 2 * LITTLE + SAID.concat().len() as u64, "{line}");
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
}

// If this fails, two processes go on with one session after one has waited too long for the other:
// bytes come twice, or not at all.
#[test]
fn a_new_process_that_answers_too_late_leaves_sessions_alone() {
    reaper();
    let mut house = reading();
    let client = house.unconnected();
    let (heir, _) = house.proxy.upgraded();
    heir.signal(Signal::STOP);
    let mut ends = house.connected(client);
    house.wait_until_parked(&ends);
    send(&mut ends.client, 4, LITTLE).unwrap();
    house.proxy.wait_for_line("sessions stay with this process");
    heir.signal(Signal::CONT);
    house.proxy.wait_for_line("takes no more sessions");
    assert_eq!(receive_up_to(&mut ends.server, 4, LITTLE).0, LITTLE);
    ends.talk(5, LITTLE);
    assert!(house.sessions().is_empty(), "the new process has none of them");
    assert_eq!(house.proxy.status().pid, heir.pid());
    drop(ends);
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
}

// If this fails, a session whose backend the new file does not have is lost, or goes elsewhere.
#[test]
fn a_session_that_belongs_nowhere_stays() {
    reaper();
    let mut house = House::new("auto");
    let mut kept = house.session(house.plain());
    kept.talk(1, LITTLE);
    let text = std::fs::read_to_string(house.proxy.config_file()).unwrap();
    house.proxy.rewrite(&text.replace("\"b1\"", "\"b2\""));
    let (heir, told) = house.proxy.upgraded();
    assert!(told.contains("0 sessions moved, 1 left, 0 lost"), "{told}");
    kept.talk(2, LITTLE);
    drop(kept);
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
    drop(heir);
}

// If this fails, a client gets a fresh allowance of sessions by an upgrade, or none any more.
#[test]
fn a_session_that_changes_hands_stays_counted() {
    reaper();
    let limit = "[listener.front.limit]\nmax_concurrent = 2\naction = \"reset\"";
    let mut house = House::with("workers = 2", limit);
    let mut kept = [(); 2].map(|()| house.session(house.plain()));
    let is_refused = |house: &House| {
        let one_more = try_connect(house.plain());
        one_more.and_then(|mut one_more| one_more.read(&mut [0])).is_err()
    };
    kept.iter_mut().for_each(|ends| ends.talk(1, LITTLE));
    assert!(is_refused(&house));
    let (heir, told) = house.proxy.upgraded();
    assert!(told.contains("2 sessions moved, 0 left, 0 lost"), "{told}");
    assert!(house.proxy.wait_for_end().success(), "{}", house.proxy.said());
    assert!(is_refused(&house));
    assert_eq!(house.proxy.backend("back", "b1").sessions, 2);
    let [one, other] = kept;
    drop(one);
    eventually("a place is free", PATIENCE, || (house.proxy.sessions() == 1).then_some(()));
    house.session(house.plain()).talk(2, LITTLE);
    drop((other, heir));
}

/// The inode of the socket with these two addresses, which must be of IPv4.
fn inode_of(own: SocketAddr, peer: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let (own, peer) = (shown(&own), shown(&peer));
    let mut its = rows.filter(|row| row[1] == own && row[2] == peer);
    its.next().unwrap()[9].parse().unwrap()
}
