//! The bytes that go before those that move: the first of a client, before it has a backend, and
//! the PROXY header that a backend gets before any byte of its client.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::dataplane::clock::Tick;
use crate::shared::Listener;

/// The bytes that are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// A PROXY header.
    Header,
    /// What decides where the session goes.
    Words,
}

/// The bytes read of a client so far, and how long the reading may take.
#[derive(Debug)]
pub struct Reading {
    /// What has to come.
    pub awaited: Awaited,
    /// What has come and was not used up by a header.
    pub bytes: Vec<u8>,
    /// The client has sent FIN behind them.
    pub has_ended: bool,
    /// When the reading began.
    pub since: Tick,
    /// From then on.
    pub timeout: Duration,
}

impl Reading {
    /// Nothing has come yet from a client of this listener, which was admitted already or has to
    /// name its client first.
    #[must_use]
    pub fn new(listener: &Listener, is_admitted: bool, now: Tick) -> Self {
        let header = listener.accept_proxy.as_ref().map(|rule| rule.timeout);
        let words = listener.routing.as_ref().map(|routing| routing.peek.timeout);
        let (awaited, timeout) =
            if is_admitted { (Awaited::Words, words) } else { (Awaited::Header, header) };
        let timeout = timeout.unwrap_or(Duration::ZERO);
        Self { awaited, bytes: Vec::new(), has_ended: false, since: now, timeout }
    }
}

/// A PROXY header on its way to a backend.
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
