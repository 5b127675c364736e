//! Negative controls: a proxy that does one thing wrong, which the judges of streams must see.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::crowd::{Outcome, Stage, listen, play_all};
use crate::net::{Link, Net, Side};
use crate::support::reset_when_dropped;

/// What it does wrong, towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    SwapsTwoBytes,
    DropsTheLastByte,
    ResetBecomesEnd,
}

/// One direction.
struct Flow {
    from: TcpStream,
    to: TcpStream,
    wrong: Wrong,
    kept: Vec<u8>,
    has_ended: bool,
}

impl Flow {
    /// Moves one piece; an error is a reset.
    fn step(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let count = match self.from.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) if self.wrong == Wrong::ResetBecomesEnd => 0,
            Err(error) => return Err(error),
        };
        if count == 0 {
            self.has_ended = true;
            return self.to.shutdown(Shutdown::Write);
        }
        let mut piece = std::mem::take(&mut self.kept);
        piece.extend_from_slice(&buffer[..count]);
        match self.wrong {
            Wrong::SwapsTwoBytes if piece.len() > 1 => piece.swap(0, 1),
            Wrong::DropsTheLastByte => self.kept.extend(piece.pop()),
            _ => {}
        }
        self.send(&piece)
    }

    fn send(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            match self.to.write(piece) {
                Ok(sent) => piece = &piece[sent..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&[(&self.to, PollFlags::OUT)]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn wait(on: &[(&TcpStream, PollFlags)]) {
    let mut fds: Vec<_> = on.iter().map(|(stream, flags)| PollFd::new(*stream, *flags)).collect();
    // Looked at again in any case.
    let _ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
}

/// Serves one client.
fn meddle(client: TcpStream, backend: SocketAddr, wrong: Wrong) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&backend, Duration::from_secs(5))?;
    for stream in [&client, &server] {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
    }
    let mut flows =
        [(&client, &server, Wrong::Nothing), (&server, &client, wrong)].map(|(from, to, wrong)| {
            Flow {
                from: from.try_clone().unwrap(),
                to: to.try_clone().unwrap(),
                wrong,
                kept: Vec::new(),
                has_ended: false,
            }
        });
    while flows.iter().any(|flow| !flow.has_ended) {
        for flow in flows.iter_mut().filter(|flow| !flow.has_ended) {
            if let Err(error) = flow.step() {
                if wrong == Wrong::ResetBecomesEnd {
                    return Ok(());
                }
                reset_when_dropped(&client);
                reset_when_dropped(&server);
                return Err(error);
            }
        }
        let open: Vec<_> = flows
            .iter()
            .filter(|flow| !flow.has_ended)
            .map(|flow| (&flow.from, PollFlags::IN))
            .collect();
        wait(&open);
    }
    Ok(())
}

fn run(wrong: Wrong) -> Outcome {
    let net = Net::new(Link::PLAIN);
    let (front, backend) = (net.front(), net.backend(1));
    let stage = Stage::open(&net, backend);
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopping);
    let listener: TcpListener = net.on(Side::Evenkeel, || listen(front, 4096));
    let acceptor = net.spawn(Side::Evenkeel, move || {
        for client in listener.incoming() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            std::thread::spawn(move || meddle(client, backend, wrong));
        }
    });
    let outcome = play_all(&net, (&format!("meddler {wrong:?}"), front), &stage, (0, 400));
    stopping.store(true, Ordering::SeqCst);
    // Wakes the acceptor.
    net.on(Side::Client, || drop(TcpStream::connect(front)));
    acceptor.join().unwrap();
    outcome
}

/// Asserts that this is seen, and by the peer that can see it.
#[track_caller]
fn seen(wrong: Wrong, least: usize, words: &str) {
    let Outcome { sessions, failures } = run(wrong);
    let found = failures.iter().filter(|failure| failure.contains(words)).count();
    println!("injected: {wrong:?}; expected: many failures; seen: {found} of {sessions}");
    assert!(found >= least, "{found} of {sessions} with \"{words}\": {failures:#?}");
}

/// If it fails, the judges find fault with a proxy that does nothing wrong.
#[test]
fn an_honest_proxy_passes() {
    let Outcome { sessions, failures } = run(Wrong::Nothing);
    assert_eq!(sessions, 400);
    assert!(failures.is_empty(), "{failures:#?}");
}

/// If it fails, bytes may be in a wrong place and no test here notices.
#[test]
fn swapped_bytes_are_seen() {
    seen(Wrong::SwapsTwoBytes, 150, "ending: Wrong(");
}

/// If it fails, the tail of a stream may be lost and no test here notices.
#[test]
fn a_dropped_tail_is_seen() {
    seen(Wrong::DropsTheLastByte, 150, "ending: Fin");
}

/// If it fails, a broken stream may look like a whole one and no test here notices.
#[test]
fn a_reset_that_becomes_an_end_is_seen() {
    seen(Wrong::ResetBecomesEnd, 20, "expects_reset: true");
}
