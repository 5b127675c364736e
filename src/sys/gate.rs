//! The gate: a program before the accept queues of an address, which refuses clients by lists of
//! networks, and by entries that say until when.
//!
//! The kernel asks it which socket of a reuseport group takes a packet (SK_REUSEPORT, Linux 4.19);
//! where it names none, TCP answers with a reset, before any handshake. All gates share three maps:
//! entries by client, the number of refusals by limit or list, and the clients that lists have
//! refused. See docs/adr/0051 and 0056.

pub(super) mod assembly;
/// What it consists of.
mod instructions;
mod network_table;

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use super::bpf::{self, Map, MapKind, MapShape};
use instructions::{AskedList, MapNumbers, Questions, Translator, WatchedKey};
pub use network_table::NetworkTable;

/// A mark and an address.
const KEY_BYTES: usize = 4 + 16;
/// Until when, in nanoseconds of CLOCK_MONOTONIC, and how often.
const ENTRY_BYTES: usize = 8 + 8;

/// The key of an entry: the client as one limit or list sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateKey {
    /// Stands for the limit or list, as long as that does not change.
    pub mark: u32,
    /// The masked address, IPv4 mapped into IPv6; of clients that a list refuses the whole one, as
    /// it came.
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

/// A list of networks that a gate looks at.
#[derive(Debug, Clone, Copy)]
pub struct GateList<'a> {
    /// The networks with their values; an address that none covers has 0.
    pub networks: &'a NetworkTable,
    /// Where its refusals are counted; also the mark of the clients that it has refused.
    pub slot: u32,
    /// What the values mean.
    pub meaning: ListMeaning,
}

/// What the values of a list mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListMeaning {
    /// Clients are refused until then, in nanoseconds of CLOCK_MONOTONIC.
    RefusedUntil,
    /// Clients with this value are let in, all others refused.
    Admitted(u8),
}

/// What a gate asks of each client. Of one with two addresses (see `translators`) the greater value
/// of a list counts.
#[derive(Debug, Clone, Default)]
pub struct GatePlan<'a> {
    /// The lists, asked first; the first that refuses counts.
    pub lists: Vec<GateList<'a>>,
    /// The limits; the first that has an entry refuses.
    pub watches: Vec<GateWatch>,
    /// Prefixes of translators (RFC 6052): address and length. Their clients are looked for at
    /// their IPv4 address, in lists also at their own.
    pub translators: Vec<(Ipv6Addr, u8)>,
}

/// How much the maps of all gates hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateSizes {
    /// Clients with an entry. Their memory is taken with the first program that looks for entries,
    /// about 100 bytes each.
    pub entries: u32,
    /// Limits and lists whose refusals are counted.
    pub counts: u32,
    /// Clients that lists have refused, in memory that is taken at once, about 100 bytes each.
    pub refused: u32,
}

/// The maps of all gates.
#[derive(Debug)]
pub struct GateMaps {
    sizes: GateSizes,
    entries: OnceLock<Map>,
    counts: Map,
    refused: Map,
}

/// A program that is ready to be put before an address.
#[derive(Debug)]
pub struct GateCode(OwnedFd);

impl GateMaps {
    /// Maps of these sizes.
    ///
    /// # Errors
    /// As bpf(2): `EPERM` without CAP_BPF, or where a filter of system calls keeps bpf(2) away.
    pub fn new(sizes: GateSizes) -> io::Result<Self> {
        let counts = MapShape {
            kind: MapKind::PerCpuHash,
            key_bytes: 4,
            value_bytes: 8,
            entries_max: sizes.counts,
        };
        Ok(Self {
            sizes,
            entries: OnceLock::new(),
            counts: Map::new(counts)?,
            refused: clients(sizes.refused)?,
        })
    }

