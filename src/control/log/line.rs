//! How a line of the log looks: `key=value`, JSON, or a row for a person, after what the program
//! that takes it wants before each.
//!
//! Whatever a value holds, a line stays one line: in text, values that a reader of `key=value`
//! would take apart are quoted, and control characters are escaped.

use std::io::Write;
use std::time::SystemTime;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::shared::SessionRecord;

use crate::control::log::event::Event;
use crate::control::log::level::Level;
use crate::control::log::row::{event_row, session_row};
use crate::control::log::session_line::SessionLine;
use crate::control::log::shape::{LineBody, LineHead, LineShape};
use crate::control::log::text::{stamp, write_value};

/// Appends the line of an event.
pub(crate) fn event_line(event: &Event, shape: &LineShape, out: &mut Vec<u8>) {
    write_head(LineOf { time: event.time, level: event.level, kind: "log" }, shape, out);
    // Writing to a `Vec` cannot fail.
    let _ = match shape.body {
        LineBody::Json => write_json(&JsonEvent(event), out),
        LineBody::Text => write_text_event(event, out),
        LineBody::Row { has_colour } => event_row(event, has_colour, out),
    };
    out.push(b'\n');
}

/// Appends the line of a session that ended at `closed`.
pub(crate) fn session_line(
    closed: SystemTime,
    record: &SessionRecord,
    shape: &LineShape,
    out: &mut Vec<u8>,
) {
    write_head(LineOf { time: closed, level: Level::Info, kind: "session" }, shape, out);
    let line = SessionLine::new(closed, record);
    let _ = match shape.body {
        LineBody::Json => write_json(&line, out),
        LineBody::Text => line.write_text(out),
        LineBody::Row { has_colour } => session_row(&line, has_colour, out),
    };
    out.push(b'\n');
}

/// What the head of a line tells.
struct LineOf {
    time: SystemTime,
    level: Level,
    kind: &'static str,
}

fn write_head(line: LineOf, shape: &LineShape, out: &mut Vec<u8>) {
    let LineOf { time, level, kind } = line;
    let severity = level.severity();
    let _ = match &shape.head {
        LineHead::None => Ok(()),
        LineHead::Journal => write!(out, "<{severity}>"),
        LineHead::Syslog(host) => {
            let (priority, pid) = (FACILITY_DAEMON * 8 + severity, std::process::id());
            write!(out, "<{priority}>1 {} {host} evenkeel {pid} {kind} - ", stamp(time))
        }
    };
}

/// The facility `daemon` (RFC 5424, section 6.2.1).
const FACILITY_DAEMON: u8 = 3;

fn write_json(line: &impl Serialize, out: &mut Vec<u8>) -> std::io::Result<()> {
    serde_json::to_writer(out, line).map_err(std::io::Error::from)
}

fn write_text_event(event: &Event, out: &mut Vec<u8>) -> std::io::Result<()> {
    write!(out, "time={} level={} event=log message=", stamp(event.time), event.level.word())?;
    write_value(&event.message, out);
    for (name, value) in &event.fields {
        write!(out, " {name}=")?;
        write_value(value, out);
    }
    Ok(())
}

struct JsonEvent<'a>(&'a Event);

impl Serialize for JsonEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Event { time, level, message, fields } = self.0;
        let mut map = serializer.serialize_map(Some(4 + fields.len()))?;
        map.serialize_entry("time", &stamp(*time))?;
        map.serialize_entry("event", "log")?;
        map.serialize_entry("level", level.word())?;
        map.serialize_entry("message", message)?;
        for (name, value) in fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::{Duration, UNIX_EPOCH};

    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_070)
    }

    fn event(message: &str) -> Event {
        let fields = vec![("error", "no \"such\" file\n".to_owned()), ("plain", "x".to_owned())];
        Event { time: moment(), level: Level::Warn, message: message.to_owned(), fields }
    }

    fn shown(event: &Event, head: LineHead, body: LineBody) -> String {
        let mut out = Vec::new();
        event_line(event, &LineShape { head, body }, &mut out);
        String::from_utf8(out).unwrap()
    }

    // If this fails, a value with a newline in it forges a line of the log.
    #[test]
    fn an_event_stays_on_one_line() {
        assert_eq!(
            shown(&event("a b\nc"), LineHead::None, LineBody::Text),
            "time=2023-11-14T22:13:20.070Z level=warn event=log message=\"a b\\nc\" \
             error=\"no \\\"such\\\" file\\n\" plain=x\n"
        );
        let journal = shown(&event("x"), LineHead::Journal, LineBody::Text);
        assert!(journal.starts_with("<4>time=2023-"), "{journal}");
        let json = shown(&event("a\nb"), LineHead::None, LineBody::Json);
        assert_eq!(json.lines().count(), 1, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], "a\nb");
        let row = shown(&event("a\nb"), LineHead::None, LineBody::Row { has_colour: false });
        assert_eq!(row, "22:13:20 warn  a\\nb error=\"no \\\"such\\\" file\\n\" plain=x\n");
    }

    // If this fails, a syslog server takes the header for text, or files lines under another name.
    #[test]
    fn a_line_for_syslog_has_the_header_of_rfc_5424() {
        let head = LineHead::Syslog("lb1".to_owned());
        let line = shown(&event("x"), head, LineBody::Text);
        let pid = std::process::id();
        let header = format!("<28>1 2023-11-14T22:13:20.070Z lb1 evenkeel {pid} log - time=");
        assert!(line.starts_with(&header), "{line}");
    }
}
