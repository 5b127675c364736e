//! Servers to put behind evenkeel, each with one habit.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};

/// A server on a port of its own, until it is dropped.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// Bound and not accepting: no other program gets the port.
    _bound: Option<OwnedFd>,
}

/// How a server ends that answers before it reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum EarlyEnd {
    /// It closes: FIN, and a reset for a request that comes later.
    Closes,
    /// It sends the last part once the request has come, and closes: a reset.
    AfterTheRequest,
    /// It resets at once.
    Reset,
}

#[derive(Default)]
pub struct Shared {
    stopping: AtomicBool,
    accepted: AtomicUsize,
    received: AtomicUsize,
    /// By a number of their own: a connection that is gone has no address to know it by.
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Backend {
    /// Sends back what it receives, and FIN for FIN.
    pub fn echo() -> Self {
        Self::serving(|mut stream, shared| {
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return stream.shutdown(Shutdown::Write),
                    count => {
                        shared.received.fetch_add(count, Ordering::SeqCst);
                        stream.write_all(&buffer[..count])?;
                    }
                }
            }
        })
    }

    /// Sends its name as a line at once, then whatever it receives.
    pub fn named(name: &str) -> Self {
        Self::named_at(name, loopback())
    }

    /// The same, where another one was before.
    pub fn named_at(name: &str, address: SocketAddr) -> Self {
        let line = format!("{name}\n");
        Self::serving_at(address, move |mut stream, shared| {
            stream.write_all(line.as_bytes())?;
            let received = io::copy(&mut stream.try_clone()?, &mut stream)?;
            shared.received.fetch_add(usize::try_from(received).unwrap(), Ordering::SeqCst);
            stream.shutdown(Shutdown::Write)
        })
    }

    /// Says in a line from which address it was connected, then sends back what it receives.
    pub fn telling() -> Self {
        Self::serving(|mut stream, _| {
            let from = stream.peer_addr()?.ip();
            stream.write_all(format!("{from}\n").as_bytes())?;
            io::copy(&mut stream.try_clone()?, &mut stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    /// Reads, and never says a word.
    pub fn silent() -> Self {
        Self::serving(|mut stream, shared| receive(&mut stream, shared))
    }

    /// Sends `bytes` and FIN at once, and goes on reading.
    pub fn half_closing(bytes: &'static [u8]) -> Self {
        Self::serving(move |mut stream, shared| {
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
            receive(&mut stream, shared)
        })
    }

    /// Answers without reading, as services of xinetd do, each part in a write of its own.
    pub fn answering_first(parts: &'static [&'static str], end: EarlyEnd) -> Self {
        Self::serving(move |mut stream, _| {
            for (number, part) in parts.iter().enumerate() {
                if end == EarlyEnd::AfterTheRequest && number + 1 == parts.len() {
                    stream.peek(&mut [0])?;
                }
                stream.write_all(part.as_bytes())?;
            }
            if end == EarlyEnd::Reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            }
            Ok(())
        })
    }

    /// Resets the connection once the first byte has come.
    pub fn resetting() -> Self {
        Self::serving(|mut stream, shared| {
            let received = stream.read(&mut [0])?;
            shared.received.fetch_add(received, Ordering::SeqCst);
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))
        })
    }

    /// Refuses every connection.
    pub fn refusing() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&loopback().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { address, shared: Arc::default(), acceptor: None, _bound: Some(socket.into()) }
    }

    /// Answers no handshake: its accept queue is full and it accepts none.
    pub fn unanswering() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&loopback().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let shared = Arc::<Shared>::default();
        // A queue of length 0 holds one.
        shared.open.lock().insert(0, TcpStream::connect(address).unwrap());
        Self { address, shared, acceptor: None, _bound: Some(socket.into()) }
    }

    /// Calls `serve` for each connection, on a thread of its own.
    pub(crate) fn serving(
        serve: impl Fn(TcpStream, &Shared) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::serving_at(loopback(), serve)
    }

    fn serving_at(
        address: SocketAddr,
        serve: impl Fn(TcpStream, &Shared) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let (shared, serve) = (Arc::clone(&shared), Arc::new(serve));
            std::thread::spawn(move || accept(&listener, &shared, &serve))
        };
        Self { address, shared, acceptor: Some(acceptor), _bound: None }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections it has had.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Bytes it has received.
    pub fn received(&self) -> usize {
        self.shared.received.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let Some(acceptor) = self.acceptor.take() else { return };
        // Wakes the acceptor, which then looks at `stopping`.
        let _woken = TcpStream::connect(self.address);
        let _ended = acceptor.join();
        for (_, stream) in self.shared.open.lock().drain() {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept<F>(listener: &TcpListener, shared: &Arc<Shared>, serve: &Arc<F>)
where
    F: Fn(TcpStream, &Shared) -> io::Result<()> + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.lock().insert(number, stream.try_clone().unwrap());
        let (shared, serve) = (Arc::clone(shared), Arc::clone(serve));
        std::thread::spawn(move || {
            // A client that leaves early is no failure of the server.
            let _outcome = serve(stream, &shared);
            // The clone would keep the connection open.
            shared.open.lock().remove(&number);
        });
    }
}

fn receive(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => shared.received.fetch_add(count, Ordering::SeqCst),
        };
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// An address without a listener at this moment, for a program that cannot choose its own port.
/// Another process may take it in between: start such programs with another one then.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(loopback()).unwrap().local_addr().unwrap()
}
