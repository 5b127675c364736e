//! Instructions of eBPF (RFC 9669), put together with jumps to places that come later.

/// Functions of the kernel, by their number in linux/bpf.h.
pub(super) const MAP_LOOK_UP: i32 = 1;
pub(super) const MAP_UPDATE: i32 = 2;
pub(super) const KTIME_GET_NS: i32 = 5;
pub(super) const LOAD_BYTES: i32 = 26;
pub(super) const LOAD_BYTES_RELATIVE: i32 = 68;

/// BPF_HDR_START_NET: offsets count from the network header.
const FROM_NETWORK_HEADER: i32 = 1;

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

/// Where a jump goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// The client is not refused, or the packet is none of ours.
    Pass,
    /// The part for IPv4.
    V4,
    /// The part for IPv6 clients whose IPv4 address a translator has embedded in theirs.
    Translated,
    /// What follows the question that has been begun last.
    Next,
    /// A map has a value for the address that is looked for.
    Found,
    /// No map has one.
    Missing,
    /// A list or a ban refuses the client.
    Refuse,
    /// The client has been refused before.
    Known,
    /// The client is refused, and all is counted.
    Drop,
}

/// Instructions, and the jumps among them whose place is not known yet.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) code: Vec<Instruction>,
    jumps: Vec<(usize, Landing)>,
}

impl Assembly {
    pub(super) fn add(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers, offset, immediate });
    }

    /// Copies bytes of the network header to the stack, or passes; the context is in r6.
    pub(super) fn load_relative(&mut self, from: i32, to: i16, bytes: i32) {
        self.copy(1, 6);
        self.set(2, from);
        self.pointer(3, to);
        self.set(4, bytes);
        self.set(5, FROM_NETWORK_HEADER);
        self.call(LOAD_BYTES_RELATIVE);
        self.jump(0x55, 0, 0, Landing::Pass);
    }

    /// A word of the stack, without the bits that do not count, as another.
    pub(super) fn masked_word(&mut self, from: i16, to: i16, mask: [u8; 4]) {
        if mask == [0; 4] {
            return self.store(to, 0);
        }
        self.add(0x61, to_from(1, 10), from, 0);
        if mask != [0xff; 4] {
            self.add(0x54, to_from(1, 0), 0, native(mask)); // w1 &= mask
        }
        self.add(0x63, to_from(10, 1), to, 0);
    }

    pub(super) fn copy(&mut self, to: u8, from: u8) {
        self.add(0xbf, to_from(to, from), 0, 0);
    }

    pub(super) fn set(&mut self, register: u8, value: i32) {
        self.add(0xb7, to_from(register, 0), 0, value);
    }

    /// A register points to the stack.
    pub(super) fn pointer(&mut self, register: u8, offset: i16) {
        self.copy(register, 10);
        self.add(0x07, to_from(register, 0), 0, offset.into());
    }

    /// Looks for the key on the stack in a map, which is a constant of two instructions; r0 points
    /// to the value then, or is 0.
    pub(super) fn look_up(&mut self, map: i32, key: i16) {
        self.map(map);
        self.pointer(2, key);
        self.call(MAP_LOOK_UP);
    }

    /// r1 is a map.
    pub(super) fn map(&mut self, number: i32) {
        self.add(0x18, to_from(1, 1), 0, number);
        self.add(0, to_from(0, 0), 0, 0);
    }

    /// Adds r1 to what a register points to, atomically.
    pub(super) fn count(&mut self, register: u8, offset: i16) {
        self.add(0xdb, to_from(register, 1), offset, 0);
    }

    /// Stores a word on the stack.
    pub(super) fn store(&mut self, offset: i16, word: i32) {
        self.add(0x62, to_from(10, 0), offset, word);
    }

    pub(super) fn call(&mut self, function: i32) {
        self.add(0x85, to_from(0, 0), 0, function);
    }

    pub(super) fn answer(&mut self, answer: i32) {
        self.set(0, answer);
        self.add(0x95, to_from(0, 0), 0, 0);
    }

    /// Jumps if a register compares to a value.
    pub(super) fn jump(&mut self, code: u8, register: u8, value: i32, to: Landing) {
        self.jumps.push((self.code.len(), to));
        self.add(code, to_from(register, 0), 0, value);
    }

    /// Jumps if a register is at least another, both without a sign.
    pub(super) fn jump_if_at_least(&mut self, register: u8, other: u8, to: Landing) {
        self.jumps.push((self.code.len(), to));
        self.add(0x3d, to_from(register, other), 0, 0);
    }

    pub(super) fn jump_always(&mut self, to: Landing) {
        self.jumps.push((self.code.len(), to));
        self.add(0x05, to_from(0, 0), 0, 0);
    }

    /// Jumps that go there come here.
    pub(super) fn land(&mut self, landing: Landing) {
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
pub(super) const fn to_from(destination: u8, source: u8) -> u8 {
    source << 4 | destination
}

/// The offset of a word.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "one of four")]
pub(super) fn place(word: usize) -> i16 {
    word as i16 * 4
}

/// Bytes of memory as the word that they are to this machine.
pub(super) fn native(bytes: [u8; 4]) -> i32 {
    i32::from_ne_bytes(bytes)
}
