//! Downloads that never end: as many bytes as come, dropped by the kernel without a copy, so that
//! the client costs least and the proxy decides how fast they are.

use std::io::{self, ErrorKind, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use socket2::SockRef;

const REQUEST: &[u8] = b"GET /64m HTTP/1.1\r\nHost: bench\r\n\r\n";
/// Requests that are sent ahead on each connection: more than are answered.
const AHEAD: usize = 200;
const TURN: Duration = Duration::from_millis(100);
/// Bytes dropped by one call.
const DROPPED_MAX: usize = 1 << 20;

/// Drops what one connection has received: how much, and whether it goes on.
fn drop_received(stream: &TcpStream, nowhere: &mut [MaybeUninit<u8>]) -> io::Result<(u64, bool)> {
    let socket = SockRef::from(stream);
    let mut bytes = 0;
    loop {
        match socket.recv_with_flags(nowhere, libc::MSG_TRUNC) {
            Ok(0) => return Ok((bytes, false)),
            Ok(count) => bytes += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((bytes, true)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn run(address: SocketAddr, connections: usize, length: Duration) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut streams = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&REQUEST.repeat(AHEAD))?;
        stream.set_nonblocking(true)?;
        let token = Token(number);
        poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE)?;
        streams.push(stream);
    }
    let mut events = Events::with_capacity(connections);
    let mut nowhere = vec![MaybeUninit::uninit(); DROPPED_MAX];
    let (mut bytes, mut errors) = (0, 0_u64);
    let start = Instant::now();
    while start.elapsed() < length {
        match poll.poll(&mut events, Some(TURN)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            match drop_received(&streams[event.token().0], &mut nowhere) {
                Ok((count, goes_on)) => {
                    bytes += count;
                    errors += u64::from(!goes_on);
                }
                Err(_) => errors += 1,
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({ "units": 0, "bytes": bytes, "errors": errors, "seconds": seconds }))
}
