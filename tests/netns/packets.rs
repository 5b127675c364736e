//! Which packets a session sends, counted by the kernel: too few delay others, too many cost them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use rustix::net::SendFlags;

use crate::net::{Keys, Link, Net, Side};
use crate::show;
use crate::support::{PATIENCE, connect};

const SESSIONS: u64 = 20;
const REQUEST: &[u8] = b"what do you say";
const ANSWER: [u8; 400] = [b'a'; 400];

/// A backend that gives each of the sessions its answer, in a way of its own.
fn serve(net: &Net, answer: fn(TcpStream)) -> std::thread::JoinHandle<()> {
    let address = net.backend(1);
    let listener = net.on(Side::Backend, || TcpListener::bind(address).unwrap());
    net.spawn(Side::Backend, move || {
        for _ in 0..SESSIONS {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_exact(&mut [0; REQUEST.len()]).unwrap();
            answer(stream);
        }
    })
}

/// The sessions, each of a client that speaks at once and ends with the answer.
fn ask(net: &Net) {
    net.on(Side::Client, || {
        for _ in 0..SESSIONS {
            let mut client = connect(net.front());
            client.write_all(REQUEST).unwrap();
            let mut answer = [0; ANSWER.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, ANSWER);
        }
    });
}

/// If this fails, every session whose server writes twice, as many do, waits 40 ms for nothing: the
/// server's second write is held back (Nagle's algorithm) until the first is acknowledged.
#[test]
fn a_server_that_writes_twice_does_not_wait_for_a_delayed_acknowledgement() {
    let net = Net::new(Link::PLAIN);
    let backend = serve(&net, |mut stream| {
        let (first, second) = ANSWER.split_at(100);
        stream.write_all(first).unwrap();
        stream.write_all(second).unwrap();
        // Ending it here would send what is held back.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    });
    // The client has spoken before its connection is accepted.
    let keys = Keys { listener: "defer_accept = true", ..Keys::default() };
    let _proxy = net.evenkeel(&[1], keys);
    let before = delayed_acknowledgements(&net);
    ask(&net);
    let delayed = delayed_acknowledgements(&net) - before;
    backend.join().unwrap();
    show(
        "a server that writes twice, with Nagle's algorithm",
        "no acknowledgement waits for its timer",
        &format!("{delayed} in {SESSIONS} sessions"),
    );
    assert_eq!(delayed, 0);
}

/// `DelayedACKs` of the namespace that evenkeel runs in: those that waited for the timer.
fn delayed_acknowledgements(net: &Net) -> u64 {
    let text = net
        .on(Side::Evenkeel, || std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap());
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "DelayedACKs").unwrap();
    value.parse().unwrap()
}

/// If this fails, a session that its server ends costs a packet more to send, to receive and to
/// acknowledge than it has to.
#[test]
fn the_end_of_an_answer_rides_on_its_last_bytes() {
    let net = Net::new(Link::PLAIN);
    let backend = serve(&net, |stream| {
        rustix::net::send(&stream, &ANSWER, SendFlags::MORE).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let _proxy = net.evenkeel(&[1], Keys::default());
    let rule = format!(
        "tcp sport {} tcp flags & fin == fin meta length > {}",
        net.front().port(),
        ANSWER.len()
    );
    net.count_arriving(Side::Client, &rule);
    ask(&net);
    backend.join().unwrap();
    let together = net.counted(Side::Client);
    show(
        "a server that sends its answer and FIN in one packet",
        "the client gets them in one packet",
        &format!("{together} of {SESSIONS}"),
    );
    assert_eq!(together, SESSIONS);
}
