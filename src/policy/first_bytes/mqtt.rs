//! The client identifier of an MQTT client, read from its CONNECT packet.
//!
//! MQTT 3.1.1 and MQTT 5.0 (OASIS), section 3.1 of both, and MQTT 3.1. Read up to the identifier
//! and no further. Strict, and a packet that the server would refuse has no identifier; nothing is
//! altered, and the server remains the judge of it.

use super::request_head::Found;

/// The fixed header's first byte of a CONNECT: type 1, flags 0.
const CONNECT: u8 = 0x10;
/// Most bytes of a variable byte integer (section 2.2.3 of MQTT 3.1.1, 1.5.5 of MQTT 5.0).
const VARIABLE_BYTES_MAX: u32 = 4;
/// Protocol levels with the names that belong to them.
const LEVELS: &[(&[u8], u8)] = &[(b"MQIsdp", 3), (b"MQTT", 4), (b"MQTT", WITH_PROPERTIES)];
const WITH_PROPERTIES: u8 = 5;
/// Set in the level by a bridge of mosquitto or RSMB, and cleared by the server.
const BRIDGE: u8 = 0x80;
/// The lowest of the connect flags, which must be 0 from 3.1.1 on.
const RESERVED_FLAG: u8 = 1;

/// The client identifier of the CONNECT with which `bytes` begin; one that is empty, for which the
/// server makes one up, is absent.
#[must_use]
pub fn find(bytes: &[u8]) -> Found<'_> {
    read(bytes).map_or_else(|stopped| stopped, Found::Value)
}

/// What is left of a packet.
struct Packet<'a> {
    bytes: &'a [u8],
    /// Bytes that the packet has by its own length, whether they are there or not.
    length: usize,
}

fn read(bytes: &[u8]) -> Result<&[u8], Found<'_>> {
    let mut packet = Packet { bytes, length: usize::MAX };
    if packet.byte()? != CONNECT {
        return Err(Found::Absent);
    }
    packet.length = packet.variable()?;
    let name = packet.string()?;
    let level = packet.byte()? & !BRIDGE;
    let is_known = LEVELS.contains(&(name, level));
    let flags = packet.byte()?;
    if !is_known || (level > 3 && flags & RESERVED_FLAG != 0) {
        return Err(Found::Absent);
    }
    let _keep_alive = packet.take(2)?;
    if level == WITH_PROPERTIES {
        let length = packet.variable()?;
        packet.take(length)?;
    }
    let identifier = packet.string()?;
    let is_text = std::str::from_utf8(identifier).is_ok_and(|text| !text.contains('\0'));
    if identifier.is_empty() || !is_text { Err(Found::Absent) } else { Ok(identifier) }
}

/// An error is what is known when the reading stops: the identifier is absent, or incomplete.
impl<'a> Packet<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Found<'a>> {
        self.length = self.length.checked_sub(count).ok_or(Found::Absent)?;
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Found::Incomplete)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Found<'a>> {
        self.take(1)?.first().copied().ok_or(Found::Incomplete)
    }

    fn variable(&mut self) -> Result<usize, Found<'a>> {
        let mut value = 0;
        for place in 0..VARIABLE_BYTES_MAX {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Found::Absent)
    }

    fn string(&mut self) -> Result<&'a [u8], Found<'a>> {
        let length = usize::from(self.byte()?) << 8 | usize::from(self.byte()?);
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(text: &[u8]) -> Vec<u8> {
        [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    fn variable(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            if value == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }

    /// A packet of the name, the level and the flags, then what is behind the keep alive.
    fn packet(name: &[u8], level: u8, flags: u8, behind: &[u8]) -> Vec<u8> {
        let body = [&string(name)[..], &[level, flags, 0, 60], behind].concat();
        [&[CONNECT][..], &variable(body.len()), &body].concat()
    }

    fn connect(level: u8, properties: usize, identifier: &[u8]) -> Vec<u8> {
        let name: &[u8] = if level == 3 { b"MQIsdp" } else { b"MQTT" };
        let properties = match level {
            WITH_PROPERTIES => [variable(properties), vec![0x26; properties]].concat(),
            _ => Vec::new(),
        };
        packet(name, level, 0xc2, &[properties, string(identifier), string(b"user")].concat())
    }

    #[test]
    fn an_identifier_is_found_in_every_version() {
        // If this fails, a device changes its server from one connection to the next.
        for level in [3, 4, 5] {
            assert_eq!(find(&connect(level, 0, b"sensor-7")), Found::Value(b"sensor-7"));
            assert_eq!(find(&connect(level, 0, b"")), Found::Absent, "the server makes one up");
        }
        assert_eq!(find(&connect(5, 300, "gerät".as_bytes())), Found::Value("gerät".as_bytes()));
        let bridge = packet(b"MQTT", 4 | BRIDGE, 2, &string(b"bridge"));
        assert_eq!(find(&bridge), Found::Value(b"bridge"));
        // As mosquitto_pub -i a -V 311 sends it, with an end of the session and no will.
        let sent = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
        assert_eq!(find(sent), Found::Value(b"a"));
    }

    #[test]
    fn other_bytes_have_none() {
        // If this fails, clients that say nothing of the kind are waited for, or hashed by chance.
        let long = [&[CONNECT, 0xff, 0xff, 0xff, 0xff][..], &[0; 20]].concat();
        let wrong: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"\x11\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a",
            b"\x10\x0d\x00\x04MQTX\x04\x02\x00\x3c\x00\x01a",
            &packet(b"MQTT", 6, 2, &string(b"a")),
            &packet(b"MQIsdp", 4, 2, &string(b"a")),
            &packet(b"MQTT", 4, 3, &string(b"a")),
            &packet(b"MQTT", 4, 2, &string(b"a\0b")),
            &packet(b"MQTT", 4, 2, &string(b"\xff")),
            &packet(b"MQTT", 4, 2, b"\x00\x05a"),
            &packet(b"MQTT", 5, 2, b"\x7f\x00\x01a"),
            &long,
        ];
        for bytes in wrong {
            assert_eq!(find(bytes), Found::Absent, "{bytes:?}");
        }
        assert_eq!(find(b""), Found::Incomplete);
    }

    proptest! {
        #[test]
        fn every_cut_is_waited_for(
            level in 3_u8..=5, properties in 0_usize..400, identifier in "[a-z0-9]{1,300}",
            behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            // If this fails, where the network cuts a packet decides which server serves.
            let packet = connect(level, properties, identifier.as_bytes());
            let end = packet.len() - string(b"user").len();
            for cut in 0..end {
                prop_assert_eq!(find(&packet[..cut]), Found::Incomplete, "cut at {}", cut);
            }
            prop_assert_eq!(find(&packet[..end]), Found::Value(identifier.as_bytes()));
            let more = [packet, behind].concat();
            prop_assert_eq!(find(&more), Found::Value(identifier.as_bytes()));
        }

        #[test]
        fn an_answer_stays(
            start in prop_oneof![
                Just(&b"\x10\x20\x00\x04MQTT"[..]), Just(&b"\x10"[..]), Just(&b""[..]),
            ],
            rest in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            // If this fails, a client is hashed by a part of what it says.
            let bytes = [start, &rest].concat();
            let whole = find(&bytes);
            for cut in 0..bytes.len() {
                let early = find(&bytes[..cut]);
                prop_assert!(early == Found::Incomplete || early == whole);
            }
        }
    }
}
