//! The instructions of the gate, in the machine language of eBPF (RFC 9669).

/// Where a key is built on the stack: the mark, then the masked address.
const KEY: i16 = -32;
/// The address as it is in the packet; an IPv4 address is its last word.
const ADDRESS: i16 = -64;
/// The number of the limit whose refusals are counted.
const SLOT: i16 = -40;
/// The flags of the TCP header.
const FLAGS: i16 = -8;

/// Functions of the kernel, by their number in linux/bpf.h.
const MAP_LOOK_UP: i32 = 1;
const KTIME_GET_NS: i32 = 5;
const LOAD_BYTES: i32 = 26;
const LOAD_BYTES_RELATIVE: i32 = 68;

/// Of `struct sk_reuseport_md`: the protocol that follows the Ethernet header, in network order.
const ETH_PROTOCOL: i16 = 20;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Where the source address is in a network header.
const IPV4_SOURCE: i32 = 12;
const IPV6_SOURCE: i32 = 8;
/// The first three words of an IPv4 address mapped into IPv6.
const MAPPED: [[u8; 4]; 3] = [[0; 4], [0; 4], [0, 0, 0xff, 0xff]];
/// BPF_HDR_START_NET: offsets count from the network header.
const FROM_NETWORK_HEADER: i32 = 1;
/// Where the flags are in a TCP header; SYN and ACK among them.
const TCP_FLAGS: i32 = 13;
const SYN_AND_ACK: i32 = 0x12;
const SYN: i32 = 0x02;

/// Answers of a program: the group gets no such packet, which TCP tells the client by a reset; or
/// the kernel chooses a socket as it does without a program.
const SK_DROP: i32 = 0;
const SK_PASS: i32 = 1;

/// One instruction of eBPF.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct Instruction {
    code: u8,
    /// The destination in the low half, the source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// What the gate asks for each client that connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct WatchedKey {
    /// The beginning of the keys of the entries.
    pub(in crate::sys) mark: u32,
    /// Where refusals are counted.
    pub(in crate::sys) slot: u32,
    /// The bits that count, of an IPv4 address mapped into IPv6 and of an IPv6 address.
    pub(in crate::sys) masks: [u128; 2],
}

/// A prefix of translators (RFC 6052), whose clients are looked for at their IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sys) struct Translator {
    pub(in crate::sys) address: u128,
    pub(in crate::sys) mask: u128,
}

impl Translator {
    /// Whether the IPv4 address is the last word; those elsewhere are left to workers.
    fn is_of_96(self) -> bool {
        self.mask == u128::MAX << 32
    }
}

/// The maps, by their descriptor.
#[derive(Debug, Clone, Copy)]
pub(in crate::sys) struct MapNumbers {
    pub(in crate::sys) entries: i32,
    pub(in crate::sys) counts: i32,
}

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landing {
    /// The packet is none of ours.
    Pass,
    /// The part for IPv4.
    V4,
    /// Its questions, once the address is on the stack.
    V4Asks,
    /// What follows the watched key that has been begun last.
    Next,
}

#[derive(Debug, Default)]
struct Assembly {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Landing)>,
}

/// The program: a SYN of a client for which a watched key has an entry that is in force is dropped
/// and counted. Everything else passes: an ACK that completes a handshake by a SYN cookie, packets
/// of connections that are over, and packets that have been cut short.
pub(in crate::sys) fn program(
    watched: &[WatchedKey],
    translators: &[Translator],
    maps: MapNumbers,
) -> Vec<Instruction> {
    let mut all = Assembly::default();
    // r6 keeps the context: calls destroy r1 to r5.
    all.copy(6, 1);
    all.is_syn();
    all.add(0x61, to_from(1, 6), ETH_PROTOCOL, 0); // r1 = eth_protocol
    all.jump(0x15, 1, protocol(IPV4), Landing::V4);
    all.jump(0x55, 1, protocol(IPV6), Landing::Pass);
    all.load_relative(IPV6_SOURCE, ADDRESS, 16);
    for translator in translators {
        all.translate(*translator);
    }
    all.ask(watched, 1, maps);
    all.jump_always(Landing::Pass);
    all.land(Landing::V4);
    all.load_relative(IPV4_SOURCE, ADDRESS + place(3), 4);
    all.land(Landing::V4Asks);
    all.ask(watched, 0, maps);
    all.land(Landing::Pass);
    all.set(0, SK_PASS);
    all.exit();
    all.code
}

