//! The head of an HTTP/1 request, read only as far as it takes to answer it: whether this is HTTP
//! at all, whether it asks for a body (HEAD does not), and where the head ends.
//!
//! Bytes come in any pieces and none is kept. Lenient where a server should be (RFC 9112, sections
//! 2.2 and 3): empty lines before the request, a bare LF, any field lines. Strict where another
//! protocol would look like it: a TLS record, HTTP/0.9, and the preface of HTTP/2, whose speaker
//! could not read an answer of HTTP/1.

use super::request_head::{METHOD_BYTES_MAX, is_token};

/// Bytes after which a head is taken as read, complete or not.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What follows the target, but for the minor version.
const VERSION: &[u8] = b"HTTP/1.";

/// What has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A head that goes on, or nothing yet.
    More,
    /// A whole head, or as much of one as is ever read. Final.
    Complete,
    /// Something else. Final.
    NotHttp,
}

/// Reads one head.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    state: Part,
    taken: usize,
    /// Bytes of the method, of which the first are kept.
    method_length: usize,
    method: [u8; 4],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    /// Before the request line.
    #[default]
    Before,
    Method,
    /// The target; whether it has begun.
    Target(bool),
    /// This many bytes of the version have come.
    Version(usize),
    /// The CR behind the version.
    LineEnd,
    FieldStart,
    /// A CR where a field would begin.
    LastLineEnd,
    Field,
    Done(Progress),
}

