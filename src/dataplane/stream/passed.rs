//! A stream described for another process, and one that goes on as described.

use std::io;

use super::Stream;
use super::port::{Port, Ports};
use super::relay::Relay;
use super::relay::passed::PassedRelay;
use super::wire::{Holds, SIDES, Side, Wire};

/// The stream of a session that changes hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedStream {
    /// What is known of the client's socket and of the backend's, as the bits of [`Port`].
    pub ports: [u16; 2],
    /// The direction to the backend.
    pub to_backend: PassedRelay,
    /// The direction to the client.
    pub to_client: PassedRelay,
    /// Which side has reset it: 0 the client, 1 the backend.
    pub aborted_by: Option<u8>,
}

impl<P: Holds> Stream<P> {
    /// Takes what is in pipes out of them, which go back: a stream that changes hands has none.
    ///
    /// # Errors
    /// As read(2); then bytes are lost, and the session can only end.
    pub(crate) fn leave_pipes<W: Wire<Pipe = P>>(&mut self, wire: &mut W) -> io::Result<()> {
        self.to_backend.keep_in_buffer(wire)?;
        self.to_client.keep_in_buffer(wire)
    }

    /// It, described; after [`Self::leave_pipes`].
    pub(crate) fn passed(&self) -> PassedStream {
        PassedStream {
            ports: [self.ports.client.bits(), self.ports.backend.bits()],
            to_backend: self.to_backend.passed(),
            to_client: self.to_client.passed(),
            aborted_by: self.aborted_by.map(|side| side as u8),
        }
    }

    /// Bytes that it has taken from one side and holds in a buffer.
    pub(crate) fn buffered(&self, from: Side) -> &[u8] {
        self.relay(from).buffered()
    }

    /// The one described, which holds these bytes of the client and of the backend; `None` where
    /// the description says something else.
    pub(crate) fn resumed(passed: &PassedStream, held: [&[u8]; 2]) -> Option<Self> {
        let [client, backend] = passed.ports.map(Port::from_bits);
        let [from_client, from_backend] = held;
        let aborted_by = match passed.aborted_by {
            Some(side) => Some(SIDES.into_iter().find(|known| *known as u8 == side)?),
            None => None,
        };
        Some(Self {
            ports: Ports { client: client?, backend: backend? },
            to_backend: Relay::resumed(&passed.to_backend, from_client)?,
            to_client: Relay::resumed(&passed.to_client, from_backend)?,
            aborted_by,
        })
    }

    /// Its sockets are registered anew, for everything, and the kernel tells all that is so.
    pub(crate) fn registered_anew(&mut self) {
        SIDES.into_iter().for_each(|side| self.ports.port(side).remove(Port::MUTED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::SpliceMode;
    use crate::sys::splice::Pipe;

    // If this fails, a session that changes hands forgets what it holds, how far a direction has
    // come or what it knows of a socket.
    #[test]
    fn it_goes_on_as_it_was() {
        let mut stream: Stream<Pipe> = Stream::new(SpliceMode::Always);
        stream.preload(b"first words");
        stream.client_ended();
        stream.aborted_by = Some(Side::Backend);
        stream.ports.backend = Port::READABLE | Port::URGENT | Port::MUTED;
        let passed = stream.passed();
        let held = [stream.buffered(Side::Client), stream.buffered(Side::Backend)];
        let mut again: Stream<Pipe> = Stream::resumed(&passed, held).unwrap();
        assert_eq!(again.passed(), passed);
        assert_eq!(again.preloaded(), b"first words");
        assert!(again.has_ended(Side::Client) && !again.has_ended(Side::Backend));
        again.registered_anew();
        assert_eq!(again.port(Side::Backend), Port::READABLE | Port::URGENT);
    }

    // If this fails, what another version means by its words or bits is taken for something else.
    #[test]
    fn what_is_not_understood_is_refused() {
        let good = Stream::<Pipe>::new(SpliceMode::Auto).passed();
        let is_taken = |passed: &PassedStream, held: &[u8]| {
            Stream::<Pipe>::resumed(passed, [held, &[]]).is_some()
        };
        assert!(is_taken(&good, b""));
        assert!(!is_taken(&good, b"too much"));
        assert!(!is_taken(&PassedStream { ports: [1 << 15, 0], ..good.clone() }, b""));
        assert!(!is_taken(&PassedStream { aborted_by: Some(2), ..good.clone() }, b""));
        let mut strange = good;
        strange.to_client.state = "elsewhere".to_owned();
        assert!(!is_taken(&strange, b""));
    }
}
