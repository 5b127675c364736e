//! What behaviour tests share: the program under test, servers behind it, and a bounded wait.
//!
//! Nothing here has a fixed port or sleeps for a guessed time: ports are 0 and learned, and
//! [`eventually`] waits for a condition with a deadline. Everything started ends with its value.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod admin;
pub mod backend;
pub mod proxy;
pub mod setup;
pub mod stream;
pub mod switched;
pub mod systemd;
pub mod unix;
pub mod upgrade;
pub mod verbs;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use self::{
    backend::{Backend, free_address},
    proxy::Proxy,
    setup::Setup,
};

/// Longer than anything here takes on a busy machine; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `condition` gives something.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    within(deadline, condition).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// Waits until `condition` gives something, or `None` after `deadline`.
pub fn within<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        // Asked once more after the deadline: a machine that stood still gets its chance.
        let last = Instant::now() >= end;
        if let Some(value) = condition() {
            return Some(value);
        }
        if last {
            return None;
        }
        #[allow(clippy::disallowed_methods, reason = "bounded, between two looks at a condition")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection that gives up instead of hanging.
pub fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
}

/// Like the function above, where a reset may come as early as the connect.
pub fn try_connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    prepared(TcpStream::connect_timeout(&address, PATIENCE)?)
}

fn prepared(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection from this address (a client of its own), from this port unless it is 0.
pub fn connect_from(source: (IpAddr, u16), address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(source).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    prepared(TcpStream::from(socket))
}

/// Makes dropping the stream, and all its clones, send a reset.
pub fn reset_when_dropped(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads to the end of the stream.
pub fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

/// Reads one line, without what ends it.
pub fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The name of the [`Backend::named`] that serves a new connection to `address`.
pub fn served_by(address: SocketAddr) -> std::io::Result<String> {
    read_line(&mut try_connect(address)?)
}

/// The same; empty when the client is turned away.
pub fn visit(address: SocketAddr) -> String {
    match served_by(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        served => served.unwrap(),
    }
}
