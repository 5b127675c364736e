//! Open loop: requests leave by a schedule, and latency counts from the scheduled time.
//!
//! A generator that waits for a reply before it sends the next request asks less of a server that
//! is slow, and so never sees most of the delay ("coordinated omission"). Here request number `i`
//! is due `i / rate` seconds after the start, on connection `i mod connections`. If that one still
//! waits for a reply, the request waits in line, and the wait counts.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use serde_json::{Value, json};

use crate::{PATIENCE, REQUEST, histogram, ns, percentiles};

const EVENTS: usize = 1024;
const TIMER: Token = Token(usize::MAX);
const REPLY_MAX: usize = 16 * 1024;

struct Connection {
    stream: TcpStream,
    /// When the request that is out was due.
    out: Option<Instant>,
    /// When those that wait in line were due.
    line: VecDeque<Instant>,
    received: usize,
}

struct Generator {
    poll: Poll,
    timer: OwnedFd,
    connections: Vec<Connection>,
    reply_bytes: usize,
    latency: Histogram<u64>,
    /// How late this program itself was: due, with a free connection, and not yet sent.
    lateness: Histogram<u64>,
    waiting: u64,
}

/// Opens a connection and has one reply, so that everything on the way is warm.
fn warm(address: SocketAddr) -> io::Result<(TcpStream, usize)> {
    let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(REQUEST)?;
    let mut reply = vec![0; REPLY_MAX];
    let mut held = 0;
    loop {
        let received = stream.read(&mut reply[held..])?;
        if received == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        held += received;
        if reply_length(&reply[..held]).is_some_and(|length| length <= held) {
            break;
        }
    }
    stream.set_nonblocking(true)?;
    Ok((TcpStream::from_std(stream), held))
}

/// Bytes of a reply that begins with these, once its head is whole.
fn reply_length(reply: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(reply).to_ascii_lowercase();
    let head = text.find("\r\n\r\n")?;
    let (_, after) = text[..head].split_once("content-length:")?;
    let body: usize = after.lines().next()?.trim().parse().ok()?;
    Some(head + 4 + body)
}

impl Generator {
    fn new(address: SocketAddr, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let mut connections = Vec::new();
        let mut reply_bytes = 0;
        for index in 0..count {
            let (mut stream, length) = warm(address)?;
            reply_bytes = length;
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            let line = VecDeque::new();
            connections.push(Connection { stream, out: None, line, received: 0 });
        }
        let (latency, lateness) = (histogram()?, histogram()?);
        Ok(Self { poll, timer, connections, reply_bytes, latency, lateness, waiting: 0 })
    }

    /// Request number so-and-so is due on this connection.
    fn due(&mut self, index: usize, at: Instant) -> io::Result<()> {
        self.waiting += 1;
        if self.connections[index].out.is_some() {
            self.connections[index].line.push_back(at);
            return Ok(());
        }
        self.lateness.saturating_record(ns(at.elapsed()));
        self.send(index, at)
    }

    fn send(&mut self, index: usize, at: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.out = Some(at);
        // So small a request fits into an empty send buffer whole.
        connection.stream.write_all(REQUEST)
    }

    /// Reads what has come; the next in line leaves when a reply is whole.
    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let connection = &mut self.connections[index];
            match connection.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(received) => connection.received += received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if connection.received < self.reply_bytes {
                continue;
            }
            connection.received = 0;
            let next = connection.line.pop_front();
            if let Some(at) = connection.out.take() {
                self.latency.saturating_record(ns(at.elapsed()));
                self.waiting -= 1;
            }
            if let Some(at) = next {
                self.send(index, at)?;
            }
        }
    }

    fn arm(&self, wait: Duration) -> io::Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(wait.max(Duration::from_nanos(1)))
            .map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
        let timer = Itimerspec { it_interval: none, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }

    fn turn(&mut self, events: &mut Events, buffer: &mut [u8], wait: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in events.iter().filter(|event| event.token() != TIMER) {
            self.receive(event.token().0, buffer)?;
        }
        Ok(())
    }

    /// Requests without a reply count as long as they have waited.
    fn give_up(&mut self) {
        for connection in &self.connections {
            for at in connection.out.iter().chain(&connection.line) {
                self.latency.saturating_record(ns(at.elapsed()));
            }
        }
    }
}

pub(crate) fn run(
    address: SocketAddr,
    connections: usize,
    rate: u64,
    length: Duration,
) -> io::Result<Value> {
    let mut generator = Generator::new(address, connections)?;
    let mut events = Events::with_capacity(EVENTS);
    let mut buffer = vec![0; REPLY_MAX];
    let total = rate.saturating_mul(length.as_secs());
    let mut sent: u64 = 0;
    let mut index = 0;
    let start = Instant::now();
    let time_of = |number: u64| start + Duration::from_nanos(number * 1_000_000_000 / rate);
    while sent < total {
        while sent < total && time_of(sent) <= Instant::now() {
            generator.due(index, time_of(sent))?;
            sent += 1;
            index = (index + 1) % connections;
        }
        generator.arm(time_of(sent).saturating_duration_since(Instant::now()))?;
        generator.turn(&mut events, &mut buffer, PATIENCE)?;
    }
    let end = Instant::now() + PATIENCE;
    while generator.waiting > 0 && Instant::now() < end {
        generator.turn(&mut events, &mut buffer, PATIENCE)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let unanswered = generator.waiting;
    generator.give_up();
    Ok(json!({
        "units": total - unanswered, "errors": unanswered, "seconds": seconds,
        "latency": percentiles(&generator.latency), "lateness": percentiles(&generator.lateness),
    }))
}
