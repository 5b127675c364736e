//! The gate: a program before the accept queues of an address, which refuses clients by entries
//! that say until when.
//!
//! The kernel asks it which socket of a reuseport group takes a packet (SK_REUSEPORT, Linux 4.19);
//! where it names none, TCP answers with a reset, before any handshake. All gates share two maps:
//! entries by client, and the number of refusals by limit. See docs/adr/0051.

/// What it consists of.
pub(super) mod instructions;

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::bpf::{self, Map, MapKind, MapShape};
use instructions::{MapNumbers, Translator, WatchedKey};

/// A mark and an address.
const KEY_BYTES: usize = 4 + 16;
/// Until when, in nanoseconds of CLOCK_MONOTONIC, and how often.
const ENTRY_BYTES: usize = 8 + 8;

/// The key of an entry: the client as one limit sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateKey {
    /// Stands for the limit, as long as it does not change.
    pub mark: u32,
    /// The masked address, IPv4 mapped into IPv6.
    pub address: u128,
}

/// A limit that a gate looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateWatch {
    /// The mark of its entries.
    pub mark: u32,
    /// Where its refusals are counted.
    pub slot: u32,
    /// Leading bits of an IPv4 address that count, at most 32.
    pub v4: u8,
    /// Leading bits of an IPv6 address that count, at most 128.
    pub v6: u8,
}

/// Addresses that a gate looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePlan {
    /// The limits; the first that has an entry refuses.
    pub watches: Vec<GateWatch>,
    /// Prefixes of translators: address and length. Clients of those with 96 bits are looked for at
    /// their IPv4 address, those of others are let in.
    pub translators: Vec<(Ipv6Addr, u8)>,
}

/// The maps of all gates.
#[derive(Debug)]
pub struct GateMaps {
    entries: Map,
    counts: Map,
}

/// A program that is ready to be put before an address.
#[derive(Debug)]
pub struct GateCode(OwnedFd);

impl GateMaps {
    /// Maps for this many clients, in memory that is taken now, about 100 bytes each, and for the
    /// refusals of this many limits.
    ///
    /// # Errors
    /// As bpf(2): `EPERM` without CAP_BPF, or where a filter of system calls keeps bpf(2) away.
    pub fn new(clients_max: u32, limits_max: u32) -> io::Result<Self> {
        let entries = MapShape {
            kind: MapKind::LruHash,
            key_bytes: KEY_BYTES,
            value_bytes: ENTRY_BYTES,
            entries_max: clients_max,
        };
        let counts = MapShape {
            kind: MapKind::PerCpuHash,
            key_bytes: 4,
            value_bytes: 8,
            entries_max: limits_max,
        };
        Ok(Self { entries: Map::new(entries)?, counts: Map::new(counts)? })
    }

    /// A program that looks for entries of these limits.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn code(&self, plan: &GatePlan) -> io::Result<GateCode> {
        let watched: Vec<WatchedKey> = plan.watches.iter().map(watched).collect();
        let translators = plan.translators.iter().map(|(address, bits)| Translator {
            address: address.to_bits(),
            mask: leading(u32::from(*bits)),
        });
        let translators: Vec<Translator> = translators.collect();
        let [entries, counts] = [&self.entries, &self.counts].map(|map| map.as_fd().as_raw_fd());
        let code = instructions::program(&watched, &translators, MapNumbers { entries, counts });
        bpf::load(&code).map(GateCode)
    }

    /// Begins to count the refusals of a limit. Without this its entries refuse no client.
    ///
    /// # Errors
    /// As bpf(2); `E2BIG` when there are as many limits as there may be.
    pub fn count(&self, slot: u32) -> io::Result<()> {
        self.counts.store(&slot.to_ne_bytes(), &vec![0; self.counts.read_bytes()])
    }

    /// Stops to count the refusals of a limit, and to refuse for it.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn stop_counting(&self, slot: u32) -> io::Result<()> {
        self.counts.remove(&slot.to_ne_bytes()).map(drop)
    }

    /// How many clients were refused for a limit; 0 when it is not counted.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn refused(&self, slot: u32) -> io::Result<u64> {
        let mut counts = vec![0; self.counts.read_bytes()];
        let is_there = self.counts.read(&slot.to_ne_bytes(), &mut counts)?;
        let counts = counts.chunks_exact(8).map(word);
        Ok(if is_there { counts.sum() } else { 0 })
    }

    /// Refuses a client until a time of CLOCK_MONOTONIC. One that is refused for as long already
    /// keeps its entry, and with it the count of what was refused.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn enter(&self, key: GateKey, until: Duration) -> io::Result<()> {
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        let mut value = [0; ENTRY_BYTES];
        self.entries.read(&key.bytes(), &mut value)?;
        let [earlier, refused] = halves(&value);
        if earlier >= until {
            return Ok(());
        }
        value[..8].copy_from_slice(&until.to_ne_bytes());
        value[8..].copy_from_slice(&refused.to_ne_bytes());
        self.entries.store(&key.bytes(), &value)
    }

    /// Refuses a client no more.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn forget(&self, key: GateKey) -> io::Result<()> {
        self.entries.remove(&key.bytes()).map(drop)
    }

    /// Calls `each` with every client that has been refused since its entry was made, and how
    /// often.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn for_each_refused(&self, mut each: impl FnMut(GateKey, u64)) -> io::Result<()> {
        self.entries.for_each(|key, value| {
            let [_, refused] = halves(value);
            if refused > 0 {
                each(GateKey::of(key), refused);
            }
        })
    }
}

impl GateCode {
    /// Puts it before the address of a socket that listens, for all sockets of its reuseport group.
    ///
    /// # Errors
    /// As socket(7), SO_ATTACH_REUSEPORT_EBPF: `EINVAL` for a socket without SO_REUSEPORT,
    /// `EOPNOTSUPP` for Multipath TCP.
    pub fn put_before(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::attach(socket, self.0.as_fd())
    }
}

/// Takes away what stands before the address of a socket, whichever process has put it there.
///
/// # Errors
/// As socket(7), SO_DETACH_REUSEPORT_BPF.
pub fn open(socket: BorrowedFd<'_>) -> io::Result<()> {
    bpf::detach(socket)
}

impl GateKey {
    fn bytes(self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..4].copy_from_slice(&self.mark.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.address.to_be_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Self {
        let (mark, address) = bytes.split_at(4);
        let mark = mark.iter().rev();
        let mark = if cfg!(target_endian = "little") {
            mark.fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        } else {
            mark.rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        Self { mark, address: address.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte)) }
    }
}

/// A mask of this many bits.
fn leading(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0)
}

fn watched(watch: &GateWatch) -> WatchedKey {
    let v4 = leading(96 + u32::from(watch.v4).min(32));
    WatchedKey { mark: watch.mark, slot: watch.slot, masks: [v4, leading(watch.v6.into())] }
}

fn halves(value: &[u8]) -> [u64; 2] {
    let (first, second) = value.split_at(8);
    [word(first), word(second)]
}

/// A number of this machine; 0 for another number of bytes than 8.
fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests;
