//! One of three servers is killed and comes back, under load.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::http::wrk;
use crate::in_front_of;
use crate::program::Nginx;
use crate::support::{PATIENCE, Proxy, connect, eventually};

const CLIENTS: usize = 12;
const NAMES: [&str; 3] = ["one", "two", "three"];

/// What the clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    /// Requests answered.
    answers: AtomicUsize,
    /// Connections that broke, with the server each was on and the error.
    broken: Mutex<Vec<(String, String)>>,
    /// New connections that got no first answer.
    never_served: Mutex<Vec<String>>,
    /// For each client the server it is on.
    on: Mutex<[String; CLIENTS]>,
}

/// A connection that is kept, one request after the other.
struct Kept {
    stream: BufReader<TcpStream>,
}

impl Kept {
    fn open(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(connect(address)) }
    }

    /// Asks which process serves.
    fn ask(&mut self) -> io::Result<String> {
        self.stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.strip_prefix("Content-Length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8(body).unwrap().trim_end().to_owned())
    }
}

fn client(number: usize, address: SocketAddr, seen: &Seen) {
    while !seen.stop.load(Ordering::Relaxed) {
        let mut connection = Kept::open(address);
        let server = match connection.ask() {
            Ok(server) => server,
            Err(error) => {
                seen.never_served.lock().push(error.to_string());
                continue;
            }
        };
        seen.on.lock()[number].clone_from(&server);
        while !seen.stop.load(Ordering::Relaxed) {
            match connection.ask() {
                Ok(same) => assert_eq!(same, server, "one connection, two servers"),
                Err(error) => {
                    seen.broken.lock().push((server, error.to_string()));
                    break;
                }
            }
            seen.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits until each client has been answered many times more.
fn more_answers(seen: &Seen) {
    let wanted = seen.answers.load(Ordering::Relaxed) + 40 * CLIENTS;
    eventually("the clients are answered", PATIENCE, || {
        (seen.answers.load(Ordering::Relaxed) >= wanted).then_some(())
    });
}

fn clients_on(seen: &Seen, name: &str) -> usize {
    seen.on.lock().iter().filter(|on| *on == name).count()
}

/// If it fails, one server's death breaks connections of others, or clients are sent to it still.
#[test]
fn only_connections_on_the_killed_server_fail() {
    let mut servers = NAMES.map(Nginx::start);
    let addresses = servers.each_ref().map(Nginx::address);
    let proxy = Proxy::start(&in_front_of(&addresses, "balance = \"round-robin\""));
    let address = proxy.address();
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let seen = &seen;
            scope.spawn(move || client(number, address, seen));
        }
        // Ends the clients whatever fails below; a panic would wait for them for ever.
        let _stop = StopAtEnd(&seen.stop);
        eventually("every server has clients", PATIENCE, || {
            NAMES.iter().all(|name| clients_on(&seen, name) >= 2).then_some(())
        });
        more_answers(&seen);
        assert!(seen.broken.lock().is_empty(), "{:?}", seen.broken.lock());
        let victims = clients_on(&seen, "one");
        let load = scope.spawn(move || wrk(address, &["--duration", "4s", "--timeout", "5s"]));

        more_answers(&seen);
        servers[0].kill();
        eventually("its clients are elsewhere", PATIENCE, || {
            (clients_on(&seen, "one") == 0).then_some(())
        });
        more_answers(&seen);
        servers[0].restart();
        eventually("new connections reach it again", Duration::from_secs(20), || {
            (Kept::open(address).ask().ok()? == "one").then_some(())
        });
        more_answers(&seen);

        let broken = seen.broken.lock().clone();
        assert!(broken.iter().all(|(server, _)| server == "one"), "{broken:?}");
        assert_eq!(broken.len(), victims, "each connection on it breaks once: {broken:?}");
        assert!(seen.never_served.lock().is_empty(), "{:?}", seen.never_served.lock());
        let load = load.join().unwrap();
        let errors = load.errors.unwrap_or_default();
        // wrk cannot say which connections they were; none may fail to connect or hang.
        assert!(errors.is_empty() || errors.contains("connect 0,"), "{errors}");
        assert!(errors.is_empty() || errors.ends_with("timeout 0"), "{errors}");
    });
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
