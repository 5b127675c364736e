//! New connections: each asks once and waits for the end; counts how many were served and refused.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use serde_json::{Value, json};

use crate::{LAST_REQUEST, PATIENCE, histogram, ns, percentiles};

const EVENTS: usize = 1024;
const REPLY_BYTES: usize = 16 * 1024;
/// How late a connection at a rate may be opened.
const TICK: Duration = Duration::from_millis(1);

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
enum End {
    /// With a reply.
    Served,
    /// By FIN or reset, and nothing had been said, or before it was a connection.
    Refused,
    /// It never was one.
    Failed,
}

struct Connection {
    stream: TcpStream,
    since: Instant,
    asked: bool,
    heard: bool,
}

impl Connection {
    fn open(address: SocketAddr, registry: &Registry, slot: usize) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        let everything = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(slot), everything)?;
        Ok(Self { stream, since: Instant::now(), asked: false, heard: false })
    }

    /// Goes on after an event; tells the end, if this is it.
    fn advance(&mut self, writable: bool, buffer: &mut [u8]) -> Option<End> {
        if !self.asked {
            if !writable {
                return None;
            }
            self.asked = true;
            if let Err(error) = self.stream.write_all(LAST_REQUEST) {
                return Some(self.ended_by(&error));
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Some(if self.heard { End::Served } else { End::Refused }),
                Ok(_) => self.heard = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(self.ended_by(&error)),
            }
        }
    }

    fn ended_by(&self, error: &io::Error) -> End {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe if !self.heard => End::Refused,
            // By the kernel, before it was a connection.
            ErrorKind::ConnectionRefused => End::Refused,
            _ => End::Failed,
        }
    }
}

struct Arrivals {
    address: SocketAddr,
    poll: Poll,
    slots: Vec<Option<Connection>>,
    open: usize,
    served: u64,
    refused: u64,
    failed: u64,
    time: Histogram<u64>,
}

impl Arrivals {
    fn open(&mut self, slot: usize) {
        match Connection::open(self.address, self.poll.registry(), slot) {
            Ok(connection) => {
                self.slots[slot] = Some(connection);
                self.open += 1;
            }
            // On loopback the answer is there when connect(2) returns.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => self.refused += 1,
            Err(_) => self.failed += 1,
        }
    }

    fn end(&mut self, slot: usize, end: End) {
        let Some(connection) = self.slots[slot].take() else { return };
        self.open -= 1;
        self.time.saturating_record(ns(connection.since.elapsed()));
        match end {
            End::Served => self.served += 1,
            End::Refused => self.refused += 1,
            End::Failed => self.failed += 1,
        }
    }

    /// One look at the events; a place that becomes free is filled again if `again`.
    fn turn(&mut self, events: &mut Events, buffer: &mut [u8], again: bool) -> io::Result<()> {
        let has_looked = self.look(events, buffer, PATIENCE, again)?;
        if has_looked && events.is_empty() {
            (0..self.slots.len()).for_each(|slot| self.end(slot, End::Failed));
        }
        Ok(())
    }

    /// False: a signal came first.
    fn look(
        &mut self,
        events: &mut Events,
        buffer: &mut [u8],
        patience: Duration,
        again: bool,
    ) -> io::Result<bool> {
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            other => other?,
        }
        for event in events.iter() {
            let slot = event.token().0;
            let writable = event.is_writable() || event.is_error();
            let connection = self.slots[slot].as_mut();
            if let Some(end) = connection.and_then(|some| some.advance(writable, buffer)) {
                self.end(slot, end);
                if again {
                    self.open(slot);
                }
            }
        }
        Ok(true)
    }
}

impl Arrivals {
    fn result(&self, start: Instant, waves: Value) -> Value {
        json!({
            "served": self.served, "refused": self.refused, "errors": self.failed,
            "seconds": start.elapsed().as_secs_f64(), "latency": percentiles(&self.time),
            "waves": waves,
        })
    }
}

fn arrivals(address: SocketAddr, connections: usize) -> io::Result<Arrivals> {
    let poll = Poll::new()?;
    let slots = (0..connections).map(|_| None).collect();
    let (served, refused, failed, time) = (0, 0, 0, histogram()?);
    Ok(Arrivals { address, poll, slots, open: 0, served, refused, failed, time })
}

/// `rate` a second, whether or not those before have ended, as long as fewer than `connections` are
/// open.
pub(crate) fn paced(
    address: SocketAddr,
    connections: usize,
    length: Duration,
    rate: u64,
) -> io::Result<Value> {
    let mut arrivals = arrivals(address, connections)?;
    let mut events = Events::with_capacity(EVENTS);
    let mut buffer = vec![0; REPLY_BYTES];
    let (start, mut opened, mut slot) = (Instant::now(), 0, 0);
    while start.elapsed() < length || arrivals.open > 0 && start.elapsed() < length + PATIENCE {
        let elapsed = u64::try_from(start.elapsed().min(length).as_micros()).unwrap_or(u64::MAX);
        let due = elapsed.saturating_mul(rate) / 1_000_000;
        while opened < due {
            let mut free = (0..connections).map(|step| (slot + step) % connections);
            let Some(free) = free.find(|free| arrivals.slots[*free].is_none()) else { break };
            arrivals.open(free);
            (opened, slot) = (opened + 1, free + 1);
        }
        arrivals.look(&mut events, &mut buffer, TICK, false)?;
    }
    (0..connections).for_each(|slot| arrivals.end(slot, End::Failed));
    Ok(arrivals.result(start, json!({})))
}

pub(crate) fn run(
    address: SocketAddr,
    connections: usize,
    length: Duration,
    waves: bool,
) -> io::Result<Value> {
    let mut arrivals = arrivals(address, connections)?;
    let mut events = Events::with_capacity(EVENTS);
    let mut buffer = vec![0; REPLY_BYTES];
    let mut wave_time = histogram()?;
    let start = Instant::now();
    while start.elapsed() < length {
        let wave = Instant::now();
        (0..connections).for_each(|slot| arrivals.open(slot));
        while arrivals.open > 0 {
            let again = !waves && start.elapsed() < length;
            arrivals.turn(&mut events, &mut buffer, again)?;
        }
        wave_time.saturating_record(ns(wave.elapsed()));
    }
    Ok(arrivals.result(start, percentiles(&wave_time)))
}