impl Assembly {
    fn add(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    /// Loads the flags, and passes unless they are those of a client that begins to connect.
    fn is_syn(&mut self) {
        self.copy(1, 6);
        self.set(2, TCP_FLAGS);
        self.pointer(3, FLAGS);
        self.set(4, 1);
        self.call(LOAD_BYTES);
        self.jump(0x55, 0, 0, Landing::Pass);
        self.add(0x71, to_from(1, 10), FLAGS, 0); // r1 = the byte
        self.add(0x57, to_from(1, 0), 0, SYN_AND_ACK); // r1 &= ...
        self.jump(0x55, 1, SYN, Landing::Pass);
    }

    /// Copies bytes of the network header to the stack, or passes.
    fn load_relative(&mut self, from: i32, to: i16, bytes: i32) {
        self.copy(1, 6);
        self.set(2, from);
        self.pointer(3, to);
        self.set(4, bytes);
        self.set(5, FROM_NETWORK_HEADER);
        self.call(LOAD_BYTES_RELATIVE);
        self.jump(0x55, 0, 0, Landing::Pass);
    }

    /// Leaves for the part of IPv4 if the address is a translator's.
    fn translate(&mut self, translator: Translator) {
        let (address, mask) = (translator.address.to_be_bytes(), translator.mask.to_be_bytes());
        for (word, (part, mask)) in address.chunks(4).zip(mask.chunks(4)).enumerate() {
            let [part, mask] = [part, mask].map(|one| native([one[0], one[1], one[2], one[3]]));
            if mask == 0 {
                continue;
            }
            self.add(0x61, to_from(1, 10), ADDRESS + place(word), 0);
            self.add(0x54, to_from(1, 0), 0, mask); // w1 &= mask
            self.jump(0x56, 1, part & mask, Landing::Next); // if w1 != ...
        }
        self.jump_always(if translator.is_of_96() { Landing::V4Asks } else { Landing::Pass });
        self.land(Landing::Next);
    }

    /// Looks for an entry of each watched key; `family` is the place of its mask.
    fn ask(&mut self, watched: &[WatchedKey], family: usize, maps: MapNumbers) {
        for key in watched {
            self.store(KEY, native(key.mark.to_ne_bytes()));
            let mask = key.masks[family].to_be_bytes();
            for (word, part) in mask.chunks(4).enumerate() {
                let is_mapped = family == 0 && word < 3;
                match is_mapped.then(|| MAPPED[word]) {
                    Some(part) => self.store(KEY + 4 + place(word), native(part)),
                    None => self.masked_word(word, [part[0], part[1], part[2], part[3]]),
                }
            }
            self.map(1, maps.entries);
            self.pointer(2, KEY);
            self.call(MAP_LOOK_UP);
            self.jump(0x15, 0, 0, Landing::Next);
            self.copy(7, 0);
            self.call(KTIME_GET_NS);
            self.add(0x79, to_from(1, 7), 0, 0); // r1 = until
            self.add(0x3d, to_from(0, 1), 0, 0); // over if now >= until
            self.jumps.push((self.code.len() - 1, Landing::Next));
            self.store(SLOT, native(key.slot.to_ne_bytes()));
            self.map(1, maps.counts);
            self.pointer(2, SLOT);
            self.call(MAP_LOOK_UP);
            // The limit is gone.
            self.jump(0x15, 0, 0, Landing::Next);
            self.set(1, 1);
            self.add(0xdb, to_from(0, 1), 0, 0); // of the limit: *(u64 *)r0 += r1, atomically
            self.add(0xdb, to_from(7, 1), 8, 0); // of the client
            self.set(0, SK_DROP);
            self.exit();
            self.land(Landing::Next);
        }
    }

    /// A word of the key is that of the address, without the bits that do not count.
    fn masked_word(&mut self, word: usize, mask: [u8; 4]) {
        let to = KEY + 4 + place(word);
        if mask == [0; 4] {
            return self.store(to, 0);
        }
        self.add(0x61, to_from(1, 10), ADDRESS + place(word), 0);
        if mask != [0xff; 4] {
            self.add(0x54, to_from(1, 0), 0, native(mask)); // w1 &= mask
        }
        self.add(0x63, to_from(10, 1), to, 0);
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.add(0xbf, to_from(to, from), 0, 0);
    }

    fn set(&mut self, register: u8, value: i32) {
        self.add(0xb7, to_from(register, 0), 0, value);
    }

    /// A register points to the stack.
    fn pointer(&mut self, register: u8, offset: i16) {
        self.copy(register, 10);
        self.add(0x07, to_from(register, 0), 0, offset.into());
    }

    /// A register points to a map, by a constant of two instructions.
    fn map(&mut self, register: u8, number: i32) {
        self.add(0x18, to_from(register, 1), 0, number);
        self.add(0, to_from(0, 0), 0, 0);
    }

    /// Stores a word on the stack.
    fn store(&mut self, offset: i16, word: i32) {
        self.add(0x62, to_from(10, 0), offset, word);
    }

    fn call(&mut self, function: i32) {
        self.add(0x85, to_from(0, 0), 0, function);
    }

    fn exit(&mut self) {
        self.add(0x95, to_from(0, 0), 0, 0);
    }

    /// Jumps if a register compares to a value.
    fn jump(&mut self, code: u8, register: u8, value: i32, to: Landing) {
        self.jumps.push((self.code.len(), to));
        self.add(code, to_from(register, 0), 0, value);
    }

    fn jump_always(&mut self, to: Landing) {
        self.jumps.push((self.code.len(), to));
        self.add(0x05, to_from(0, 0), 0, 0);
    }

    /// Jumps that go there come here.
    fn land(&mut self, landing: Landing) {
        let here = self.code.len();
        let (arrived, others) = self.jumps.iter().partition(|(_, to)| *to == landing);
        self.jumps = others;
        let arrived: Vec<(usize, Landing)> = arrived;
        for (from, _) in arrived {
            if let Some(jump) = self.code.get_mut(from) {
                jump.offset = i16::try_from(here - from - 1).unwrap_or(i16::MAX);
            }
        }
    }
}

/// The registers of an instruction: a destination and a source, 0 where there is none.
const fn to_from(destination: u8, source: u8) -> u8 {
    source << 4 | destination
}

/// The offset of a word.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "one of four")]
fn place(word: usize) -> i16 {
    word as i16 * 4
}

/// Bytes of memory as the word that they are to this machine.
fn native(bytes: [u8; 4]) -> i32 {
    i32::from_ne_bytes(bytes)
}

fn protocol(number: [u8; 2]) -> i32 {
    u16::from_ne_bytes(number).into()
}
