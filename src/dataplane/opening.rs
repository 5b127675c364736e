//! What is read of a connection before there is a backend for it.
//!
//! From peers that have to say who their client is, the PROXY header: only then is the client
//! judged, by the address that was claimed. Where the pool or the hash depends on what the client
//! says, as many of its bytes as decide that. The places of a session are taken before, so what
//! waits here is bounded like everything else. Bytes that are not the header's are held and go to
//! the backend unaltered. Connections of listeners that want nothing of this never come here.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::client::Client;
use crate::policy::first_bytes::proxy_header::{self, Header, V2_BYTES_MAX};
use crate::shared::{AcceptProxy, Listener, RefuseReason, Routing};
use crate::sys::socket;

use super::connect::Dead;
use super::connection::{Admitted, Aside, Connection};
use super::routing::{self, Way};
use super::slots::SlotKey;
use super::stream::wire::Side;
use super::worker::Worker;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A PROXY header.
    Header,
    /// What decides where the session goes.
    Words,
}

/// What has been read, and how long it may take.
#[derive(Debug)]
pub(crate) struct Reading {
    wanted: Wanted,
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
    /// What has been read and not been used up by a header.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn new(wanted: Wanted, timeout: Duration) -> Self {
        Self { wanted, bytes: Vec::new(), has_ended: false, timeout }
    }
}

impl Worker {
    /// Takes a connection whose peer has to say who the client is, or turns the peer away. Its
    /// places are claimed; the client is judged once it is known.
    #[cold]
    pub(super) fn arrive_with_header(
        &mut self,
        listener: &Arc<Listener>,
        rule: &AcceptProxy,
        (client, peer): (OwnedFd, Client),
    ) {
        if !rule.is_from(peer) {
            return self.refuse(listener, client, peer, RefuseReason::ProxyHeader.into());
        }
        if let Err(reason) = self.claim_places(listener) {
            return self.refuse(listener, client, peer, reason);
        }
        self.place(listener, client, peer, None);
    }

    /// Reads the header of a connection that has its places.
    #[cold]
    pub(super) fn open_with_header(
        &mut self,
        listener: &Arc<Listener>,
        client: OwnedFd,
        peer: Client,
    ) {
        let mut connection = self.new_connection(listener, client, peer, Admitted::default());
        connection.phase.reads(self.now);
        let timeout = listener.accept_proxy.as_ref().map_or(Duration::ZERO, |rule| rule.timeout);
        let reading = Some(Reading::new(Wanted::Header, timeout));
        connection.aside = Some(Box::new(Aside { reading, ..Aside::default() }));
        self.read_first(connection);
    }

    /// Opens the session of an admitted client whose pool or hash depends on what it says.
    #[cold]
    pub(super) fn open_by_words(&mut self, mut connection: Connection, routing: &Routing) {
        connection.phase.reads(self.now);
        let reading = Some(Reading::new(Wanted::Words, routing.timeout));
        connection.aside = Some(Box::new(Aside { reading, ..Aside::default() }));
        self.read_first(connection);
    }

    /// Puts a connection that is to be read into the table, and reads what has come already.
    fn read_first(&mut self, connection: Connection) {
        let key = match self.table.slots.insert(connection) {
            Ok(key) => key,
            Err(connection) => {
                return self.discard(connection, Dead::Refused(RefuseReason::MaxSessions.into()));
            }
        };
        if self.register(key, Side::Client).is_err() {
            return self.give_up(key, Dead::Refused(RefuseReason::Descriptors.into()));
        }
        self.read_on(key);
    }

    /// Something has come from a client that is being read.
    #[cold]
    pub(super) fn read_on(&mut self, key: SlotKey) {
        let Some(mut connection) = self.table.slots.lift(key) else { return };
        let outcome = self.read_lifted(&mut connection);
        self.table.slots.put_back(key, connection);
        self.after_reading(key, outcome);
    }

