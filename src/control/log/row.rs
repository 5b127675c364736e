//! A line of the log for a person who watches: one row, the most telling first.

use std::io::{Result, Write};

use anstyle::{AnsiColor, Style};
use bytesize::ByteSize;

use crate::control::log::event::Event;
use crate::control::log::level::Level;
use crate::control::log::session_line::SessionLine;
use crate::control::log::text::{escape, stamp, write_value};

/// Room for an IPv4 address and a port.
const CLIENT_WIDTH: usize = 21;

/// Appends the row of an event.
pub(super) fn event_row(event: &Event, has_colour: bool, out: &mut Vec<u8>) -> Result<()> {
    let style = match event.level {
        Level::Error => AnsiColor::Red.on_default(),
        Level::Warn => AnsiColor::Yellow.on_default(),
        Level::Info | Level::Debug | Level::Trace => Style::new(),
    };
    write!(out, "{} ", clock(&stamp(event.time)))?;
    write_painted(format_args!("{:<5}", event.level.word()), style, has_colour, out)?;
    out.push(b' ');
    escape(&event.message, out);
    for (name, value) in &event.fields {
        write!(out, " {name}=")?;
        write_value(value, out);
    }
    Ok(())
}

/// Appends the row of a session.
pub(super) fn session_row(
    line: &SessionLine<'_>,
    has_colour: bool,
    out: &mut Vec<u8>,
) -> Result<()> {
    let SessionLine { term, client, listener, total_ms, reason, .. } = line;
    let style = match term.as_bytes().first() {
        Some(b'-') => AnsiColor::Green.on_default(),
        // The client's doing, or a rule's.
        Some(b'C' | b'c' | b'K' | b'U' | b'D') => AnsiColor::Yellow.on_default(),
        _ => AnsiColor::Red.on_default(),
    };
    write!(out, "{} ", clock(&line.time))?;
    write_painted(format_args!("{term}"), style, has_colour, out)?;
    write!(out, " {client:<CLIENT_WIDTH$} > {listener} > ")?;
    match (line.pool, line.backend) {
        (Some(pool), Some(backend)) => write!(out, "{pool}/{backend}")?,
        (pool, _) => out.extend_from_slice(pool.unwrap_or("-").as_bytes()),
    }
    let [up, down] = [line.bytes_to_backend, line.bytes_to_client].map(ByteSize::b);
    write!(out, "  {up} up, {down} down, {total_ms} ms: {reason}")
}

/// The time of day of an RFC 3339 time.
fn clock(stamp: &str) -> &str {
    stamp.get(11..19).unwrap_or(stamp)
}

fn write_painted(
    text: std::fmt::Arguments<'_>,
    style: Style,
    has_colour: bool,
    out: &mut Vec<u8>,
) -> Result<()> {
    if has_colour && style != Style::new() {
        write!(out, "{style}{text}{style:#}")
    } else {
        out.write_fmt(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a person at a terminal cannot tell one session's line from the next.
    #[test]
    fn a_session_is_one_row_on_a_terminal() {
        let mut out = Vec::new();
        session_row(&SessionLine::sample(), false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "22:13:20 PR 192.0.2.1:1234        > db > -  1 B up, 2 B down, 3 ms: \
             client over its rate"
        );
        let mut coloured = Vec::new();
        session_row(&SessionLine::sample(), true, &mut coloured).unwrap();
        assert!(coloured.starts_with(b"22:13:20 \x1b[31mPR\x1b[0m "), "{coloured:?}");
    }
}
