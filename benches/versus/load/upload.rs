//! Uploads: POST bodies on kept connections, one thread each, and every reply is awaited.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::PATIENCE;

const CHUNK_BYTES: usize = 256 * 1024;

/// One body and its reply, which has no body of its own.
fn post(stream: &mut TcpStream, head: &[u8], chunk: &[u8], bytes: usize) -> io::Result<()> {
    stream.write_all(head)?;
    let mut left = bytes;
    while left > 0 {
        let now = left.min(chunk.len());
        stream.write_all(&chunk[..now])?;
        left -= now;
    }
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    while !reply.ends_with(b"\r\n\r\n") {
        let received = stream.read(&mut buffer)?;
        if received == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        reply.extend_from_slice(&buffer[..received]);
    }
    let good = reply.starts_with(b"HTTP/1.1 204");
    if good { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

fn posts(address: SocketAddr, end: Instant, bytes: usize) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("POST /sink HTTP/1.1\r\nHost: bench\r\nContent-Length: {bytes}\r\n\r\n");
    let chunk = vec![b'u'; CHUNK_BYTES];
    let mut count = 0;
    while Instant::now() < end {
        post(&mut stream, head.as_bytes(), &chunk, bytes)?;
        count += 1;
    }
    Ok(count)
}

pub(crate) fn run(
    address: SocketAddr,
    connections: usize,
    length: Duration,
    bytes: usize,
) -> io::Result<Value> {
    let start = Instant::now();
    let end = start + length;
    let threads: Vec<_> =
        (0..connections).map(|_| thread::spawn(move || posts(address, end, bytes))).collect();
    let mut count = 0;
    for thread in threads {
        count += thread.join().map_err(|_| io::Error::from(ErrorKind::Other))??;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({ "units": count, "bytes": count * bytes as u64, "errors": 0, "seconds": seconds }))
}