    fn after_reading(&mut self, key: SlotKey, outcome: Result<Read, Dead>) {
        match outcome {
            Err(Dead::Full) => self.wait_in_line(key),
            Err(dead) => self.give_up(key, dead),
            Ok(Read::Attempted) if self.register(key, Side::Backend).is_err() => {
                self.give_up(key, Dead::Refused(RefuseReason::Descriptors.into()));
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
            match reading.wanted {
                Wanted::Words => {
                    if let Some(read) = self.look_at_words(connection)? {
                        return Ok(read);
                    }
                }
                Wanted::Header => match proxy_header::parse(&reading.bytes) {
                    Ok(Some(header)) => {
                        self.believe(connection, header)?;
                        continue;
                    }
                    Ok(None) if !reading.has_ended => {}
                    Ok(None) => return Err(refused_header()),
                    Err(malformed) => {
                        if let Some(aside) = &mut connection.aside {
                            aside.malformed = Some(malformed);
                        }
                        return Err(refused_header());
                    }
                },
            }
            if !self.receive_more(connection)? {
                return Ok(Read::Waits);
            }
        }
    }

    /// Goes on once what has been read decides where to; `None` when more has to come.
    fn look_at_words(&mut self, connection: &mut Connection) -> Result<Option<Read>, Dead> {
        let snapshot = self.snapshot.current();
        // It stays in the snapshot as long as it has sessions.
        let listener = snapshot.listener(connection.place.listener).ok_or(Dead::Gone)?;
        let client = connection.peer.ip();
        let Some(aside) = &mut connection.aside else { return Ok(None) };
        let Some(reading) = &aside.reading else { return Ok(None) };
        let most = listener.routing.as_ref().map_or(0, |routing| routing.bytes_max);
        let way = match routing::find(snapshot, listener, client, &reading.bytes) {
            Some(way) => way,
            None if reading.has_ended || reading.bytes.len() >= most => {
                late_way(listener, client, &reading.bytes)?
            }
            None => return Ok(None),
        };
        aside.key = way.key;
        connection.place.pool = way.pool;
        self.enter(connection).map(|()| Some(Read::Attempted))
    }

    /// Receives once; false when nothing has come.
    fn receive_more(&mut self, connection: &mut Connection) -> Result<bool, Dead> {
        let most = self.bytes_max(connection);
        let reading = connection.aside.as_mut().and_then(|aside| aside.reading.as_mut());
        let Some(reading) = reading else { return Ok(false) };
        let room = most.saturating_sub(reading.bytes.len());
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

    /// How many bytes may be held of a connection that is being read.
    fn bytes_max(&self, connection: &Connection) -> usize {
        let reading = connection.aside.as_ref().and_then(|aside| aside.reading.as_ref());
        if reading.is_some_and(|reading| reading.wanted == Wanted::Header) {
            return V2_BYTES_MAX;
        }
        let listener = self.snapshot.current().listener(connection.place.listener);
        let routing = listener.and_then(|listener| listener.routing.as_ref());
        routing.map_or(V2_BYTES_MAX, |routing| routing.bytes_max)
    }

    /// Takes what a header says for the truth, and judges the client by it.
    fn believe(&self, connection: &mut Connection, header: Header) -> Result<(), Dead> {
        let snapshot = self.snapshot.current();
        if let Some(aside) = &mut connection.aside {
            if let Some(ends) = header.ends {
                connection.peer = ends.source.into();
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
        if let Some(reading) = connection.aside.as_mut().and_then(|aside| aside.reading.as_mut()) {
            let routing = listener.routing.as_ref();
            reading.wanted = Wanted::Words;
            reading.timeout = routing.map_or(reading.timeout, |routing| routing.timeout);
            connection.phase.reads(self.now);
        }
        Ok(())
    }

    /// Goes on to a backend with what has been read.
    fn enter(&mut self, connection: &mut Connection) -> Result<(), Dead> {
        let reading = connection.aside.as_mut().and_then(|aside| aside.reading.take());
        connection.phase.attempts(self.now);
        let (bytes, has_ended) =
            reading.map_or_else(Default::default, |reading| (reading.bytes, reading.has_ended));
        connection.preload((self.snapshot.current(), self.now), &bytes);
        if has_ended {
            connection.stream.client_ended();
        }
        self.first_attempt(connection)
    }

    /// What was to be read has not come in time.
    #[cold]
    pub(super) fn reading_timed_out(&mut self, key: SlotKey) {
        let Some(mut connection) = self.table.slots.lift(key) else { return };
        let outcome = self.go_without(&mut connection);
        self.table.slots.put_back(key, connection);
        self.after_reading(key, outcome.map(|()| Read::Attempted));
    }

    /// Goes on without what was waited for, if that is what the listener wants.
    fn go_without(&mut self, connection: &mut Connection) -> Result<(), Dead> {
        let snapshot = self.snapshot.current();
        let listener = snapshot.listener(connection.place.listener).ok_or(Dead::Gone)?;
        let reading = connection.aside.as_ref().and_then(|aside| aside.reading.as_ref());
        match reading {
            Some(reading) if reading.wanted == Wanted::Words => {
                connection.place.pool =
                    late_way(listener, connection.peer.ip(), &reading.bytes)?.pool;
                self.enter(connection)
            }
            _ => Err(refused_header()),
        }
    }
}

/// Where a client goes that has not said enough.
fn late_way(listener: &Listener, client: Option<IpAddr>, bytes: &[u8]) -> Result<Way, Dead> {
    match &listener.routing {
        Some(routing) if !routing.is_default_else => Err(Dead::Refused(RefuseReason::Peek.into())),
        _ => Ok(routing::give_up(listener, client, bytes)),
    }
}

fn refused_header() -> Dead {
    Dead::Refused(RefuseReason::ProxyHeader.into())
}
