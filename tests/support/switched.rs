//! Servers that pass or fail their probes as a test says, and echo to clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Backend, PATIENCE, Proxy, connect, eventually};

/// Probes that see a change soon.
pub const PROBES: &str = "[pool.back.health]\nprobe = \"http\"\ninterval = \"40ms\"\n\
                          fast_interval = \"20ms\"\ndown_backoff = \"40ms\"";

/// Answers probes as it is told, and sends everything else back.
pub fn switchable(is_well: &Arc<AtomicBool>) -> Backend {
    let is_well = Arc::clone(is_well);
    Backend::serving(move |mut stream, _| {
        let mut buffer = [0; 1024];
        loop {
            let count = stream.read(&mut buffer)?;
            if buffer[..count].starts_with(b"GET ") {
                let status = if is_well.load(Ordering::SeqCst) { "200 OK" } else { "503 No" };
                stream.write_all(
                    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes(),
                )?;
            } else if count > 0 {
                stream.write_all(&buffer[..count])?;
            }
            if count == 0 {
                return stream.shutdown(Shutdown::Write);
            }
        }
    })
}

/// Whether a byte comes back; false after a reset.
pub fn echoes(client: &mut TcpStream) -> bool {
    let answer = client.write_all(b"x").and_then(|()| client.read_exact(&mut [0]));
    match answer {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
        Err(error) => panic!("neither an echo nor a reset: {error}"),
    }
}

/// So many clients, each of which has had an echo.
pub fn clients(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..count).map(|_| connect(proxy.address())).collect();
    assert!(clients.iter_mut().all(echoes));
    clients
}

/// Waits until the status says this of a backend.
pub fn wait_until(proxy: &Proxy, backend: &str, state: &str) {
    eventually(&format!("{backend} is {state}"), PATIENCE, || {
        (proxy.backend("back", backend).state == state).then_some(())
    });
}
