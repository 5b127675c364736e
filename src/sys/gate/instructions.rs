//! The program of a gate: what it asks of each client that begins to connect, and in which order.
//!
//! Registers: r6 is the context, r7 the entry of a client, r8 the greatest value that a list has
//! for it.

use super::assembly::{
    Assembly, Instruction, KTIME_GET_NS, LOAD_BYTES, Landing, MAP_UPDATE, native, place, to_from,
};

/// The address as it is in the packet, IPv4 mapped into IPv6, behind a word: as the key of a map
/// of networks the length of the prefix, as that of a refused client the mark.
const CLIENT: i16 = -32;
/// The IPv4 address that a translator has embedded in it, likewise.
const EMBEDDED: i16 = -64;
/// Where the key of an entry is built: the mark, then the masked address.
const ENTRY: i16 = -96;
/// The value of a client that has not been refused before: 16 bytes.
const NEWCOMER: i16 = -112;
/// The number of the limit whose refusals are counted.
const SLOT: i16 = -40;
/// The flags of the TCP header.
const FLAGS: i16 = -8;

/// Of `struct sk_reuseport_md`: the protocol that follows the Ethernet header, in network order.
const ETH_PROTOCOL: i16 = 20;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Where the source address is in a network header.
const IPV4_SOURCE: i32 = 12;
const IPV6_SOURCE: i32 = 8;
/// The first three words of an IPv4 address mapped into IPv6.
const MAPPED: [[u8; 4]; 3] = [[0; 4], [0; 4], [0, 0, 0xff, 0xff]];
/// The octet that stays zero within a longer address behind a translator (bits 64 to 71).
const SKIPPED_OCTET: i16 = 8;
/// Where the flags are in a TCP header; SYN and ACK among them.
const TCP_FLAGS: i32 = 13;
const SYN_AND_ACK: i32 = 0x12;
const SYN: i32 = 0x02;

/// BPF_NOEXIST: another CPU may have stored it meanwhile.
const UNLESS_THERE: i32 = 1;

/// Answers of a program: the group gets no such packet, which TCP tells the client by a reset; or
/// the kernel chooses a socket as it does without a program.
const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;

/// A limit whose entries the gate looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct WatchedKey {
    /// The beginning of the keys of the entries.
    pub(in crate::sys) mark: u32,
    /// Where refusals are counted.
    pub(in crate::sys) slot: u32,
    /// The bits that count, of an IPv4 address mapped into IPv6 and of an IPv6 address.
    pub(in crate::sys) masks: [u128; 2],
}

/// A list of networks that the gate looks at: the maps by their descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct AskedList {
    /// Of whole addresses, asked first.
    pub(in crate::sys) addresses: Option<i32>,
    /// Of networks, by the longest prefix.
    pub(in crate::sys) networks: Option<i32>,
    /// Where refusals are counted, and the mark of those refused.
    pub(in crate::sys) slot: u32,
    /// `None`: the value is the time until which clients are refused. Else the value of those that
    /// are let in.
    pub(in crate::sys) admitted: Option<i32>,
}

/// A prefix of translators (RFC 6052), whose clients are looked for at their IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct Translator {
    pub(in crate::sys) address: u128,
    /// Bits of the prefix.
    pub(in crate::sys) length: u8,
}

impl Translator {
    /// Where the IPv4 address is.
    fn octets(self) -> impl Iterator<Item = i16> {
        let behind = i16::from(self.length) / 8..;
        behind.filter(|octet| *octet != SKIPPED_OCTET).take(4)
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.length.min(128))).unwrap_or(0)
    }
}

/// The maps that all programs share, by their descriptors.
#[derive(Debug, Clone, Copy)]
pub(in crate::sys) struct MapNumbers {
    /// Needed where there are watched keys.
    pub(in crate::sys) entries: i32,
    pub(in crate::sys) counts: i32,
    /// Clients that lists have refused.
    pub(in crate::sys) refused: i32,
}

/// What a gate asks: the lists first, as workers do.
#[derive(Debug, Clone, Copy)]
pub(in crate::sys) struct Questions<'a> {
    pub(in crate::sys) lists: &'a [AskedList],
    pub(in crate::sys) watched: &'a [WatchedKey],
    pub(in crate::sys) translators: &'a [Translator],
    pub(in crate::sys) maps: MapNumbers,
}

