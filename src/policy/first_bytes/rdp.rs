//! The user that a client of Remote Desktop names in its cookie, for balancers.
//!
//! MS-RDPBCGR, section 2.2.1.1: an X.224 connection request (ITU-T X.224, section 13.3) in a TPKT
//! (RFC 1006, section 6), which may have a line `Cookie: mstshash=USER` behind its fixed part. Most
//! clients put the first nine letters of the user's name there. A routing token (`Cookie: msts=`)
//! names a server and is no cookie of a user.

use super::request_head::Found;

/// Version and reserved byte of a TPKT.
const TPKT: [u8; 2] = [3, 0];
const TPKT_BYTES: usize = 4;
/// The fixed part of the request behind its length: code, two references, class.
const FIXED_BYTES: usize = 6;
/// A connection request, without credit.
const CONNECTION_REQUEST: u8 = 0xe0;
const COOKIE: &[u8] = b"Cookie: mstshash=";

/// The user in the connection request with which `bytes` begin.
#[must_use]
pub fn find(bytes: &[u8]) -> Found<'_> {
    if bytes.iter().zip(TPKT).any(|(byte, wanted)| *byte != wanted) {
        return Found::Absent;
    }
    let Some(&[_, _, high, low, rest, code]) = bytes.first_chunk::<6>() else {
        return Found::Incomplete;
    };
    // The request's own length leaves the byte out that has it.
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_whole = length == TPKT_BYTES + 1 + usize::from(rest);
    if !is_whole || usize::from(rest) < FIXED_BYTES || code != CONNECTION_REQUEST {
        return Found::Absent;
    }
    let Some(request) = bytes.get(TPKT_BYTES + 1 + FIXED_BYTES..length) else {
        return Found::Incomplete;
    };
    let line = request.strip_prefix(COOKIE);
    let end = line.and_then(|line| line.windows(2).position(|pair| pair == b"\r\n"));
    match line.zip(end).and_then(|(line, end)| line.get(..end)) {
        Some(user @ [_, ..]) => Found::Value(user),
        _ => Found::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request with this behind its fixed part.
    fn request(variable: &[u8]) -> Vec<u8> {
        let rest = u8::try_from(FIXED_BYTES + variable.len()).unwrap();
        let length = (TPKT_BYTES + 1 + usize::from(rest)).to_be_bytes();
        let [.., high, low] = length;
        [&[3, 0, high, low, rest, CONNECTION_REQUEST, 0, 0, 0, 0, 0], variable].concat()
    }

    /// RDP_NEG_REQ: TLS and CredSSP are offered.
    const NEGOTIATION: &[u8] = b"\x01\x00\x08\x00\x03\x00\x00\x00";

    #[test]
    fn the_user_is_found() {
        // If this fails, a user who comes back does not find the session that was left open.
        let line = [b"Cookie: mstshash=anna\r\n", NEGOTIATION].concat();
        assert_eq!(find(&request(&line)), Found::Value(b"anna"));
        assert_eq!(find(&request(b"Cookie: mstshash=CORP\\anna\r\n")), Found::Value(b"CORP\\anna"));
        // What an mstsc of Windows 10 sends.
        let sent = b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00Cookie: mstshash=eltons\r\n\
            \x01\x00\x08\x00\x00\x00\x00\x00";
        assert_eq!(find(sent), Found::Value(b"eltons"));
    }

    #[test]
    fn other_bytes_have_none() {
        // If this fails, clients that name no user are waited for, or hashed by chance.
        let whole = request(b"Cookie: mstshash=anna\r\n");
        let changed = |place: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[place] = byte;
            bytes
        };
        let wrong: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01",
            &request(NEGOTIATION),
            &request(b"Cookie: msts=3640205228.15629.0000\r\n"),
            &request(b"Cookie: mstshash=\r\n"),
            &request(b"Cookie: mstshash=anna"),
            &request(b""),
            &changed(0, 4),
            &changed(1, 1),
            &changed(3, 200),
            &changed(4, 5),
            &changed(5, 0xd0),
        ];
        for bytes in wrong {
            assert_eq!(find(bytes), Found::Absent, "{bytes:?}");
        }
        assert_eq!(find(b""), Found::Incomplete);
        assert_eq!(find(&[&request(b"")[..], b"Cookie: mstshash=a\r\n"].concat()), Found::Absent);
    }

    proptest! {
        #[test]
        fn every_cut_is_waited_for(
            user in "[a-zA-Z0-9\\\\@.]{1,60}", behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            // If this fails, where the network cuts a request decides which server serves.
            let whole = request(format!("Cookie: mstshash={user}\r\n").as_bytes());
            for cut in 0..whole.len() {
                prop_assert_eq!(find(&whole[..cut]), Found::Incomplete, "cut at {}", cut);
            }
            let more = [whole, behind].concat();
            prop_assert_eq!(find(&more), Found::Value(user.as_bytes()));
        }

        #[test]
        fn an_answer_stays(
            start in prop_oneof![
                Just(&b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00Cookie: msts"[..]),
                Just(&b"\x03\x00"[..]), Just(&b""[..]),
            ],
            rest in prop::collection::vec(any::<u8>(), 0..60),
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
