//! A backend as a process of its own, which can be stopped, continued and killed.
//!
//! It is this very test binary, started again with its part in the environment.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::crowd::listen;
use crate::net::{Net, Side};
use crate::streams::stream;
use crate::support::eventually;

const PART: &str = "EVENKEEL_ACTOR";
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What the backend does with each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Sends back what it receives, and FIN for FIN.
    Echoes,
    /// Reads to the end, then sends how much that was as a line.
    Counts,
    /// Sends 64 MiB of stream 1 (16 times 4 MiB) and FIN.
    Pours,
    /// Reads to the end, then says goodbye; nothing else.
    Listens,
}

/// Bytes that [`Habit::Pours`] sends.
pub(crate) const POURED: usize = 64 << 20;

/// A running backend; killed when dropped.
#[derive(Debug)]
pub(crate) struct Actor {
    child: Child,
}

impl Actor {
    /// Starts one on the backend's side; returns when it listens.
    #[track_caller]
    pub(crate) fn start(net: &Net, address: SocketAddr, habit: Habit) -> Self {
        let itself = std::env::current_exe().unwrap();
        let mut command = net.command(Side::Backend, itself.to_str().unwrap());
        command.args(["--exact", "actor::acts", "--nocapture"]);
        command.env(PART, format!("{habit:?} {address}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let actor = Self { child };
        net.on(Side::Backend, || {
            eventually("the backend listens", PATIENCE, || listens(address).then_some(()));
        });
        actor
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a program listens there, without connecting.
fn listens(address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    })
}

/// The part of a started process; as a test of its own it has none and passes.
#[test]
fn acts() {
    let Ok(part) = std::env::var(PART) else { return };
    let (habit, address) = part.split_once(' ').unwrap();
    let serve = match habit {
        "Echoes" => echo,
        "Counts" => count,
        "Pours" => pour,
        "Listens" => listen_only,
        other => panic!("no habit {other}"),
    };
    for stream in listen(address.parse().unwrap(), 4096).incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.shutdown(Shutdown::Write),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn count(mut stream: TcpStream) -> std::io::Result<()> {
    let count = std::io::copy(&mut stream, &mut std::io::sink())?;
    writeln!(stream, "{count}")
}

fn pour(mut connection: TcpStream) -> std::io::Result<()> {
    let piece = stream(1);
    for _ in 0..POURED / piece.len() {
        connection.write_all(piece)?;
    }
    connection.shutdown(Shutdown::Write)?;
    std::io::copy(&mut connection, &mut std::io::sink()).map(|_| ())
}

fn listen_only(mut stream: TcpStream) -> std::io::Result<()> {
    std::io::copy(&mut stream, &mut std::io::sink())?;
    stream.write_all(b"goodbye\n")
}
