//! The PROXY protocol, versions 1 and 2: the client of a connection, named before its bytes.
//!
//! HAProxy's proxy-protocol.txt, sections 2.1 (text) and 2.2 (binary). The parser takes what has
//! come so far and says whether a header is complete, could still become one, or never will, so
//! it does not matter where the stream is cut. Stricter than some: what is no header of a TCP
//! connection is refused, never guessed at.

pub mod tlv;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::policy::terms::Word;

use tlv::{TlvKinds, Tlvs, values};

/// Longest header of version 1, with its CRLF (section 2.1).
pub const V1_BYTES_MAX: usize = 107;
/// Longest header of version 2 that is taken, with its TLVs.
pub const V2_BYTES_MAX: usize = 4096;
/// Longest header that is written unless the operator asks for more. Section 2.1 sizes the buffer
/// of a receiver by the longest line of version 1, and nginx's stream module ends a connection
/// whose header of version 2 is longer.
pub const WRITTEN_BYTES_MAX: usize = V1_BYTES_MAX;
/// Bytes of TLVs that fit, beside two IPv6 addresses and a session number of 20 digits, into that.
pub const TLVS_BYTES_SAFE: usize = WRITTEN_BYTES_MAX - V2_FIXED_BYTES - 36 - tlv::HEADER_BYTES - 20;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Which form is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

impl Word for ProxyVersion {
    const WORDS: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}

/// Both ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

/// What a header is to say.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// `None`: nothing is known, take the connection's own addresses.
    pub ends: Option<Ends>,
    /// Names the session; version 2 only. At most 128 bytes (section 2.2.5).
    pub unique_id: &'a [u8],
    /// The TLVs of the client's own header, as [`Header::tlvs`] has them.
    pub tlvs: &'a [u8],
    /// Which of those are passed on, by version 2. With PP2_TYPE_UNIQUE_ID among them the client's
    /// own id takes the place of [`Self::unique_id`].
    pub pass: TlvKinds,
    /// Longest header of version 2. The id comes first, then the others in the order of
    /// [`Self::pass`]; one for which there is no room is left out.
    pub bytes_max: usize,
}

impl<'a> Statement<'a> {
    /// Without TLVs of the client, and no longer than [`WRITTEN_BYTES_MAX`].
    #[must_use]
    pub const fn new(ends: Option<Ends>, unique_id: &'a [u8]) -> Self {
        let bytes_max = WRITTEN_BYTES_MAX;
        Self { ends, unique_id, tlvs: &[], pass: TlvKinds::AUTHORITY, bytes_max }
    }
}

/// A complete header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes; what follows is the client's.
    pub length: usize,
    /// `None` for LOCAL, UNKNOWN, UNSPEC and Unix sockets: the connection's own addresses count.
    pub ends: Option<Ends>,
    /// What stands behind the addresses of version 2, well-formed.
    pub tlvs: Box<[u8]>,
}

impl Header {
    /// The host name in PP2_TYPE_AUTHORITY, if there is one.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        values(&self.tlvs, tlv::AUTHORITY).next()
    }
}

/// Why bytes are no header and cannot become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Neither version begins so.
    Start,
    /// Version 1 without its end in 107 bytes, or a line that does not end in CRLF.
    Line,
    /// Version 1 with other words than it should have.
    Words,
    /// Version 2 longer than 4 KiB.
    TooLong,
    /// Another version, command, family or transport.
    Unknown,
    /// Version 2 whose length does not fit its addresses and TLVs.
    Length,
    /// Version 2 with a checksum (PP2_TYPE_CRC32C) that is not its own.
    Checksum,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Start => "it begins otherwise",
            Self::Line => "a header of version 1 without CRLF in its first 107 bytes",
            Self::Words => "a malformed header of version 1",
            Self::TooLong => "a header of version 2 over 4 KiB",
            Self::Unknown => "an unknown version, command or family",
            Self::Length => "a header of version 2 whose length does not fit",
            Self::Checksum => "a header of version 2 with a wrong checksum",
        })
    }
}

