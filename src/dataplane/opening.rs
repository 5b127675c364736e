//! What is read of a connection before there is a backend for it.
//!
//! From peers that have to say who their client is, the PROXY header: only then is the client
//! judged, by the address that was claimed. The places of a session are taken before, so what waits
//! here is bounded like everything else. Bytes behind the header are held and go to the backend
//! unaltered. Connections of listeners that want nothing of this never come here.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::proxy_header::{self, Header, V2_BYTES_MAX};
use crate::shared::{AcceptProxy, Listener, RefuseReason};
use crate::sys::socket;

use super::connect::Dead;
use super::connection::{Admitted, Aside, Connection};
use super::slots::SlotKey;
use super::wire::Side;
use super::worker::Worker;

/// What has been read, and how long it may take.
#[derive(Debug)]
pub(crate) struct Reading {
    bytes: Vec<u8>,
    /// The client has sent FIN behind them.
    has_ended: bool,
    /// From when the reading began.
    pub(crate) timeout: Duration,
}

/// How a look at a connection that is being read ended.
enum Read {
    /// More has to come.
    Waits,
    /// A backend is being connected.
    Attempted,
}

impl Reading {
    fn new(timeout: Duration) -> Self {
        Self { bytes: Vec::new(), has_ended: false, timeout }
    }
}

impl Worker {
    /// Takes a connection whose peer has to say who the client is, or turns the peer away.
    #[cold]
    pub(super) fn arrive_with_header(
        &mut self,
        listener: &Arc<Listener>,
        rule: &AcceptProxy,
        (client, peer): (OwnedFd, SocketAddr),
    ) {
        if !rule.from.contains(peer.ip()) {
            return self.refuse(listener, client, peer, RefuseReason::ProxyHeader);
        }
        if let Err(reason) = self.claim_places(listener) {
            return self.refuse(listener, client, peer, reason);
        }
        let mut connection = self.new_connection(listener, client, peer, Admitted::default());
        connection.phase.reads(self.now);
        let reading = Some(Reading::new(rule.timeout));
        connection.aside = Some(Box::new(Aside { reading, ..Aside::default() }));
        self.read_first(connection);
    }

    /// Puts a connection that is to be read into the table, and reads what has come already.
    fn read_first(&mut self, connection: Connection) {
        let key = match self.table.slots.insert(connection) {
            Ok(key) => key,
            Err(connection) => {
                return self.discard(connection, Dead::Refused(RefuseReason::MaxSessions));
            }
        };
        if self.register(key, Side::Client).is_err() {
            return self.give_up(key, Dead::Refused(RefuseReason::Descriptors));
        }
        self.read_on(key);
    }

    /// Something has come from a client that is being read.
    #[cold]
    pub(super) fn read_on(&mut self, key: SlotKey) {
        let Some(mut connection) = self.table.slots.lift(key) else { return };
        let outcome = self.read_lifted(&mut connection);
        self.table.slots.put_back(key, connection);
        match outcome {
            Err(dead) => self.give_up(key, dead),
            Ok(Read::Attempted) if self.register(key, Side::Backend).is_err() => {
                self.give_up(key, Dead::Refused(RefuseReason::Descriptors));
            }
            Ok(Read::Waits | Read::Attempted) => self.rearm(key),
        }
    }

    /// Reads until there is enough, or nothing more for now. It ends: what is read is bounded.
    fn read_lifted(&mut self, connection: &mut Connection) -> Result<Read, Dead> {
        loop {
            let Some(reading) = connection.aside.as_mut().and_then(|aside| aside.reading.as_mut())
            else {
                return Ok(Read::Waits);
            };
            match proxy_header::parse(&reading.bytes) {
                Ok(Some(header)) => {
                    self.believe(connection, header)?;
                    return self.enter(connection).map(|()| Read::Attempted);
                }
                Ok(None) if reading.has_ended => return Err(refused_header()),
                Ok(None) => {}
                Err(_) => return Err(refused_header()),
            }
            if !self.receive_more(connection)? {
                return Ok(Read::Waits);
            }
        }
    }

    /// Receives once; false when nothing has come.
    fn receive_more(&mut self, connection: &mut Connection) -> Result<bool, Dead> {
        let reading = connection.aside.as_mut().and_then(|aside| aside.reading.as_mut());
        let Some(reading) = reading else { return Ok(false) };
        let room = V2_BYTES_MAX.saturating_sub(reading.bytes.len());
        let Some(buffer) = self.tools.scratch.get_mut(..room) else { return Ok(false) };
        match socket::receive(connection.client.as_fd(), buffer) {
            Ok(0) => reading.has_ended = true,
            Ok(received) => {
                reading.bytes.extend_from_slice(buffer.get(..received).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Dead::Gone),
        }
        Ok(true)
    }

    /// Takes what a header says for the truth, and judges the client by it.
    fn believe(&self, connection: &mut Connection, header: Header) -> Result<(), Dead> {
        let snapshot = self.snapshot.current();
        if let Some(aside) = &mut connection.aside {
            if let Some(ends) = header.ends {
                connection.peer = ends.source;
                aside.destination = Some(ends.destination);
            }
            aside.authority = header.authority;
            if let Some(reading) = &mut aside.reading {
                reading.bytes.drain(..header.length.min(reading.bytes.len()));
            }
        }
        // It stays in the snapshot as long as it has sessions.
        let listener = snapshot.listener(connection.place.listener).ok_or(Dead::Gone)?;
        let admitted = self.admit_client(listener, connection.peer.ip());
        let admitted = admitted.map_err(Dead::Refused)?;
        connection.place.counted = admitted.counted;
        connection.place.observed = admitted.observed;
        Ok(())
    }

    /// Goes on to a backend with what has been read.
    fn enter(&mut self, connection: &mut Connection) -> Result<(), Dead> {
        let reading = connection.aside.as_mut().and_then(|aside| aside.reading.take());
        let (bytes, has_ended) =
            reading.map_or_else(Default::default, |reading| (reading.bytes, reading.has_ended));
        // Never taken for drained: the events that told of what lies behind have been used up.
        connection.session.preload(&bytes, false);
        if has_ended {
            connection.session.client_ended();
        }
        connection.phase.attempts(self.now);
        self.attempt(connection, !bytes.is_empty())
    }

    /// What was to be read has not come in time.
    #[cold]
    pub(super) fn reading_timed_out(&mut self, key: SlotKey) {
        self.give_up(key, refused_header());
    }
}

const fn refused_header() -> Dead {
    Dead::Refused(RefuseReason::ProxyHeader)
}
