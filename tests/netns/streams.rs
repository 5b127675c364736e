//! What the two peers of a session send, expect and do: a script that follows from one number.
//!
//! Every stream is a stretch of one table of random bytes that begins where its key says, so a
//! byte that is lost, repeated, moved or another session's is seen where it is, and neither sending
//! nor checking costs more than a copy. The client tells the backend its script in a header.

use std::sync::OnceLock;

/// Longest stream.
pub(crate) const LONGEST: usize = 4 * 1024 * 1024;
/// The table has twice that, so that every stream is one stretch of it.
const TABLE: usize = 2 * LONGEST;
/// Bytes of the header at the front of the client's stream.
pub(crate) const HEADER: usize = 32;

/// The finalizer of splitmix64.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Stream `key`, as long as the longest.
pub(crate) fn stream(key: u64) -> &'static [u8] {
    static TABLE_OF_BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE_OF_BYTES
        .get_or_init(|| (0..TABLE as u64 / 8).flat_map(|word| mix(word).to_le_bytes()).collect());
    let start = usize::try_from(mix(key) % LONGEST as u64).unwrap();
    &table[start..start + LONGEST]
}

/// A sequence of random numbers from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0xd1ce))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = mix(self.0);
        usize::try_from((self.0 >> 11) % bound.max(1) as u64).unwrap()
    }

    /// True once in `bound` times.
    pub(crate) fn once_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    /// 0 bytes to 4 MiB: mostly short, one in a hundred long, evenly over the powers of two.
    fn length(&mut self) -> u32 {
        let (low, high) = match self.below(100) {
            0..3 => return 0,
            3..90 => (0, 14),
            90..99 => (14, 18),
            _ => (18, 22),
        };
        let power = low + self.below(high - low);
        u32::try_from((1 << power) + self.below((1 << power) + 1)).unwrap()
    }
}

/// What a session is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// Both send at once and end when they have sent all.
    Duplex,
    /// The backend sends its second half only after the client's end.
    ClientEndsFirst,
    /// The client sends its second half only after the backend's end.
    BackendEndsFirst,
    /// The backend sends nothing before the client's end.
    ReplyAfterEnd,
    /// The client reads little at a time from a small receive buffer.
    SlowClient,
    /// The same for the backend.
    SlowBackend,
    /// The client resets the connection at a random byte.
    ClientReset,
    /// The same for the backend.
    BackendReset,
    /// The client resets the connection as soon as it has one.
    ClientGone,
}

impl Mode {
    pub(crate) const ALL: [Self; 9] = [
        Self::Duplex,
        Self::ClientEndsFirst,
        Self::BackendEndsFirst,
        Self::ReplyAfterEnd,
        Self::SlowClient,
        Self::SlowBackend,
        Self::ClientReset,
        Self::BackendReset,
        Self::ClientGone,
    ];

    /// Whether a peer breaks off.
    pub(crate) fn has_reset(self) -> bool {
        matches!(self, Self::ClientReset | Self::BackendReset | Self::ClientGone)
    }
}

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    /// Bytes from the client behind the header, and from the backend.
    up: u32,
    down: u32,
    /// Of those, how many are sent before the reset.
    cut: u32,
}

/// One peer's part of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) seed: u64,
    pub(crate) key: u64,
    pub(crate) length: usize,
    /// Sends a reset instead of the byte at this position.
    pub(crate) cut: Option<usize>,
    /// Sends no further than this before the peer's end.
    pub(crate) gate: Option<usize>,
    pub(crate) slow: bool,
    pub(crate) expects_key: u64,
    pub(crate) expects_length: usize,
    pub(crate) expects_reset: bool,
}

impl Script {
    /// The script that follows from a number.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mode = Mode::ALL[dice.below(Mode::ALL.len())];
        let mut up = dice.length();
        let mut down = dice.length();
        // More than the buffers between the peers hold.
        let full = u32::try_from(100_000 + dice.below(500_000)).unwrap();
        match mode {
            Mode::SlowClient => down = full,
            Mode::SlowBackend => up = full,
            _ => {}
        }
        let whole = if mode == Mode::BackendReset { down } else { up };
        let cut = match mode {
            Mode::ClientReset | Mode::BackendReset => dice.below(whole as usize + 1),
            _ => 0,
        };
        Self { seed, mode, up, down, cut: u32::try_from(cut).unwrap() }
    }

    /// As bytes, with a sum over them.
    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mode = Mode::ALL.iter().position(|mode| *mode == self.mode).unwrap();
        bytes[8..12].copy_from_slice(&u32::try_from(mode).unwrap().to_le_bytes());
        bytes[12..16].copy_from_slice(&self.up.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.down.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.cut.to_le_bytes());
        let sum = sum(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// From bytes; `None` when they are not what was written.
    pub(crate) fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (sum(&bytes[..24]) == long(24)).then(|| Self {
            seed: long(0),
            mode: Mode::ALL[word(8) as usize],
            up: word(12),
            down: word(16),
            cut: word(20),
        })
    }

    /// What the client does behind the header.
    pub(crate) fn client(&self) -> Part {
        let (up, down) = (self.up as usize, self.down as usize);
        Part {
            seed: self.seed,
            key: self.seed,
            length: up,
            cut: match self.mode {
                Mode::ClientReset => Some(self.cut as usize),
                Mode::ClientGone => Some(0),
                _ => None,
            },
            gate: (self.mode == Mode::BackendEndsFirst).then_some(up / 2),
            slow: self.mode == Mode::SlowClient,
            expects_key: !self.seed,
            expects_length: down,
            expects_reset: self.mode == Mode::BackendReset,
        }
    }

    /// What the backend does once it has the header.
    pub(crate) fn backend(&self) -> Part {
        let (up, down) = (self.up as usize, self.down as usize);
        Part {
            seed: !self.seed,
            key: !self.seed,
            length: down,
            cut: (self.mode == Mode::BackendReset).then_some(self.cut as usize),
            gate: match self.mode {
                Mode::ClientEndsFirst => Some(down / 2),
                Mode::ReplyAfterEnd => Some(0),
                _ => None,
            },
            slow: self.mode == Mode::SlowBackend,
            expects_key: self.seed,
            expects_length: up,
            expects_reset: matches!(self.mode, Mode::ClientReset | Mode::ClientGone),
        }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0, |sum, word| {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        mix(sum ^ u64::from_le_bytes(padded))
    })
}

/// If it fails, a session of the kind that breaks is not even tried.
#[test]
fn scripts_reach_every_mode_and_size() {
    let scripts: Vec<Script> = (0..20_000).map(Script::of).collect();
    for mode in Mode::ALL {
        assert!(scripts.iter().filter(|script| script.mode == mode).count() > 1000, "{mode:?}");
    }
    assert!(scripts.iter().any(|script| script.up == 0 && script.down == 0));
    assert!(scripts.iter().any(|script| script.up > 3 << 20));
    assert!(scripts.iter().all(|script| script.up as usize <= LONGEST));
    assert!(scripts.iter().any(|script| script.mode == Mode::BackendReset && script.cut > 1000));
    for script in scripts {
        assert_eq!(Script::read(&script.header()), Some(script));
    }
}
