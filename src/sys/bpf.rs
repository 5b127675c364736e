//! Maps and programs in the kernel: bpf(2), linux/bpf.h. CAP_BPF is needed to make them, nothing to
//! use a descriptor of one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::gate::assembly::Instruction;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const MAP_LOOKUP_BATCH: libc::c_long = 24;

/// A program that is asked which socket of a reuseport group takes a packet.
const SK_REUSEPORT: u32 = 21;
/// Elements are taken from the kernel's memory when they are stored.
const NO_PREALLOC: u32 = 1;
/// Elements asked for in one batch; more than any bucket of a table holds.
const BATCH: u32 = 4_096;

/// The kind of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapKind {
    /// A hash table of fixed memory that forgets what was not used for longest.
    LruHash,
    /// A hash table with a value for each CPU.
    PerCpuHash,
    /// A hash table whose memory grows.
    Hash,
    /// A trie of networks that finds the longest. Its keys begin with the length of the prefix.
    LongestPrefix,
}

/// What a map holds: keys and values of fixed sizes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MapShape {
    pub(super) kind: MapKind,
    pub(super) key_bytes: usize,
    /// Of one CPU, where each has one; a multiple of 8 then.
    pub(super) value_bytes: usize,
    pub(super) entries_max: u32,
}

/// A map.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    key_bytes: usize,
    /// What a look-up writes.
    read_bytes: usize,
}

#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    flags: u32,
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct BatchAttr {
    after: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct LoadAttr {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

impl Map {
    /// An empty map.
    ///
    /// # Errors
    /// As bpf(2): `EPERM` without CAP_BPF, or where a filter of system calls keeps bpf(2) away.
    pub(super) fn new(shape: MapShape) -> io::Result<Self> {
        let MapShape { kind, key_bytes, value_bytes, entries_max } = shape;
        let (number, flags, copies) = match kind {
            MapKind::LruHash => (9, 0, 1),
            MapKind::PerCpuHash => (5, NO_PREALLOC, possible_cpus()?),
            MapKind::Hash => (1, NO_PREALLOC, 1),
            MapKind::LongestPrefix => (11, NO_PREALLOC, 1),
        };
        let size = |bytes: usize| u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
        let mut attr = CreateAttr {
            kind: number,
            key_bytes: size(key_bytes)?,
            value_bytes: size(value_bytes)?,
            entries_max,
            flags,
        };
        let fd = descriptor(call(MAP_CREATE, &mut attr)?)?;
        Ok(Self { fd, key_bytes, read_bytes: value_bytes * copies })
    }

    /// Stores a value, in place of one that is there. With values for each CPU: all of them.
    ///
    /// # Errors
    /// As bpf(2); `E2BIG` when a map that forgets nothing is full.
    ///
    /// # Panics
    /// When the key or the value has another size than the map's.
    pub(super) fn store(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!((key.len(), value.len()), (self.key_bytes, self.read_bytes), "sizes of the map");
        self.element(MAP_UPDATE_ELEM, key, value.as_ptr().addr())
    }

    /// Reads the value of a key; false when it has none. Keeps nothing alive in a map that forgets.
    ///
    /// # Errors
    /// As bpf(2).
    ///
    /// # Panics
    /// When the key or the value has another size than the map's.
    pub(super) fn read(&self, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
        assert_eq!((key.len(), value.len()), (self.key_bytes, self.read_bytes), "sizes of the map");
        found(self.element(MAP_LOOKUP_ELEM, key, value.as_mut_ptr().addr()))
    }

    /// Removes a key; false when it is not there.
    ///
    /// # Errors
    /// As bpf(2).
    ///
    /// # Panics
    /// When the key has another size than the map's.
    pub(super) fn remove(&self, key: &[u8]) -> io::Result<bool> {
        assert_eq!(key.len(), self.key_bytes, "sizes of the map");
        found(self.element(MAP_DELETE_ELEM, key, 0))
    }

    /// Bytes of what [`Self::read`] reads.
    pub(super) fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    /// Calls `each` with every key and its value. What is stored meanwhile may be left out.
    ///
    /// # Errors
    /// As bpf(2); Linux has it from 5.6 on.
    pub(super) fn for_each(&self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut keys = vec![0; BATCH as usize * self.key_bytes];
        let mut values = vec![0; BATCH as usize * self.read_bytes];
        let (mut after, mut last) = (0_u32, 0_u32);
        let mut is_first = true;
        loop {
            let mut attr = BatchAttr {
                after: if is_first { 0 } else { (&raw const after).addr() as u64 },
                last: (&raw mut last).addr() as u64,
                keys: keys.as_mut_ptr().addr() as u64,
                values: values.as_mut_ptr().addr() as u64,
                count: BATCH,
                map: self.number(),
                element_flags: 0,
                flags: 0,
            };
            let is_more = found(call(MAP_LOOKUP_BATCH, &mut attr).map(drop))?;
            let pairs = keys.chunks(self.key_bytes).zip(values.chunks(self.read_bytes));
            pairs.take(attr.count as usize).for_each(|(key, value)| each(key, value));
            if !is_more {
                return Ok(());
            }
            (after, is_first) = (last, false);
        }
    }

    fn element(&self, command: libc::c_long, key: &[u8], value: usize) -> io::Result<()> {
        let mut attr = ElementAttr {
            map: self.number(),
            _pad: 0,
            key: key.as_ptr().addr() as u64,
            value: value as u64,
            flags: 0,
        };
        call(command, &mut attr).map(drop)
    }

    #[allow(clippy::cast_sign_loss, reason = "an open descriptor is not negative")]
    fn number(&self) -> u32 {
        self.fd.as_raw_fd() as u32
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Loads a program of type SK_REUSEPORT.
///
/// # Errors
/// As bpf(2); `EACCES` when the verifier refuses it.
pub(super) fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind: SK_REUSEPORT,
        instructions: u32::try_from(code.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        code: code.as_ptr().addr() as u64,
        licence: c"Apache-2.0 OR MIT".as_ptr().addr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    descriptor(call(PROG_LOAD, &mut attr)?)
}

/// Has a program asked for each packet that comes to the reuseport group of a socket, instead of
/// the one before. It stays when the socket is closed, as long as the group has one.
///
/// # Errors
/// As socket(7), SO_ATTACH_REUSEPORT_EBPF: `EINVAL` for a socket without SO_REUSEPORT,
/// `EOPNOTSUPP` for Multipath TCP.
pub(super) fn attach(socket: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SO_ATTACH_REUSEPORT_EBPF, program.as_raw_fd())
}

/// Takes the program of a reuseport group away; it may have none.
///
/// # Errors
/// As socket(7), SO_DETACH_REUSEPORT_BPF.
pub(super) fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    found(set_option(socket, libc::SO_DETACH_REUSEPORT_BPF, 0)).map(drop)
}

/// The size of an int.
const INT_BYTES: libc::socklen_t = 4;

fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let (value, length) = ((&raw const value).cast(), INT_BYTES);
    // SAFETY: `value` is an int that lives until the call is over, `length` its size.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// False: there is no such thing.
fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn call<A>(command: libc::c_long, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is the beginning of a `union bpf_attr` as `command` reads and writes it, and
    // its size goes along; each caller has made the memory that it points to as large as the map's
    // keys and values, or the program, are.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The new descriptor that a call returned; bpf(2) sets close-on-exec.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just opened it for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// CPUs that the host may ever have: as many values a map for each CPU is read in.
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
