//! The kernel that the worker is given: [`Kernel`] over a scripted network.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use evenkeel::dataplane::kernel::{Dial, Kernel, Wake};
use evenkeel::dataplane::stream::wire::Holds;
use evenkeel::policy::client::Client;
use evenkeel::shared::{Address, Gate};
use evenkeel::sys::socket::{ConnectStatus, KeepaliveOptions, ListenOptions};
use evenkeel::sys::source::Unconnected;
use mio::Token;

use super::network::Network;
use super::pipe::{Batch, Pipe};
use super::socket::{EpollEntry, Interest, Socket, SocketId};
use super::words;

/// Where clients connect to.
pub(crate) const HERE: ([u8; 4], u16) = ([203, 0, 113, 1], 80);

pub(crate) type SharedNetwork = Rc<RefCell<Network>>;

/// One worker's access to the network.
pub(crate) struct Scripted {
    pub(crate) network: SharedNetwork,
    /// Whose epoll instance this is.
    pub(crate) worker: usize,
}

/// A socket of the worker's. Dropping it closes it.
pub(crate) struct Handle {
    pub(crate) id: SocketId,
    network: SharedNetwork,
}

/// A listening socket of the worker's.
pub(crate) struct ListeningHandle {
    position: usize,
    network: SharedNetwork,
}

/// A descriptor held back.
pub(crate) struct Held(SharedNetwork);

/// The waker of the scripted worker.
#[derive(Debug, Default)]
pub(crate) struct Rung(pub(crate) AtomicBool);

impl Wake for Rung {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Scripted {
    /// Where a socket is registered with this token.
    fn at(&self, token: Token) -> EpollEntry {
        EpollEntry { worker: self.worker, token }
    }
}

impl ListeningHandle {
    pub(crate) fn new(position: usize, network: &SharedNetwork) -> Self {
        Self { position, network: Rc::clone(network) }
    }
}

impl Handle {
    /// Another descriptor of the same socket, as another process is passed.
    pub(crate) fn twin(&self) -> Self {
        self.network.borrow_mut().sockets[self.id].twins += 1;
        Self { id: self.id, network: Rc::clone(&self.network) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let network = &mut *self.network.borrow_mut();
        match network.sockets[self.id].twins.checked_sub(1) {
            Some(left) => network.sockets[self.id].twins = left,
            None => network.close(self.id),
        }
    }
}

impl Drop for ListeningHandle {
    fn drop(&mut self) {
        self.network.borrow_mut().close_listening(self.position);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut network = self.0.borrow_mut();
        network.give_descriptors_back(1);
        // It is spent on a client that is turned away.
        if network.pipes.has_idle() {
            network.problem("a client is turned away while pipes are idle".into());
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Scripted")
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "socket {}", self.id)
    }
}

impl fmt::Debug for ListeningHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "listening socket {}", self.position)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("descriptor")
    }
}

impl Network {
    fn take(&mut self, from: SocketId, most: u64, splices: bool) -> io::Result<Batch> {
        self.interrupted(from)?;
        let lies = self.random.bool();
        let socket = &mut self.sockets[from];
        let start = socket.received;
        let outcome = socket.take(most, splices, lies);
        self.trace(|| format!("  take from {from}, splices: {splices}: {outcome:?}"));
        Ok(Batch { from, start, count: outcome? })
    }

    fn put(&mut self, to: SocketId, wanted: u64) -> io::Result<u64> {
        self.interrupted(to)?;
        let pressed = self.one_in(64);
        if self.sockets[to].shut {
            self.problem(format!("bytes sent to {to} after FIN"));
        }
        let socket = &mut self.sockets[to];
        let outcome = socket.put(wanted, pressed);
        socket.corked &= outcome.is_err();
        self.trace(|| format!("  put {wanted} to {to}: {outcome:?}"));
        outcome
    }

    /// Sends, and checks that these are the bytes that have to come next.
    fn send(&mut self, to: SocketId, bytes: &[u8]) -> io::Result<usize> {
        let position = self.sockets[to].taken();
        let count = self.put(to, bytes.len() as u64)? as usize;
        let sent = &bytes[..count];
        let target = &mut self.sockets[to];
        if target.is_held() {
            target.answer.extend_from_slice(sent);
        } else if target.wants_greeting {
            target.greeting.extend_from_slice(sent);
            words::look_at_greeting(self, to);
        } else {
            let source = target.across.map(|across| &self.sockets[across].speech);
            if !source.is_some_and(|speech| speech.is_at(position + speech.header, sent)) {
                self.problem(format!("wrong bytes for {to} after position {position}"));
            }
        }
        Ok(count)
    }