    /// A program that asks this.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn code(&self, plan: &GatePlan<'_>) -> io::Result<GateCode> {
        let lists: Vec<AskedList> = plan.lists.iter().map(asked).collect();
        let watched: Vec<WatchedKey> = plan.watches.iter().map(watched).collect();
        let translators = plan.translators.iter();
        let translators: Vec<Translator> = translators
            .map(|(address, length)| Translator { address: address.to_bits(), length: *length })
            .collect();
        let entries = if watched.is_empty() { -1 } else { number(self.entries()?) };
        let [counts, refused] = [&self.counts, &self.refused].map(number);
        let maps = MapNumbers { entries, counts, refused };
        let (lists, watched, translators) = (&lists[..], &watched[..], &translators[..]);
        let code = instructions::program(Questions { lists, watched, translators, maps });
        bpf::load(&code).map(GateCode)
    }

    /// Makes them for the first that asks.
    fn entries(&self) -> io::Result<&Map> {
        if let Some(entries) = self.entries.get() {
            return Ok(entries);
        }
        let new = clients(self.sizes.entries)?;
        Ok(self.entries.get_or_init(|| new))
    }

    /// Begins to count the refusals of a limit or list. Without this it refuses no client.
    ///
    /// # Errors
    /// As bpf(2); `E2BIG` when there are as many as there may be.
    pub fn count(&self, slot: u32) -> io::Result<()> {
        self.counts.store(&slot.to_ne_bytes(), &vec![0; self.counts.read_bytes()])
    }

    /// Stops to count the refusals of a limit or list, and to refuse for it.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn stop_counting(&self, slot: u32) -> io::Result<()> {
        self.counts.remove(&slot.to_ne_bytes()).map(drop)
    }

    /// How many clients were refused for a limit or list; 0 when it is not counted.
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
        let entries = self.entries()?;
        entries.read(&key.bytes(), &mut value)?;
        let [earlier, refused] = halves(&value);
        if earlier >= until {
            return Ok(());
        }
        value[..8].copy_from_slice(&until.to_ne_bytes());
        value[8..].copy_from_slice(&refused.to_ne_bytes());
        entries.store(&key.bytes(), &value)
    }

    /// Refuses a client no more.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn forget(&self, key: GateKey) -> io::Result<()> {
        self.entries.get().map_or(Ok(()), |entries| entries.remove(&key.bytes()).map(drop))
    }

    /// Calls `each` with every client that has an entry, whether or not it is in force.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn for_each_entry(&self, mut each: impl FnMut(GateKey)) -> io::Result<()> {
        let Some(entries) = self.entries.get() else { return Ok(()) };
        entries.for_each(|key, _| each(GateKey::of(key)))
    }

    /// Calls `each` with every client that has been refused since its entry was made, or that a
    /// list has refused and that is remembered, and how often.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn for_each_refused(&self, mut each: impl FnMut(GateKey, u64)) -> io::Result<()> {
        let maps = self.entries.get().into_iter().chain([&self.refused]);
        for map in maps {
            map.for_each(|key, value| {
                let [_, refused] = halves(value);
                if refused > 0 {
                    each(GateKey::of(key), refused);
                }
            })?;
        }
        Ok(())
    }
}

/// A map that remembers clients and forgets the one that was not seen for longest.
fn clients(entries_max: u32) -> io::Result<Map> {
    Map::new(MapShape {
        kind: MapKind::LruHash,
        key_bytes: KEY_BYTES,
        value_bytes: ENTRY_BYTES,
        entries_max,
    })
}

fn number(map: &Map) -> i32 {
    map.as_fd().as_raw_fd()
}

fn asked(list: &GateList<'_>) -> AskedList {
    let GateList { networks, slot, meaning } = *list;
    let [addresses, networks] = networks.maps().map(|map| map.map(number));
    let admitted = match meaning {
        ListMeaning::RefusedUntil => None,
        ListMeaning::Admitted(value) => Some(value.into()),
    };
    AskedList { addresses, networks, slot, admitted }
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
