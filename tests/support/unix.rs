//! Unix sockets on both sides of evenkeel: servers with one habit each, and clients.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::PATIENCE;

/// A server on a Unix socket, until it is dropped; its file stays, as that of a process that dies.
pub struct UnixBackend {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    acceptor: Option<JoinHandle<()>>,
}

impl UnixBackend {
    /// Sends its name as a line, then whatever it receives, and FIN for FIN.
    pub fn named(path: &Path, name: &str) -> Self {
        let line = format!("{name}\n");
        Self::serving(path, move |mut stream| {
            stream.write_all(line.as_bytes())?;
            echo(stream)
        })
    }

    /// Sends back what it receives, and FIN for FIN.
    pub fn echo(path: &Path) -> Self {
        Self::serving(path, echo)
    }

    /// Calls `serve` for each connection, on a thread of its own.
    pub fn serving(
        path: &Path,
        serve: impl Fn(UnixStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let stopping = Arc::<AtomicBool>::default();
        let accepted = Arc::<AtomicUsize>::default();
        let (stop, count, serve) = (Arc::clone(&stopping), Arc::clone(&accepted), Arc::new(serve));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                // A client that leaves early is no failure of the server.
                std::thread::spawn(move || drop(serve(stream.unwrap())));
            }
        });
        Self { path: path.to_owned(), stopping, accepted, acceptor: Some(acceptor) }
    }

    /// Connections it has had.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for UnixBackend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then looks at `stopping`.
        let is_woken = UnixStream::connect(&self.path).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| is_woken) {
            let _ended = acceptor.join();
        }
    }
}

fn echo(mut stream: UnixStream) -> io::Result<()> {
    io::copy(&mut stream.try_clone()?, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// A connection that gives up instead of hanging.
pub fn connect_unix(path: &Path) -> UnixStream {
    try_connect_unix(path)
        .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", path.display()))
}

/// The same, where it may fail.
pub fn try_connect_unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads one line, without what ends it.
pub fn line_of(stream: &mut impl Read) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The name of the server that serves a new connection to `path`; empty when it is turned away.
pub fn visit_unix(path: &Path) -> String {
    match line_of(&mut connect_unix(path)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => String::new(),
        served => served.unwrap(),
    }
}
