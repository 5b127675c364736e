//! The PROXY header that a backend gets before any byte of its client.
//!
//! Made anew for every attempt, sent once the handshake is done, and nothing else moves until the
//! kernel has taken all of it; so a backend that fails meanwhile is followed by another, as if its
//! handshake had failed. No relay knows of it: it is in no count of bytes.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use crate::policy::client::Client;
use crate::policy::first_bytes::proxy_header::{self, Ends, Statement};
use crate::shared::ConnectFailure;
use crate::sys::socket;

use super::connection::{Aside, Connection};
use super::slots::SlotKey;
use super::stream::wire::Side;
use super::worker::Worker;

/// A header on its way.
#[derive(Debug)]
pub struct Greeting {
    bytes: Box<[u8]>,
    sent: usize,
}

/// How far a header has come.
#[derive(Debug)]
pub enum Greeted {
    /// All of it is sent.
    Done,
    /// The socket takes no more now.
    Waits,
    /// The backend is gone.
    Failed(io::Error),
}

impl Greeting {
    /// A header of which nothing is sent yet.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into_boxed_slice(), sent: 0 }
    }

    /// Sends what is left, as far as `send` takes it.
    pub fn go_on(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> Greeted {
        while let Some(rest @ [_, ..]) = self.bytes.get(self.sent..) {
            match send(rest) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Greeted::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Greeted::Failed(error),
            }
        }
        Greeted::Done
    }
}

impl Worker {
    /// Makes the header for the attempt that begins, if the pool's backends want one. A reload
    /// before it is sent changes nothing any more.
    pub(super) fn prepare_greeting(&self, connection: &mut Connection) {
        let pool = self.snapshot.current().pool(connection.place.pool);
        let Some(version) = pool.and_then(|pool| pool.send_proxy) else {
            if let Some(aside) = &mut connection.aside {
                aside.greeting = None;
            }
            return;
        };
        let number = connection.place.number.to_string();
        let statement = Statement {
            ends: ends(connection),
            unique_id: number.as_bytes(),
            authority: connection.aside.as_ref().and_then(|aside| aside.authority.as_deref()),
        };
        let greeting = Greeting::new(proxy_header::encode(version, &statement));
        connection.aside.get_or_insert_with(Box::<Aside>::default).greeting = Some(greeting);
    }

    /// Sends what is left of the header of a backend that is connected; true once it has it all.
    #[cold]
    pub(super) fn greet(&mut self, key: SlotKey) -> bool {
        let Some(connection) = self.table.slots.get_mut(key) else { return false };
        let Some(aside) = &mut connection.aside else { return true };
        let (Some(greeting), Some(backend)) = (&mut aside.greeting, &connection.backend) else {
            return true;
        };
        match greeting.go_on(|bytes| socket::send(backend.as_fd(), bytes)) {
            Greeted::Done => {
                aside.greeting = None;
                true
            }
            Greeted::Waits => {
                connection.phase.greets();
                false
            }
            Greeted::Failed(error) => {
                self.retry(key, ConnectFailure::of(&error));
                false
            }
        }
    }

    /// Something happened to a connection whose backend does not have its header yet.
    pub(super) fn greeting_event(&mut self, key: SlotKey, side: Side, has_failed: bool) {
        match side {
            Side::Client if has_failed => self.abandon(key),
            Side::Client => {}
            Side::Backend if self.greet(key) => self.serve(key),
            Side::Backend => {}
        }
    }
}

/// What the client said of its connection itself, else both addresses of its socket; a Unix socket
/// has none.
fn ends(connection: &Connection) -> Option<Ends> {
    let Client::At(source) = connection.peer else { return None };
    let claimed = connection.aside.as_ref().and_then(|aside| aside.destination);
    let destination = claimed.or_else(|| socket::local_address(connection.client.as_fd()).ok());
    destination.map(|destination| Ends { source, destination })
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a backend gets a header with a hole, or the client's bytes before its end.
    #[test]
    fn every_short_write_goes_on_where_it_stopped() {
        let whole: Vec<u8> = (0..=99).collect();
        for most in 1..=100 {
            let (mut got, mut calls) = (Vec::<u8>::new(), 0);
            let mut greeting = Greeting::new(whole.clone());
            let mut send = |bytes: &[u8]| {
                calls += 1;
                match calls % 3 {
                    0 => return Err(ErrorKind::WouldBlock.into()),
                    1 if calls > 3 => return Err(ErrorKind::Interrupted.into()),
                    _ => {}
                }
                let taken = bytes.len().min(most);
                got.extend(bytes.iter().take(taken));
                Ok(taken)
            };
            // Each call sends a byte or is the one of three that does not.
            let ends = (0..300).find_map(|_| match greeting.go_on(&mut send) {
                Greeted::Waits => None,
                end => Some(end),
            });
            assert!(matches!(ends, Some(Greeted::Done)), "{ends:?}");
            assert_eq!(got, whole, "{most} at a time");
        }
    }

    // If this fails, a backend that is gone is waited for.
    #[test]
    fn an_error_is_told() {
        let mut greeting = Greeting::new(vec![1]);
        let failed = greeting.go_on(|_| Err(ErrorKind::ConnectionReset.into()));
        assert!(matches!(failed, Greeted::Failed(_)), "{failed:?}");
    }
}
