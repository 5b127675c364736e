//! What the control plane gets of sessions that change hands: windows of parked ones.
//!
//! A parked session is in no table and no epoll instance: no worker moves its bytes, and it keeps
//! its places. A worker of the process before parks a window of its sessions; the process after
//! makes the sessions it is told of parked ones as well. Once that is acknowledged the one process
//! gives its window up and the other resumes its own, so that only one ever moves their bytes. If
//! it comes to nothing, it is the other way round.

use super::kernel::Kernel;
use super::linux::Linux;
use super::passed_session::PassedSession;
use super::session::Session;
use super::stream::wire::SIDES;

/// Sessions in one window: all of them pause for as long as it takes.
pub const WINDOW_SESSIONS_MAX: usize = 100;
/// Held bytes beyond which no further session is added to a window.
pub(super) const WINDOW_HELD_MAX: usize = 8 * 1024 * 1024;

/// Sessions of one worker that are parked.
#[derive(Debug)]
pub struct Window<K: Kernel = Linux> {
    pub(super) sessions: Vec<Session<K>>,
    /// In their order.
    pub(super) passed: Vec<PassedSession>,
    /// Those that were to be parked here and cannot be, by number.
    pub(super) refused: Vec<u64>,
    /// The number that was passed over and may be parked later.
    pub(super) not_yet: usize,
    /// The slot to go on with; `None` when all have been looked at.
    pub(super) next: Option<u32>,
}

impl<K: Kernel> Window<K> {
    pub(super) fn with(sessions: Vec<Session<K>>) -> Self {
        Self { sessions, passed: Vec::new(), refused: Vec::new(), not_yet: 0, next: None }
    }

    /// One for which no session has been looked at.
    #[must_use]
    pub fn new() -> Self {
        Self { next: Some(0), ..Self::with(Vec::new()) }
    }

    /// One that goes on behind this one; `None` when all have been looked at.
    #[must_use]
    pub fn following(&self) -> Option<Self> {
        Some(Self { next: Some(self.next?), ..Self::with(Vec::new()) })
    }

    /// Its sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Its sessions, described.
    #[must_use]
    pub fn passed(&self) -> &[PassedSession] {
        &self.passed
    }

    /// Numbers of sessions that were to be parked here and cannot be: this process does not know
    /// where they belong.
    #[must_use]
    pub fn refused(&self) -> &[u64] {
        &self.refused
    }

    /// The number of sessions that were passed over and may be parked later: no byte of theirs
    /// moves yet.
    #[must_use]
    pub fn not_yet(&self) -> usize {
        self.not_yet
    }

    /// The bytes that each session holds: of its client, of its backend.
    pub fn held(&self) -> impl Iterator<Item = [&[u8]; 2]> {
        self.sessions.iter().map(|it| SIDES.map(|from| it.stream.buffered(from)))
    }

    /// The sockets of each session: the client's, then the backend's.
    pub fn sockets(&self) -> impl Iterator<Item = &K::Socket> {
        self.sessions
            .iter()
            .flat_map(|it| std::iter::once(&it.client_socket).chain(&it.backend_socket))
    }

    /// Takes out those with these numbers, which are not to be parked again.
    #[must_use]
    pub fn take_out(&mut self, numbers: &[u64]) -> Self {
        let is_meant = |it: &mut Session<K>| numbers.contains(&it.place.number);
        let mut out: Vec<_> = self.sessions.extract_if(.., is_meant).collect();
        out.iter_mut().for_each(|session| session.stays = true);
        Self::with(out)
    }
}

impl<K: Kernel> Default for Window<K> {
    fn default() -> Self {
        Self::new()
    }
}