    fn drain(&mut self, pipe: &mut Pipe, to: SocketId) -> io::Result<usize> {
        let Some(batch) = pipe.batches.pop_front() else { return Ok(0) };
        // Sent in parts, of which the second may meet a reset.
        let broken = batch.count > 1 && self.one_in(64);
        let position = self.sockets[to].taken();
        let outcome = self.put(to, if broken { batch.count / 2 } else { batch.count });
        if broken && outcome.is_ok() {
            self.sockets[to].reset_unheard();
        }
        let count = outcome.as_ref().map_or(0, |count| *count);
        if count < batch.count {
            let (start, left) = (batch.start + count, batch.count - count);
            pipe.batches.push_front(Batch { start, count: left, ..batch });
        }
        let count = outcome?;
        let source = self.sockets[to].across;
        let header = source.map_or(0, |source| self.sockets[source].speech.header);
        let is_right = source == Some(batch.from) && batch.start == position + header;
        if !is_right || self.sockets[to].wants_greeting || self.sockets[to].is_held() {
            self.problem(format!("wrong bytes for {to} after position {position}"));
        }
        Ok(count as usize)
    }

    fn shutdown_write(&mut self, to: SocketId) -> io::Result<()> {
        self.trace(|| format!("  FIN to {to}"));
        let target = &self.sockets[to];
        if target.reset {
            return Err(ErrorKind::NotConnected.into());
        }
        // A client that is turned away has no backend any more.
        let source = target.across.map(|across| &self.sockets[across]);
        let source = source.filter(|source| !source.closed && !target.is_held());
        let is_early = source.is_some_and(|it| !it.peer_finished || target.taken() != it.meant());
        if target.shut {
            self.problem(format!("FIN sent twice to {to}"));
        } else if is_early {
            self.problem(format!("FIN to {to} before the last byte"));
        }
        let target = &mut self.sockets[to];
        target.shut = true;
        target.corked = false;
        // With the peer's FIN this is a hang-up, which is an event.
        target.raise();
        Ok(())
    }

    fn register(&mut self, id: SocketId, entry: EpollEntry, interest: Interest) {
        self.sockets[id].registered = Some((entry, interest));
        if interest != Interest::Muted {
            // A changed registration is answered with what is so now.
            self.sockets[id].raise();
        }
    }

    fn socket(&mut self, handle: &Handle) -> &mut Socket {
        &mut self.sockets[handle.id]
    }
}

impl Kernel for Scripted {
    type Socket = Handle;
    type ListeningSocket = ListeningHandle;
    type Pipe = Pipe;
    type Reserve = Held;

    fn accept(&mut self, from: &ListeningHandle) -> io::Result<(Handle, Client)> {
        let mut network = self.network.borrow_mut();
        let id = network.accept(from.position)?;
        network.trace(|| format!("  accept {id}"));
        network.sockets[id].accepted = true;
        let client = network.sockets[id].address.map_or(Client::Unix, Client::At);
        Ok((Handle { id, network: Rc::clone(&self.network) }, client))
    }

    fn watch_listening(
        &mut self,
        socket: &ListeningHandle,
        token: Token,
        _is_shared: bool,
    ) -> io::Result<()> {
        self.network.borrow_mut().listen(socket.position, token);
        Ok(())
    }

    fn unwatch_listening(&mut self, _socket: &ListeningHandle) {}

    fn retune(&mut self, _: &ListeningHandle, _: &ListenOptions) {}

