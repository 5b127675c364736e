//! How a PostgreSQL client asks for TLS: before its hello, and it waits for the answer.
//!
//! PostgreSQL's documentation, section "Message Formats": SSLRequest and GSSENCRequest are eight
//! bytes each, a length and a code, and the server answers with one byte. Only behind that byte
//! does the hello come that names a server. A client with `sslnegotiation=direct` sends its hello
//! at once.

/// SSLRequest: length 8, code 80877103.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// GSSENCRequest: length 8, code 80877104.
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
/// The answer of a server that goes on with TLS.
pub const WILLING: u8 = b'S';
/// The answer of a server that does not encrypt in this way; the client may ask for another.
pub const UNWILLING: u8 = b'N';

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedFor {
    /// Not told yet.
    Incomplete,
    /// TLS.
    Tls,
    /// Encryption by GSSAPI.
    Gss,
    /// Neither: it has begun its session, or speaks something else.
    Nothing,
}

/// What the client asks for that has said `bytes`.
#[must_use]
pub fn asked(bytes: &[u8]) -> AskedFor {
    if bytes.starts_with(&SSL_REQUEST) {
        AskedFor::Tls
    } else if bytes.starts_with(&GSS_REQUEST) {
        AskedFor::Gss
    } else if SSL_REQUEST.starts_with(bytes) || GSS_REQUEST.starts_with(bytes) {
        AskedFor::Incomplete
    } else {
        AskedFor::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_told_from_everything_else() {
        // If this fails, a client is answered that asked for nothing, or waits for its answer.
        assert_eq!(u32::from_be_bytes([0x04, 0xd2, 0x16, 0x2f]), 80_877_103);
        assert_eq!(u32::from_be_bytes([0x04, 0xd2, 0x16, 0x30]), 80_877_104);
        assert_eq!(asked(&SSL_REQUEST), AskedFor::Tls);
        assert_eq!(asked(&GSS_REQUEST), AskedFor::Gss);
        assert_eq!(asked(&[&SSL_REQUEST[..], b"more"].concat()), AskedFor::Tls);
        // A session begins, a request to cancel, a hello, HTTP.
        let others: [&[u8]; 4] = [
            b"\0\0\0\x20\0\x03\0\0user\0a\0",
            b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/1.1\r\n",
        ];
        for bytes in others {
            assert_eq!(asked(bytes), AskedFor::Nothing, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_stays(kept in 0_usize..9, rest in prop::collection::vec(any::<u8>(), 0..12)) {
            // If this fails, where the network cuts a request decides how it is answered.
            let bytes = [SSL_REQUEST.get(..kept).unwrap_or(&SSL_REQUEST), &rest].concat();
            let whole = asked(&bytes);
            for cut in 0..bytes.len() {
                let early = asked(&bytes[..cut]);
                prop_assert!(early == AskedFor::Incomplete || early == whole);
            }
        }
    }
}