/// The addresses of a client, as places of the stack.
#[derive(Debug, Clone, Copy)]
struct Addresses<'a> {
    /// Those that lists are asked for.
    listed: &'a [i16],
    /// The one that watched keys are made of.
    limited: i16,
    /// The place of its mask in [`WatchedKey::masks`].
    family: usize,
}

/// The program: a SYN of a client that a list refuses, or for which a watched key has an entry that
/// is in force, is dropped and counted. Everything else passes: an ACK that completes a handshake
/// by a SYN cookie, packets of connections that are over, and packets that have been cut short.
pub(in crate::sys) fn program(questions: Questions<'_>) -> Vec<Instruction> {
    let mut all = Assembly::default();
    // r6 keeps the context: calls destroy r1 to r5.
    all.copy(6, 1);
    is_syn(&mut all);
    for address in [CLIENT, EMBEDDED] {
        all.store(address, native(128_u32.to_ne_bytes()));
    }
    all.add(0x61, to_from(1, 6), ETH_PROTOCOL, 0); // r1 = eth_protocol
    all.jump(0x15, 1, protocol(IPV4), Landing::V4);
    all.jump(0x55, 1, protocol(IPV6), Landing::Pass);
    all.load_relative(IPV6_SOURCE, word(CLIENT, 0), 16);
    for translator in questions.translators {
        translate(&mut all, *translator);
    }
    questions.ask(&mut all, Addresses { listed: &[CLIENT], limited: CLIENT, family: 1 });
    if !questions.translators.is_empty() {
        all.land(Landing::Translated);
        map_into_ipv6(&mut all, EMBEDDED);
        let listed = &[CLIENT, EMBEDDED];
        questions.ask(&mut all, Addresses { listed, limited: EMBEDDED, family: 0 });
    }
    all.land(Landing::V4);
    map_into_ipv6(&mut all, CLIENT);
    all.load_relative(IPV4_SOURCE, word(CLIENT, 3), 4);
    questions.ask(&mut all, Addresses { listed: &[CLIENT], limited: CLIENT, family: 0 });
    if !questions.lists.is_empty() {
        questions.refuse(&mut all);
    }
    all.land(Landing::Pass);
    all.answer(SK_PASS);
    all.code
}

/// Loads the flags, and passes unless they are those of a client that begins to connect.
fn is_syn(all: &mut Assembly) {
    all.copy(1, 6);
    all.set(2, TCP_FLAGS);
    all.pointer(3, FLAGS);
    all.set(4, 1);
    all.call(LOAD_BYTES);
    all.jump(0x55, 0, 0, Landing::Pass);
    all.add(0x71, to_from(1, 10), FLAGS, 0); // r1 = the byte
    all.add(0x57, to_from(1, 0), 0, SYN_AND_ACK); // r1 &= ...
    all.jump(0x55, 1, SYN, Landing::Pass);
}

/// What stands before an IPv4 address in IPv6.
fn map_into_ipv6(all: &mut Assembly, address: i16) {
    for (number, part) in MAPPED.into_iter().enumerate() {
        all.store(word(address, number), native(part));
    }
}

/// Copies the embedded address and leaves for its part, if the client's is a translator's.
fn translate(all: &mut Assembly, translator: Translator) {
    let (address, mask) = (translator.address.to_be_bytes(), translator.mask().to_be_bytes());
    for (number, (part, mask)) in address.chunks(4).zip(mask.chunks(4)).enumerate() {
        let [part, mask] = [part, mask].map(|one| native([one[0], one[1], one[2], one[3]]));
        if mask == 0 {
            continue;
        }
        all.add(0x61, to_from(1, 10), word(CLIENT, number), 0);
        all.add(0x54, to_from(1, 0), 0, mask); // w1 &= mask
        all.jump(0x56, 1, part & mask, Landing::Next); // if w1 != ...
    }
    for (to, from) in (word(EMBEDDED, 3)..).zip(translator.octets()) {
        all.add(0x71, to_from(1, 10), word(CLIENT, 0) + from, 0);
        all.add(0x73, to_from(10, 1), to, 0);
    }
    all.jump_always(Landing::Translated);
    all.land(Landing::Next);
}