    fn put_gate(&mut self, _: &ListeningHandle, _: Option<&Gate>) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&mut self) -> io::Result<Held> {
        self.network.borrow_mut().descriptor()?;
        Ok(Held(Rc::clone(&self.network)))
    }

    fn connect(&mut self, to: &Address, dial: Dial) -> Result<Handle, Unconnected> {
        let mut network = self.network.borrow_mut();
        if dial.from.is_some() && network.one_in(8) {
            return Err(Unconnected::Unbound(ErrorKind::AddrNotAvailable.into()));
        }
        let id = network.dial().map_err(Unconnected::Failed)?;
        network.sockets[id].address = to.ip();
        // Backends have the listener's port, or none of their own.
        if !to.is_unix() && to.ip().is_none_or(|to| to.port() != HERE.1) {
            network.problem(format!("connects to {to}, which is no port of the listener"));
        }
        network.trace(|| format!("  connect {id} to {to}"));
        Ok(Handle { id, network: Rc::clone(&self.network) })
    }

    fn connect_status(&mut self, socket: &Handle) -> ConnectStatus {
        self.network.borrow_mut().socket(socket).connect_status()
    }

    fn is_self_connected(&mut self, _: &Handle, _: SocketAddr) -> bool {
        self.network.borrow_mut().one_in(64)
    }

    fn local_address(&mut self, socket: &Handle) -> io::Result<SocketAddr> {
        match self.network.borrow_mut().socket(socket).address {
            Some(_) => Ok(HERE.into()),
            None => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn peer_address(&mut self, socket: &Handle) -> io::Result<SocketAddr> {
        let address = self.network.borrow_mut().socket(socket).address;
        address.ok_or(ErrorKind::Unsupported.into())
    }

    fn register(&mut self, socket: &Handle, token: Token) -> io::Result<()> {
        let mut network = self.network.borrow_mut();
        network.epoll_entry()?;
        network.register(socket.id, self.at(token), Interest::All);
        Ok(())
    }

    fn deregister(&mut self, socket: &Handle) {
        self.network.borrow_mut().sockets[socket.id].registered = None;
    }

    fn mute(&mut self, socket: &Handle, token: Token) -> io::Result<()> {
        self.network.borrow_mut().register(socket.id, self.at(token), Interest::Muted);
        Ok(())
    }

    fn unmute(&mut self, socket: &Handle, token: Token) -> io::Result<()> {
        self.network.borrow_mut().register(socket.id, self.at(token), Interest::All);
        Ok(())
    }

    fn register_held(&mut self, socket: &Handle, token: Token) -> io::Result<()> {
        self.network.borrow_mut().register(socket.id, self.at(token), Interest::Held);
        Ok(())
    }

    fn receive(&mut self, from: &Handle, buffer: &mut [u8]) -> io::Result<usize> {
        let mut network = self.network.borrow_mut();
        let Batch { start, count, .. } = network.take(from.id, buffer.len() as u64, false)?;
        network.socket(from).speech.copy_to(start, &mut buffer[..count as usize]);
        Ok(count as usize)
    }

    fn send(&mut self, to: &Handle, bytes: &[u8]) -> io::Result<usize> {
        self.network.borrow_mut().send(to.id, bytes)
    }

    fn send_last(&mut self, to: &Handle, bytes: &[u8]) -> io::Result<usize> {
        let mut network = self.network.borrow_mut();
        let sent = network.send(to.id, bytes)?;
        network.socket(to).corked = sent == bytes.len();
        Ok(sent)
    }

    fn fill(&mut self, from: &Handle, pipe: &mut Pipe, most: usize) -> io::Result<usize> {
        let room = pipe.capacity.saturating_sub(pipe.held() as u64);
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let batch = self.network.borrow_mut().take(from.id, room.min(most as u64), true)?;
        if batch.count > 0 {
            pipe.batches.push_back(batch);
        }
        Ok(batch.count as usize)
    }

    fn drain(&mut self, pipe: &mut Pipe, to: &Handle) -> io::Result<usize> {
        self.network.borrow_mut().drain(pipe, to.id)
    }

    fn shutdown_write(&mut self, socket: &Handle) -> io::Result<()> {
        self.network.borrow_mut().shutdown_write(socket.id)
    }

    fn unacknowledged(&mut self, socket: &Handle) -> usize {
        // Linux goes on to count what a reset has thrown away.
        self.network.borrow_mut().socket(socket).buffered as usize
    }

    fn reset_on_close(&mut self, socket: &Handle) {
        self.network.borrow_mut().socket(socket).resets_on_close = true;
    }

    fn handshake_time(&mut self, socket: &Handle) -> Option<Duration> {
        socket.id.is_multiple_of(2).then_some(Duration::from_millis(1))
    }

    fn set_keepalive(&mut self, _: &Handle, _: &KeepaliveOptions, _: Option<Duration>) {}

    fn shrink_receive_buffer(&mut self, _: &Handle, _: usize) {}

    fn lend_pipe(&mut self) -> Option<Pipe> {
        let network = &mut *self.network.borrow_mut();
        network.pipes.lend(&mut network.random, &mut network.descriptors)
    }

    fn return_pipe(&mut self, pipe: Pipe) {
        let mut network = self.network.borrow_mut();
        match network.pipes.take_back(pipe) {
            Some(freed) => network.give_descriptors_back(freed),
            None => network.problem("a pipe came back that was never lent".into()),
        }
    }

    fn runs_short_of(&self, _: &Pipe) -> bool {
        self.network.borrow().pipes.runs_short()
    }

    fn room(&mut self, to: &Handle) -> usize {
        let mut network = self.network.borrow_mut();
        // The kernel estimates, and may be short of memory itself.
        let factor = [1, 1, 2, 1000][network.random.usize(..4)];
        let least = [0, 1, 20_000][network.random.usize(..3)];
        let socket = network.socket(to);
        let has_little = socket.room() <= least && socket.buffered > 0 && !socket.reset;
        socket.no_space |= has_little;
        if has_little { 0 } else { socket.room().max(1) as usize * factor }
    }

    fn unload(&mut self, pipe: &mut Pipe) -> io::Result<Box<[u8]>> {
        let mut network = self.network.borrow_mut();
        let mut bytes = vec![0; pipe.held()];
        let mut rest = &mut bytes[..];
        for Batch { from, start, count } in pipe.batches.drain(..) {
            let (head, tail) = rest.split_at_mut(count as usize);
            network.sockets[from].speech.copy_to(start, head);
            rest = tail;
        }
        network.unloaded += 1;
        Ok(bytes.into())
    }

    fn pipes_lent(&self) -> usize {
        self.network.borrow().pipes.lent
    }

    fn close_idle_pipes(&mut self) -> usize {
        let mut network = self.network.borrow_mut();
        let closed = network.pipes.close_idle();
        network.give_descriptors_back(2 * closed);
        closed
    }

    fn time_of_day(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.network.borrow().now.micros())
    }
}