/// The header that `bytes` begin with; `None` when more have to come.
///
/// # Errors
/// When no further byte could make it one.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    if begins(bytes, V2_START) {
        return parse_v2(bytes);
    }
    if begins(bytes, V1_START) {
        return parse_v1(bytes);
    }
    Err(Malformed::Start)
}

/// Whether `bytes` begin with `start`, or are the beginning of it.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() >= V1_BYTES_MAX { Err(Malformed::Line) } else { Ok(None) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(Malformed::Line)?;
    let ends = match line.strip_prefix("PROXY ") {
        Some(words) => ends_of_v1(words)?,
        None => return Err(Malformed::Line),
    };
    Ok(Some(Header { length: end + 1, ends, tlvs: Box::default() }))
}

fn ends_of_v1(words: &str) -> Result<Option<Ends>, Malformed> {
    // Whatever follows UNKNOWN is to be ignored.
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let mut words = words.split(' ');
    let mut next = || words.next().ok_or(Malformed::Words);
    let (family, source, destination) = (next()?, next()?, next()?);
    let ports = [port(next()?)?, port(next()?)?];
    if next().is_ok() {
        return Err(Malformed::Words);
    }
    let address = |text: &str| -> Result<IpAddr, Malformed> {
        let read = match family {
            "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
            _ => return Err(Malformed::Unknown),
        };
        read.map_err(|_| Malformed::Words)
    };
    Ok(Some(Ends {
        source: SocketAddr::new(address(source)?, ports[0]),
        destination: SocketAddr::new(address(destination)?, ports[1]),
    }))
}

/// Digits and nothing else: `parse` alone would take a sign.
fn port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain).ok_or(Malformed::Words)
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    // Each as soon as it is there: a peer that sends nonsense need not be waited for.
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| command != LOCAL && command != PROXY) {
        return Err(Malformed::Unknown);
    }
    let family = bytes.get(13).copied();
    if command == Some(PROXY) && family.is_some_and(|family| address_bytes(family).is_none()) {
        return Err(Malformed::Unknown);
    }
    let Some(&[high, low]) = bytes.get(14..V2_FIXED_BYTES) else { return Ok(None) };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(body) = bytes.get(V2_FIXED_BYTES..length) else { return Ok(None) };
    let mut header = Header { length, ends: None, tlvs: Box::default() };
    // Of LOCAL and UNSPEC the rest is to be skipped, whatever it is.
    let family = family.filter(|family| command == Some(PROXY) && *family != UNSPEC);
    let Some(family) = family else { return Ok(Some(header)) };
    let (addresses, tlvs) =
        body.split_at_checked(address_bytes(family).unwrap_or(0)).ok_or(Malformed::Length)?;
    header.ends = ends_of_v2(family, addresses);
    header.tlvs = Box::from(tlvs);
    let mut tlvs = Tlvs(tlvs);
    while let Some(tlv) = tlvs.next() {
        let (tlv::CRC32C, value) = tlv.ok_or(Malformed::Length)? else { continue };
        let (before, behind) = bytes.split_at(length - tlvs.0.len());
        let before = before.strip_suffix(value).unwrap_or(before);
        let behind = behind.get(..tlvs.0.len()).unwrap_or(behind);
        if !tlv::is_checksum(value, before, behind) {
            return Err(Malformed::Checksum);
        }
    }
    Ok(Some(header))
}

/// Bytes of both addresses of a family; `None` for one that no TCP connection has.
fn address_bytes(family: u8) -> Option<usize> {
    match family {
        UNSPEC => Some(0),
        TCP4 => Some(12),
        TCP6 => Some(36),
        UNIX_STREAM => Some(216),
        _ => None,
    }
}

