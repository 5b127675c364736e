//! The bytes that go before those that move: the first of a client, before it has a backend, and
//! those that a backend gets before any of its client: a PROXY header, PostgreSQL's request for
//! TLS.

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
    /// It asked for encryption by GSSAPI, and was told that there is none.
    pub is_without_gss: bool,
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
        Self {
            awaited,
            bytes: Vec::new(),
            has_ended: false,
            is_without_gss: false,
            since: now,
            timeout,
        }
    }
}

/// What is on its way to a backend before its client's bytes.
#[derive(Debug)]
pub struct Greeting {
    bytes: Box<[u8]>,
    sent: usize,
    /// The byte with which the backend has to answer, until it has.
    answer: Option<u8>,
}

/// How far a greeting has come.
#[derive(Debug)]
pub enum Greeted {
    /// All of it is sent, or answered.
    Done,
    /// The socket takes no more now, or has no answer.
    Waits,
    /// The backend is gone.
    Failed(io::Error),
    /// It answers otherwise.
    Refused,
}

impl Greeting {
    /// A greeting of which nothing is sent yet, and the byte with which it has to be answered.
    #[must_use]
    pub fn new(bytes: Vec<u8>, answer: Option<u8>) -> Self {
        Self { bytes: bytes.into_boxed_slice(), sent: 0, answer }
    }

    /// Hears the answer, if there has to be one; once all is sent. `receive` is asked for one byte.
    pub fn hear(&mut self, mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) -> Greeted {
        while let Some(wanted) = self.answer {
            let mut answer = [0];
            match receive(&mut answer) {
                Ok(1) if answer == [wanted] => self.answer = None,
                Ok(_) => return Greeted::Refused,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Greeted::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Greeted::Failed(error),
            }
        }
        Greeted::Done
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
            let mut greeting = Greeting::new(whole.clone(), None);
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

    // If this fails, a client's hello goes to a backend that does not speak TLS, or an answer is
    // waited for that has come.
    #[test]
    fn one_answer_is_the_right_one() {
        let heard = |said: &[u8]| {
            let mut greeting = Greeting::new(Vec::new(), Some(b'S'));
            let first = greeting.hear(|byte| {
                byte.copy_from_slice(said);
                Ok(said.len())
            });
            (first, greeting)
        };
        let (first, mut greeting) = heard(b"S");
        assert!(matches!(first, Greeted::Done), "{first:?}");
        let again = greeting.hear(|_| panic!("an answer is heard once"));
        assert!(matches!(again, Greeted::Done), "{again:?}");
        assert!(matches!(heard(b"N").0, Greeted::Refused));
        let mut greeting = Greeting::new(Vec::new(), Some(b'S'));
        let nothing = greeting.hear(|_| Err(ErrorKind::WouldBlock.into()));
        assert!(matches!(nothing, Greeted::Waits), "{nothing:?}");
        let ended = greeting.hear(|_| Ok(0));
        assert!(matches!(ended, Greeted::Refused), "{ended:?}");
    }

    // If this fails, a backend that is gone is waited for.
    #[test]
    fn an_error_is_told() {
        let mut greeting = Greeting::new(vec![1], None);
        let failed = greeting.go_on(|_| Err(ErrorKind::ConnectionReset.into()));
        assert!(matches!(failed, Greeted::Failed(_)), "{failed:?}");
    }
}
