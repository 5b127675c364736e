//! What peers send: bytes that tell from which stream and position they are.
//!
//! A stream's bytes come from one table of random bytes, at an offset of its own: a byte that is
//! lost, repeated, reordered or of another session does not match, and comparing costs no more than
//! a comparison of slices.

use std::sync::LazyLock;

/// Length of the table; a prime, so that no power of two is a multiple of it.
const PERIOD: u64 = 65_521;
/// The most that one call moves.
const RUN_MAX: usize = 300_000;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    let period: Vec<u8> = (0..PERIOD).map(|_| random.u8(..)).collect();
    period.iter().copied().cycle().take(PERIOD as usize + RUN_MAX).collect()
});

/// All that one peer may ever send.
#[derive(Debug, Default)]
pub(crate) struct Speech {
    /// Comes first: a PROXY header, a request, or nothing.
    opening: Box<[u8]>,
    /// Where in the table the rest begins.
    offset: u64,
    /// Bytes of the opening that are a header for the worker, and go no further.
    pub(crate) header: u64,
}

impl Speech {
    pub(crate) fn new(random: &mut fastrand::Rng) -> Self {
        Self { offset: random.u64(..PERIOD), ..Self::default() }
    }

    /// With an opening in front, of which this many bytes are a header for the worker.
    pub(crate) fn opening_with(self, opening: Vec<u8>, header: usize) -> Self {
        Self { opening: opening.into(), header: header as u64, ..self }
    }

    /// Bytes of the opening.
    pub(crate) fn opening(&self) -> u64 {
        self.opening.len() as u64
    }

    /// The longest run of bytes from `start` on, at most `count`, that lies in one piece.
    fn run(&self, start: u64, count: usize) -> &[u8] {
        match self.opening.get(start as usize..) {
            Some(rest @ [_, ..]) => &rest[..rest.len().min(count)],
            _ => {
                let at = ((self.offset + start - self.opening()) % PERIOD) as usize;
                &TABLE[at..at + count]
            }
        }
    }

    /// Fills a buffer with the bytes from `start` on.
    pub(crate) fn copy_to(&self, start: u64, buffer: &mut [u8]) {
        let (mut start, mut rest) = (start, buffer);
        while !rest.is_empty() {
            let run = self.run(start, rest.len());
            let (now, later) = rest.split_at_mut(run.len());
            now.copy_from_slice(run);
            start += run.len() as u64;
            rest = later;
        }
    }

    /// Whether these are the bytes from `start` on.
    pub(crate) fn is_at(&self, start: u64, bytes: &[u8]) -> bool {
        let (mut start, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let run = self.run(start, rest.len());
            let (now, later) = rest.split_at(run.len());
            if now != run {
                return false;
            }
            start += run.len() as u64;
            rest = later;
        }
        true
    }
}