fn ends_of_v2(family: u8, bytes: &[u8]) -> Option<Ends> {
    let (source, destination, ports) = match family {
        TCP4 => {
            let (source, rest) = bytes.split_first_chunk::<4>()?;
            let (destination, ports) = rest.split_first_chunk::<4>()?;
            (IpAddr::from(*source), IpAddr::from(*destination), ports)
        }
        TCP6 => {
            let (source, rest) = bytes.split_first_chunk::<16>()?;
            let (destination, ports) = rest.split_first_chunk::<16>()?;
            (IpAddr::from(*source), IpAddr::from(*destination), ports)
        }
        _ => return None,
    };
    let &[a, b, c, d] = ports else { return None };
    Some(Ends {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    })
}

/// A header that says `statement`. What is too long for a TLV is left out. A connection without
/// addresses is announced as LOCAL in version 2: six of ten receivers refuse PROXY with UNSPEC, and
/// all take LOCAL with TLVs (docs/probes.md).
#[must_use]
pub fn encode(version: ProxyVersion, statement: &Statement<'_>) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => encode_v1(statement.ends.map(alike)),
        ProxyVersion::V2 => encode_v2(statement),
    }
}

/// The header of a connection without a client, such as a probe. Version 2 has LOCAL for it
/// (section 2.2). Version 1 has UNKNOWN, which Postfix, Apache httpd and Varnish refuse: it names
/// the connection's own addresses instead, the meaning of UNKNOWN. `own` is `None` on a Unix
/// socket.
#[must_use]
pub fn encode_own(version: ProxyVersion, own: Option<Ends>) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => encode_v1(own.map(alike)),
        ProxyVersion::V2 => [V2_START, &[LOCAL, UNSPEC, 0, 0]].concat(),
    }
}

fn encode_v1(ends: Option<Ends>) -> Vec<u8> {
    let Some(Ends { source, destination }) = ends else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

fn encode_v2(statement: &Statement<'_>) -> Vec<u8> {
    let mut header = Vec::with_capacity(WRITTEN_BYTES_MAX);
    header.extend_from_slice(V2_START);
    // The length comes when it is known.
    header.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]);
    let (mut command, mut family) = (LOCAL, UNSPEC);
    if let Some(Ends { source, destination }) = statement.ends.map(alike) {
        (command, family) = (PROXY, if source.is_ipv4() { TCP4 } else { TCP6 });
        for end in [source, destination] {
            match end.ip() {
                IpAddr::V4(v4) => header.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => header.extend_from_slice(&v6.octets()),
            }
        }
        header.extend_from_slice(&source.port().to_be_bytes());
        header.extend_from_slice(&destination.port().to_be_bytes());
    }
    put_tlvs(statement, &mut header);
    let length = u16::try_from(header.len() - V2_FIXED_BYTES).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let behind_start = header.iter_mut().skip(V2_START.len());
    for (place, byte) in behind_start.zip([command, family, high, low]) {
        *place = byte;
    }
    header
}

fn put_tlvs(statement: &Statement<'_>, header: &mut Vec<u8>) {
    let Statement { unique_id, tlvs, pass, .. } = *statement;
    // Above that the length would not fit, and receivers take no more.
    let bytes_max = statement.bytes_max.min(V2_BYTES_MAX);
    let keeps_id = pass.list().contains(&tlv::UNIQUE_ID);
    let given = values(tlvs, tlv::UNIQUE_ID).next().filter(|_| keeps_id);
    tlv::put(tlv::UNIQUE_ID, given.unwrap_or(unique_id), header, bytes_max);
    for kind in pass.list().iter().copied().filter(|kind| *kind != tlv::UNIQUE_ID) {
        for value in values(tlvs, kind) {
            tlv::put(kind, value, header, bytes_max);
        }
    }
}

/// Both ends in one family: a header has room for one.
fn alike(ends: Ends) -> Ends {
    let Ends { source, destination } = ends;
    if source.is_ipv4() == destination.is_ipv4() {
        return ends;
    }
    let mapped = |end: SocketAddr| match end.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    };
    Ends { source: mapped(source), destination: mapped(destination) }
}

#[cfg(test)]
mod tests;