impl RequestHead {
    /// Takes the next bytes; those behind the head are passed over.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        for byte in bytes {
            if matches!(self.state, Part::Done(_)) {
                break;
            }
            self.state = self.after(*byte);
            self.taken += 1;
            if self.taken == HEAD_BYTES_MAX && !matches!(self.state, Part::Done(_)) {
                let is_like_http = !matches!(self.state, Part::Before | Part::Method);
                let end = if is_like_http { Progress::Complete } else { Progress::NotHttp };
                self.state = Part::Done(end);
            }
        }
        self.progress()
    }

    /// What has come so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match self.state {
            Part::Done(progress) => progress,
            _ => Progress::More,
        }
    }

    /// Whether a method has come, so that what follows would be a request.
    #[must_use]
    pub fn has_method(&self) -> bool {
        match self.state {
            Part::Before | Part::Method => false,
            Part::Done(progress) => progress == Progress::Complete,
            _ => true,
        }
    }

    /// Whether the answer must have no body.
    #[must_use]
    pub fn is_for_head(&self) -> bool {
        self.has_method() && self.method_length == 4 && self.method == *b"HEAD"
    }

    fn after(&mut self, byte: u8) -> Part {
        const NOT_HTTP: Part = Part::Done(Progress::NotHttp);
        match (self.state, byte) {
            (Part::Before, b'\r' | b'\n') => Part::Before,
            (Part::Before | Part::Method, byte) if is_token(byte) => self.method_goes_on(byte),
            (Part::Method, b' ') => Part::Target(false),
            (Part::Target(true), b' ') => Part::Version(0),
            (Part::Target(_), 0x21..=0x7e | 0x80..) => Part::Target(true),
            (Part::Version(count), byte) => match VERSION.get(count) {
                Some(expected) if byte == *expected => Part::Version(count + 1),
                Some(_) => NOT_HTTP,
                None if count == VERSION.len() && byte.is_ascii_digit() => Part::Version(count + 1),
                None if count > VERSION.len() && byte == b'\r' => Part::LineEnd,
                None if count > VERSION.len() && byte == b'\n' => Part::FieldStart,
                None => NOT_HTTP,
            },
            (Part::LineEnd, b'\n') => Part::FieldStart,
            (Part::FieldStart, b'\r') => Part::LastLineEnd,
            (Part::FieldStart | Part::LastLineEnd, b'\n') => Part::Done(Progress::Complete),
            (Part::Field, b'\n') => Part::FieldStart,
            (Part::FieldStart | Part::LastLineEnd | Part::Field, _) => Part::Field,
            (Part::Done(progress), _) => Part::Done(progress),
            _ => NOT_HTTP,
        }
    }

    fn method_goes_on(&mut self, byte: u8) -> Part {
        if let Some(kept) = self.method.get_mut(self.method_length) {
            *kept = byte;
        }
        self.method_length += 1;
        if self.method_length > METHOD_BYTES_MAX {
            return Part::Done(Progress::NotHttp);
        }
        Part::Method
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> RequestHead {
        let mut head = RequestHead::default();
        head.feed(bytes);
        head
    }

    #[test]
    fn requests_are_told_from_everything_else() {
        // If this fails, an HTTP client gets no answer, or another one an answer it cannot read.
        let cases: &[(&[u8], Progress)] = &[
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Progress::Complete),
            (b"GET / HTTP/1.0\n\n", Progress::Complete),
            (b"\r\n\r\nPOST /a?b=%20 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", Progress::Complete),
            (b"OPTIONS * HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", Progress::Complete),
            (b"CONNECT a:443 HTTP/1.1\r\n\r\n", Progress::Complete),
            (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", Progress::Complete),
            (b"", Progress::More),
            (b"GET", Progress::More),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Progress::More),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r", Progress::More),
            (b"GET / HTTP/1.1\r\n\rA", Progress::More),
            // TLS, HTTP/0.9, HTTP/2, SSH, PROXY, SMTP.
            (b"\x16\x03\x01\x02\x00\x01", Progress::NotHttp),
            (b"GET /\r\n", Progress::NotHttp),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Progress::NotHttp),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Progress::NotHttp),
            (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", Progress::NotHttp),
            (b"EHLO example.com\r\n", Progress::NotHttp),
            (b"GET  / HTTP/1.1\r\n\r\n", Progress::NotHttp),
            (b" GET / HTTP/1.1\r\n\r\n", Progress::NotHttp),
            (b"GET / HTTP/1.1 \r\n\r\n", Progress::NotHttp),
            (b"AVERYLONGMETHODTHATNOBODYHAS / HTTP/1.1\r\n\r\n", Progress::NotHttp),
        ];
        for (bytes, expected) in cases {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(read(bytes).progress(), *expected, "{shown:?}");
        }
    }

    #[test]
    fn only_head_asks_for_no_body() {
        // If this fails, a client that asked for a head waits for a body, or reads one as its next
        // answer.
        assert!(read(b"HEAD / HTTP/1.1\r\n\r\n").is_for_head());
        for line in ["GET", "HEADS", "HEA", "head", "XHEAD"] {
            assert!(!read(format!("{line} / HTTP/1.1\r\n\r\n").as_bytes()).is_for_head());
        }
    }

    #[test]
    fn a_head_without_end_is_answered_and_junk_without_end_is_not() {
        // If this fails, a head of any size keeps a place, or large cookies mean no answer.
        let mut long = b"GET / HTTP/1.1\r\nCookie: ".to_vec();
        long.resize(HEAD_BYTES_MAX - 1, b'a');
        assert_eq!(read(&long).progress(), Progress::More);
        long.push(b'a');
        assert_eq!(read(&long).progress(), Progress::Complete);
        assert_eq!(read(&vec![b'\n'; HEAD_BYTES_MAX]).progress(), Progress::NotHttp);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_the_first_verdict_stays(
            start in prop_oneof![
                Just("GET / HTTP/1.1\r\n"), Just("HEAD /x HTTP/1.0\n"), Just("\r\nPUT "), Just(""),
            ],
            rest in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'a'), any::<u8>()], 0..200,
            ),
            cuts in proptest::collection::vec(0_usize..220, 0..8),
        ) {
            // If this fails, a client that sends its head in small packets is treated otherwise.
            let bytes = [start.as_bytes(), &rest].concat();
            let whole = read(&bytes);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut head = RequestHead::default();
            let mut verdict = Progress::More;
            for piece in cuts.windows(2) {
                let now = head.feed(&bytes[piece[0]..piece[1]]);
                prop_assert!(verdict == Progress::More || verdict == now);
                verdict = now;
            }
            prop_assert_eq!(verdict, whole.progress());
            prop_assert_eq!(head.is_for_head(), whole.is_for_head());
        }

        #[test]
        fn a_head_ends_at_its_first_empty_line(
            fields in proptest::collection::vec("[!-~]{1,12}: [ -~]{0,30}", 0..20),
            behind in proptest::collection::vec(any::<u8>(), 0..50),
            bare in any::<bool>(),
        ) {
            // If this fails, an answer goes out before the head is read, or never.
            let end = if bare { "\n" } else { "\r\n" };
            let lines: String = fields.iter().map(|field| format!("{field}{end}")).collect();
            let text = format!("GET /path HTTP/1.1{end}{lines}{end}").into_bytes();
            prop_assert_eq!(read(&text[..text.len() - 1]).progress(), Progress::More);
            prop_assert_eq!(read(&text).progress(), Progress::Complete);
            prop_assert_eq!(read(&[text, behind].concat()).progress(), Progress::Complete);
        }
    }
}