impl Questions<'_> {
    /// Asks the lists and the watched keys. A client that is not refused passes.
    fn ask(&self, all: &mut Assembly, addresses: Addresses<'_>) {
        for list in self.lists {
            ask_list(all, *list, addresses.listed);
        }
        for key in self.watched {
            self.ask_entry(all, *key, addresses);
        }
        all.jump_always(Landing::Pass);
    }

    /// Refuses a client whose key has an entry that is in force.
    fn ask_entry(&self, all: &mut Assembly, key: WatchedKey, addresses: Addresses<'_>) {
        all.store(ENTRY, native(key.mark.to_ne_bytes()));
        let mask = key.masks[addresses.family].to_be_bytes();
        for (number, part) in mask.chunks(4).enumerate() {
            let mask = [part[0], part[1], part[2], part[3]];
            all.masked_word(word(addresses.limited, number), word(ENTRY, number), mask);
        }
        all.look_up(self.maps.entries, ENTRY);
        all.jump(0x15, 0, 0, Landing::Next);
        all.copy(7, 0);
        all.call(KTIME_GET_NS);
        all.add(0x79, to_from(1, 7), 0, 0); // r1 = until
        all.jump_if_at_least(0, 1, Landing::Next);
        all.store(SLOT, native(key.slot.to_ne_bytes()));
        all.look_up(self.maps.counts, SLOT);
        // The limit is gone.
        all.jump(0x15, 0, 0, Landing::Next);
        all.set(1, 1);
        all.count(0, 0); // of the limit
        all.count(7, 8); // of the client
        all.answer(SK_DROP);
        all.land(Landing::Next);
    }

    /// Counts a client that a list refuses; the mark of the list stands before its address.
    fn refuse(&self, all: &mut Assembly) {
        let MapNumbers { counts, refused, .. } = self.maps;
        all.land(Landing::Refuse);
        all.look_up(counts, CLIENT);
        // The list is gone.
        all.jump(0x15, 0, 0, Landing::Pass);
        all.set(1, 1);
        all.count(0, 0);
        all.look_up(refused, CLIENT);
        all.jump(0x55, 0, 0, Landing::Known);
        (0..4).for_each(|number| all.store(NEWCOMER + place(number), 0));
        all.map(refused);
        all.pointer(2, CLIENT);
        all.pointer(3, NEWCOMER);
        all.set(4, UNLESS_THERE);
        all.call(MAP_UPDATE);
        all.look_up(refused, CLIENT);
        // There is no room: it is in the sum only.
        all.jump(0x15, 0, 0, Landing::Drop);
        all.land(Landing::Known);
        all.set(1, 1);
        all.count(0, 8);
        all.land(Landing::Drop);
        all.answer(SK_DROP);
    }
}

/// Refuses a client by the greatest value that a list has for its addresses.
fn ask_list(all: &mut Assembly, list: AskedList, addresses: &[i16]) {
    all.set(8, 0);
    for address in addresses {
        let whole = list.addresses.map(|map| (map, word(*address, 0)));
        let network = list.networks.map(|map| (map, *address));
        for (map, key) in [whole, network].into_iter().flatten() {
            all.look_up(map, key);
            all.jump(0x55, 0, 0, Landing::Found);
        }
        all.jump_always(Landing::Missing);
        all.land(Landing::Found);
        all.add(0x79, to_from(1, 0), 0, 0); // r1 = the value
        all.jump_if_at_least(8, 1, Landing::Missing);
        all.copy(8, 1);
        all.land(Landing::Missing);
    }
    match list.admitted {
        Some(admitted) => all.jump(0x15, 8, admitted, Landing::Next),
        None => {
            all.jump(0x15, 8, 0, Landing::Next);
            all.call(KTIME_GET_NS);
            all.jump_if_at_least(0, 8, Landing::Next);
        }
    }
    all.store(CLIENT, native(list.slot.to_ne_bytes()));
    all.jump_always(Landing::Refuse);
    all.land(Landing::Next);
}

/// A word of an address on the stack.
fn word(address: i16, number: usize) -> i16 {
    address + 4 + place(number)
}

fn protocol(number: [u8; 2]) -> i32 {
    u16::from_ne_bytes(number).into()
}
