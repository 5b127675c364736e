//! TLVs of a PROXY header of version 2: what a proxy knows of a connection beside its ends.
//!
//! HAProxy's proxy-protocol.txt, section 2.2 ("Type-Length-Value").

/// PP2_TYPE_AUTHORITY: the host name that the client asked for.
pub const AUTHORITY: u8 = 0x02;
/// PP2_TYPE_CRC32C: a checksum of the whole header, with these four bytes as 0.
pub const CRC32C: u8 = 0x03;
/// PP2_TYPE_NOOP: padding.
pub const NOOP: u8 = 0x04;
/// PP2_TYPE_UNIQUE_ID: names the connection; at most 128 bytes (section 2.2.5).
pub const UNIQUE_ID: u8 = 0x05;
/// Type and length.
pub const HEADER_BYTES: usize = 3;
/// Most types that a pool may pass on.
pub const KINDS_MAX: usize = 16;

/// Types of TLVs that are passed on, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlvKinds {
    kinds: [u8; KINDS_MAX],
    count: usize,
}

impl TlvKinds {
    /// [`AUTHORITY`] alone.
    pub const AUTHORITY: Self = {
        let mut kinds = [0; KINDS_MAX];
        kinds[0] = AUTHORITY;
        Self { kinds, count: 1 }
    };

    /// These types; `None` when they are more than [`KINDS_MAX`].
    #[must_use]
    pub fn new(list: &[u8]) -> Option<Self> {
        let mut kinds = [0; KINDS_MAX];
        kinds.get_mut(..list.len())?.copy_from_slice(list);
        Some(Self { kinds, count: list.len() })
    }

    /// The types, in their order.
    #[must_use]
    pub fn list(&self) -> &[u8] {
        self.kinds.get(..self.count).unwrap_or_default()
    }
}

/// Types and values of TLVs. One that does not fit into what is left is `None`, and the last.
pub(super) struct Tlvs<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Tlvs<'a> {
    type Item = Option<(u8, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let split = bytes.split_first_chunk::<HEADER_BYTES>();
        let read = split.and_then(|(&[kind, high, low], rest)| {
            let length = usize::from(u16::from_be_bytes([high, low]));
            Some((kind, rest.split_at_checked(length)?))
        });
        let Some((kind, (value, rest))) = read else { return Some(None) };
        self.0 = rest;
        Some(Some((kind, value)))
    }
}

/// The values of one type among TLVs that were found well-formed, without empty ones.
pub(super) fn values(tlvs: &[u8], wanted: u8) -> impl Iterator<Item = &[u8]> {
    let all = Tlvs(tlvs).map_while(|tlv| tlv);
    all.filter(move |(kind, value)| *kind == wanted && !value.is_empty()).map(|(_, value)| value)
}

/// Appends a TLV, unless it is empty or would make `header` longer than `bytes_max`. Never an
/// unfinished one: an authority that was cut would be another host.
pub(super) fn put(kind: u8, value: &[u8], header: &mut Vec<u8>, bytes_max: usize) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    if value.is_empty() || header.len() + HEADER_BYTES + value.len() > bytes_max {
        return;
    }
    header.push(kind);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(value);
}

/// Whether `value` is the CRC32C of a header in which it stands between `before` and `behind`: of
/// the whole, with its own bytes as 0 (section 2.2.3).
pub(super) fn is_checksum(value: &[u8], before: &[u8], behind: &[u8]) -> bool {
    let Ok(expected) = <[u8; 4]>::try_from(value) else { return false };
    let zeroed = before.iter().chain(&[0; 4]).chain(behind);
    crc32c(zeroed.copied()) == u32::from_be_bytes(expected)
}

/// Castagnoli's CRC (RFC 3720, appendix B.4), bit by bit: a header is short and comes once.
pub(super) fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    /// The polynomial 0x1edc6f41, lowest power first.
    const REVERSED: u32 = 0x82f6_3b78;
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..u8::BITS).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { REVERSED } else { 0 }
        })
    });
    !crc
}
