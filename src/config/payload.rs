//! Bytes of a `send-expect` probe, written as text with escapes for what text cannot hold.
//!
//! TOML resolves its own escapes first: in "double quotes" `\r\n` arrives here as two control
//! characters, in 'single quotes' as four characters, and both mean the same. Bytes that are no
//! text need `\xHH` in single quotes.

use std::fmt::Write;

use super::file::{Value, shown};
use super::report::{Finding, Report};
use super::scalar;

/// Most bytes of one payload.
pub(super) const PAYLOAD_MAX: usize = 4096;

const EXPECTED: &str = "text, with \\r \\n \\t \\0 \\\\ or \\xHH for bytes that are none";

/// A payload of 0 to [`PAYLOAD_MAX`] bytes.
pub(super) fn payload(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let Some(text) = value.text() else {
        scalar::wrong_type(value, EXPECTED, None, report);
        return None;
    };
    let name = shown(&value.name);
    let finding = match unescape(text) {
        Ok(bytes) if bytes.len() <= PAYLOAD_MAX => return Some(bytes),
        Ok(_) => Finding::new(format!("`{name}` is too long"))
            .expected(format!("at most {PAYLOAD_MAX} bytes")),
        Err(escape) => Finding::new(format!("`{name}` holds `{}`, no known escape", shown(escape)))
            .expected(EXPECTED)
            .hint("a backslash itself is `\\\\`, in double quotes `\\\\\\\\`"),
    };
    report.error(&value.place, finding);
    None
}

/// What has to be in the answer: one byte at least.
pub(super) fn expectation(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let bytes = payload(value, report)?;
    if !bytes.is_empty() {
        return Some(bytes);
    }
    let finding = Finding::new("`expect` is empty: every answer would pass")
        .expected("a part of a good answer such as \"+PONG\"")
        .hint("`probe = \"tcp\"` only connects");
    report.error(&value.place, finding);
    None
}

/// The bytes that a text stands for.
///
/// # Errors
/// With the first escape that means nothing.
fn unescape(text: &str) -> Result<Vec<u8>, &str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.as_bytes().get(1) {
            Some(b'r') => (Some(b'\r'), 2),
            Some(b'n') => (Some(b'\n'), 2),
            Some(b't') => (Some(b'\t'), 2),
            Some(b'0') => (Some(0), 2),
            Some(b'\\') => (Some(b'\\'), 2),
            Some(b'x') => (escape.get(2..4).and_then(hexadecimal), 4),
            _ => (None, 2),
        };
        let Some(byte) = byte else {
            let end = escape.char_indices().nth(length).map_or(escape.len(), |(end, _)| end);
            return Err(escape.get(..end).unwrap_or(escape));
        };
        bytes.push(byte);
        rest = escape.get(length..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn hexadecimal(digits: &str) -> Option<u8> {
    // `from_str_radix` would take a sign, too.
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_digits.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// A payload as it may stand in single quotes: printable ASCII, everything else escaped.
#[must_use]
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            0 => text.push_str("\\0"),
            b'\\' => text.push_str("\\\\"),
            // It would end the quotes.
            b'\'' => text.push_str("\\x27"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => {
                // Writing to a `String` cannot fail.
                let _ = write!(text, "\\x{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// If it fails, a probe sends or expects something else than the file says.
    #[test]
    fn escapes_stand_for_their_bytes() {
        let read = |text| unescape(text).unwrap();
        assert_eq!(read(r"PING\r\n"), b"PING\r\n");
        assert_eq!(read("PING\r\n"), b"PING\r\n");
        assert_eq!(read(r"\0\t\\\xfF\x00x"), b"\0\t\\\xff\0x");
        assert_eq!(read("grün"), "grün".as_bytes());
        assert_eq!(read(""), b"");
    }

    /// If it fails, a slip of the pen is sent to servers, or its message shows something else.
    #[test]
    fn what_is_no_escape_is_named() {
        for (text, wrong) in [
            (r"a\qb", r"\q"),
            (r"a\", r"\"),
            (r"\x1", r"\x1"),
            (r"\xg0ab", r"\xg0"),
            (r"\x+1ab", r"\x+1"),
            (r"\xüüü", r"\xüü"),
            (r"\€", r"\€"),
        ] {
            assert_eq!(unescape(text), Err(wrong));
        }
    }

    proptest! {
        /// If it fails, `evenkeel config` shows a probe that sends something else.
        #[test]
        fn what_is_shown_reads_back(bytes: Vec<u8>) {
            let shown = escaped(&bytes);
            prop_assert_eq!(unescape(&shown), Ok(bytes));
            prop_assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\''));
        }

        /// If it fails, some text in a file ends the process.
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Err(wrong) = unescape(&text) {
                prop_assert!(wrong.starts_with('\\') && text.contains(wrong));
            }
        }
    }
}
