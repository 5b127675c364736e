//! Networks with a value each, in maps of the kernel.
//!
//! Whole addresses are in a hash table: a trie takes several times as long to fill. Where that has
//! none, the longest network in a trie counts.

use std::io;

use crate::sys::bpf::{Map, MapKind, MapShape};

/// The length of the prefix, and the address.
const KEY_BYTES: usize = 4 + 16;
const VALUE_BYTES: usize = 8;
/// Bits of a whole address.
const WHOLE: u8 = 128;

/// Networks of IPv6, and of IPv4 mapped into it, with a value each.
#[derive(Debug)]
pub struct NetworkTable {
    addresses: Option<Map>,
    networks: Option<Map>,
}

impl NetworkTable {
    /// Room for this many whole addresses and this many other networks, in memory that is taken as
    /// they are stored, about 100 and 140 bytes each.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn new(addresses_max: u32, networks_max: u32) -> io::Result<Self> {
        let made = |kind, key_bytes, entries_max| {
            let shape = MapShape { kind, key_bytes, value_bytes: VALUE_BYTES, entries_max };
            (entries_max > 0).then(|| Map::new(shape)).transpose()
        };
        // A table of nothing is one as well.
        let networks_max = if addresses_max == 0 { networks_max.max(1) } else { networks_max };
        Ok(Self {
            addresses: made(MapKind::Hash, KEY_BYTES - 4, addresses_max)?,
            networks: made(MapKind::LongestPrefix, KEY_BYTES, networks_max)?,
        })
    }

    /// Gives a network this value.
    ///
    /// # Errors
    /// As bpf(2): `E2BIG` or `ENOSPC` when there is no room, `ENOMEM`.
    pub fn store(&self, address: u128, length: u8, value: u64) -> io::Result<()> {
        let (map, key) = self.place(address, length)?;
        map.store(&key, &value.to_ne_bytes())
    }

    /// Takes a network out; it need not be there.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn remove(&self, address: u128, length: u8) -> io::Result<()> {
        let (map, key) = self.place(address, length)?;
        map.remove(&key).map(drop)
    }

    /// That of whole addresses, and that of other networks.
    pub(super) fn maps(&self) -> [Option<&Map>; 2] {
        [self.addresses.as_ref(), self.networks.as_ref()]
    }

    fn place(&self, address: u128, length: u8) -> io::Result<(&Map, Vec<u8>)> {
        let is_whole = length == WHOLE;
        let map = if is_whole { &self.addresses } else { &self.networks };
        let mut key = Vec::with_capacity(KEY_BYTES);
        if !is_whole {
            key.extend(u32::from(length).to_ne_bytes());
        }
        key.extend(address.to_be_bytes());
        map.as_ref().map(|map| (map, key)).ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}
