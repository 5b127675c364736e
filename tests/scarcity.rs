//! What is scarce goes to those who use it: pipes to readers that read, descriptors to clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use socket2::{Domain, SockRef, Socket, Type};
use support::stream;
use support::{PATIENCE, Proxy, eventually};

/// What each client is sent: more than fits between it and its server.
const LENGTH: u64 = 12 << 20;
const KEY: u64 = 7;
/// With so few descriptors a worker has [`PIPES`] pipes.
const DESCRIPTORS: u64 = 512;
const PIPES: u32 = 4;
/// What a client's kernel takes while the client reads nothing.
const UNREAD_BYTES: usize = 64 * 1024;

/// A server that sends [`LENGTH`] bytes to each client, and then FIN.
fn sender() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            // One that is gone before the end is no fault here.
            std::thread::spawn(move || _ = stream::send(&mut client, KEY, LENGTH));
        }
    });
    address
}

/// One worker with [`PIPES`] pipes in front of such a server.
fn proxy() -> Proxy {
    let config = format!(
        "[global]\nworkers = 1\n[listener.web]\nbind = [\"127.0.0.1:0\"]\npool = \"back\"\n\
         [pool.back]\nbackends = [\"{}\"]\n",
        sender()
    );
    let (directory, command) = Proxy::command(&config);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\""));
    shell.arg(command.get_program()).args(command.get_args());
    let mut proxy = Proxy::spawn(directory, shell);
    proxy.wait_until_serving();
    assert!(proxy.said().contains(&format!("{PIPES} pipes")), "{}", proxy.said());
    proxy
}

/// A client that reads nothing, once its reply has begun.
fn stopped(proxy: &Proxy) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(UNREAD_BYTES).unwrap();
    socket.connect(&proxy.address().into()).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.peek(&mut [0]).unwrap(), 1);
    client
}

/// Clients that have stopped to read, with nothing on its way to them any more.
fn stopped_readers(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let clients = (0..count).map(|_| stopped(proxy)).collect();
    let moved = || proxy.metric("evenkeel_bytes_total", &[("direction", "to_client")]);
    let (mut before, mut since) = (moved(), Instant::now());
    eventually("nothing moves any more", PATIENCE, || {
        let now = moved();
        if now > before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(200)).then_some(())
    });
    clients
}

fn read_to_the_end(clients: Vec<TcpStream>) {
    for mut client in clients {
        SockRef::from(&client).set_recv_buffer_size(64 * UNREAD_BYTES).unwrap();
        let (read, end) = stream::receive(&mut client, KEY);
        assert_eq!((read, end.is_ok()), (LENGTH, true));
    }
}

fn spliced(proxy: &Proxy) -> f64 {
    proxy.metric("evenkeel_bytes_total", &[("direction", "to_client"), ("path", "splice")])
}

fn bound_descriptors(proxy: &Proxy, current: u64) {
    let pid = Pid::from_raw(i32::try_from(proxy.pid()).unwrap());
    let limit = Rlimit { current: Some(current), maximum: Some(DESCRIPTORS) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
}

// If this fails, a few clients that read nothing have everybody else's bytes copied, at four times
// the work; or lose bytes themselves.
#[test]
fn readers_that_stop_leave_pipes_to_those_that_read() {
    let proxy = proxy();
    let clients = stopped_readers(&proxy, 2 * PIPES as usize);
    let held = proxy.metric("evenkeel_pipes_in_use", &[]);
    assert!(held <= f64::from(PIPES / 2), "{held} pipes wait for clients that read nothing");
    let before = spliced(&proxy);
    read_to_the_end(vec![stopped(&proxy)]);
    let by_pipe = spliced(&proxy) - before;
    assert!(by_pipe > LENGTH as f64 / 2.0, "{by_pipe} of {LENGTH} bytes went through a pipe");
    read_to_the_end(clients);
    proxy.wait_for_sessions(0);
    proxy.wait_for_metric("evenkeel_pipes_in_use", &[], 0.0);
}

// If this fails, clients are turned away for want of descriptors that idle pipes have.
#[test]
fn idle_pipes_give_their_descriptors_to_clients() {
    let proxy = proxy();
    let at_start = proxy.descriptors();
    read_to_the_end(stopped_readers(&proxy, PIPES as usize));
    proxy.wait_for_sessions(0);
    let idle = eventually("all but idle pipes is closed", PATIENCE, || {
        let more = proxy.descriptors().checked_sub(at_start)?;
        (more >= 2 && more <= 2 * PIPES as usize).then_some(more)
    });
    // A client takes two, the first of which is free; the admin socket is not asked meanwhile.
    bound_descriptors(&proxy, proxy.descriptors() as u64 + 1);
    let clients: Vec<TcpStream> = (0..idle.div_ceil(2)).map(|_| stopped(&proxy)).collect();
    bound_descriptors(&proxy, DESCRIPTORS);
    let refused = proxy.metric("evenkeel_listener_refused_total", &[("reason", "descriptors")]);
    assert!(refused < 0.5, "{refused} refused, {idle} descriptors of idle pipes");
    read_to_the_end(clients);
}
