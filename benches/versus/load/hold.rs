//! Connections that say nothing, and the wait for a server that starts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::PATIENCE;

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);

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
    println!("held {}", held.len());
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(json!({ "held": held.len() }))
}
