//! Connections that say nothing or read nothing, and the wait for a server that starts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::PATIENCE;

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// What a client asks for that then reads none of it.
const LONG_REQUEST: &[u8] = b"GET /64m HTTP/1.1\r\nHost: bench\r\n\r\n";
/// What the kernel of such a client takes, so that 2,000 of them do not fill its memory.
const STALLED_BYTES: usize = 64 * 1024;

/// Connects until it works.
pub(crate) fn wait(address: SocketAddr) -> io::Result<Value> {
    let start = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(json!({ "waited_us": start.elapsed().as_micros() as f64 })),
            Err(error) if start.elapsed() > 2 * PATIENCE => return Err(error),
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// Keeps connections until standard input ends; says when all are there.
pub(crate) fn hold(address: SocketAddr, connections: usize) -> io::Result<Value> {
    let held: Vec<TcpStream> =
        (0..connections).map(|_| TcpStream::connect(address)).collect::<io::Result<_>>()?;
    until_asked(&held)
}

/// Asks for a long reply on each connection, and reads no more than its beginning until standard
/// input ends; says when all have begun.
pub(crate) fn stall(address: SocketAddr, connections: usize) -> io::Result<Value> {
    let mut stalled = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        SockRef::from(&stream).set_recv_buffer_size(STALLED_BYTES)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(LONG_REQUEST)?;
        stalled.push(stream);
    }
    for stream in &mut stalled {
        stream.read_exact(&mut [0])?;
    }
    until_asked(&stalled)
}

fn until_asked(held: &[TcpStream]) -> io::Result<Value> {
    println!("held {}", held.len());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(json!({ "held": held.len() }))
}
