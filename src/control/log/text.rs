//! What lines of the log are made of: times, and values that stay where they belong.

use std::fmt::Display;
use std::io::Write;
use std::time::SystemTime;

use jiff::Timestamp;

/// RFC 3339 in UTC, with milliseconds.
pub(super) fn stamp(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// A value of `key=value`, quoted when a reader could not tell where it ends.
pub(super) fn write_value(value: &str, out: &mut Vec<u8>) {
    let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '=';
    if !value.is_empty() && !value.contains(['"', '\\']) && !value.chars().any(is_odd) {
        return out.extend_from_slice(value.as_bytes());
    }
    out.push(b'"');
    for part in value.split_inclusive(['"', '\\']) {
        let quoted = part.strip_suffix(['"', '\\']);
        escape(quoted.unwrap_or(part), out);
        if quoted.is_some() {
            out.push(b'\\');
            out.extend(part.bytes().last());
        }
    }
    out.push(b'"');
}

/// Text without control characters, so that it stays on its line.
pub(super) fn escape(text: &str, out: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default().map(|letter| u8::try_from(letter).unwrap_or(b'?')));
        } else {
            out.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
        }
    }
}

/// A further field; `-` for what there is not.
pub(super) fn write_field(
    name: &str,
    value: Option<impl Display>,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    write!(out, " {name}=")?;
    match value {
        Some(value) => write_value(&value.to_string(), out),
        None => out.push(b'-'),
    }
    Ok(())
}
