//! How a line of the log looks: text for people, text with a priority for the journal, JSON.
//!
//! Whatever a value holds, a line stays one line: in text, values that a reader of `key=value`
//! would take apart are quoted, and control characters are escaped.

use std::borrow::Cow;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::shared::{Backend, Detail, Obstacle, SessionRecord};

use crate::control::log::event::Event;
use crate::control::log::level::Level;
use crate::control::log::settings::LineShape;
use crate::control::words::shown_network;

/// Appends the line of an event.
pub(crate) fn event_line(event: &Event, shape: LineShape, out: &mut Vec<u8>) {
    // Writing to a `Vec` cannot fail.
    let _ = match shape {
        LineShape::Json => write_json(&JsonEvent(event), out),
        LineShape::Text | LineShape::Journal => {
            priority(event.level, shape, out);
            write_text_event(event, out)
        }
    };
    out.push(b'\n');
}

/// Appends the line of a session that ended at `closed`.
pub(crate) fn session_line(
    closed: SystemTime,
    record: &SessionRecord,
    shape: LineShape,
    out: &mut Vec<u8>,
) {
    let line = SessionLine::new(closed, record);
    let _ = match shape {
        LineShape::Json => write_json(&line, out),
        LineShape::Text | LineShape::Journal => {
            priority(Level::Info, shape, out);
            line.write_text(out)
        }
    };
    out.push(b'\n');
}

/// RFC 3339 in UTC, with milliseconds.
fn stamp(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

fn write_json(line: &impl Serialize, out: &mut Vec<u8>) -> std::io::Result<()> {
    serde_json::to_writer(out, line).map_err(std::io::Error::from)
}

fn priority(level: Level, shape: LineShape, out: &mut Vec<u8>) {
    if shape == LineShape::Journal {
        let digit = match level {
            Level::Error => b'3',
            Level::Warn => b'4',
            Level::Info => b'6',
            Level::Debug | Level::Trace => b'7',
        };
        out.extend_from_slice(&[b'<', digit, b'>']);
    }
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

/// A value of `key=value`, quoted when a reader could not tell where it ends.
fn write_value(value: &str, out: &mut Vec<u8>) {
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
fn escape(text: &str, out: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    for letter in text.chars() {
        if letter.is_control() {
            out.extend(letter.escape_default().map(|letter| u8::try_from(letter).unwrap_or(b'?')));
        } else {
            out.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
        }
    }
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

/// The pool's name; a pool may be gone while its sessions go on, and its backends still know it.
fn pool_of(record: &SessionRecord) -> Option<&str> {
    let of_backend = record.backend.as_ref().map(|backend| backend.pool_name.as_str());
    record.pool.as_ref().map(|pool| pool.name.as_str()).or(of_backend)
}

/// The reason, and what else there is to say.
fn reason_of(record: &SessionRecord) -> Cow<'static, str> {
    match record.detail {
        Detail::None => Cow::Borrowed(record.reason),
        Detail::Observed(observed) => {
            Cow::Owned(format!("{} ({}, observed only)", record.reason, observed.words()))
        }
        Detail::Held(outcome) => Cow::Owned(format!("{} ({})", record.reason, outcome.words())),
        Detail::Header(malformed) => Cow::Owned(format!("{} ({malformed})", record.reason)),
        Detail::Attempts(attempts, failure) => {
            let times = if attempts == 1 { "attempt" } else { "attempts" };
            Cow::Owned(format!("{}: {} ({attempts} {times})", record.reason, failure.words()))
        }
        Detail::InKernel(times, _) => {
            let word = if times == 1 { "time" } else { "times" };
            Cow::Owned(format!("{} ({times} {word}, by the kernel)", record.reason))
        }
    }
}

/// The client; the kernel tells no port, and of addresses that are one client their network.
fn client_of(record: &SessionRecord) -> String {
    match (record.detail, record.client.ip()) {
        (Detail::InKernel(_, bits), Some(ip)) => shown_network(ip, bits),
        _ => record.client.to_string(),
    }
}

/// The backends that were passed over, and why: `b2(down),b3(full)`.
fn skipped_of(record: &SessionRecord) -> Option<String> {
    let one =
        |(backend, why): &(Arc<Backend>, Obstacle)| format!("{}({})", backend.name, why.word());
    let all: Vec<String> = record.skipped.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(","))
}

/// The fields of a session's line, in their order.
#[derive(Debug, Serialize)]
struct SessionLine<'a> {
    time: String,
    event: &'static str,
    session: u64,
    listener: &'a str,
    pool: Option<&'a str>,
    backend: Option<&'a str>,
    client: String,
    bytes_to_backend: u64,
    bytes_to_client: u64,
    queue_ms: i64,
    connect_ms: i64,
    total_ms: u64,
    path: &'static str,
    generation: u64,
    term: &'static str,
    reason: Cow<'static, str>,
    pick: Option<&'static str>,
    slot: Option<u32>,
    skipped: Option<String>,
    limit: Option<&'a str>,
    to: Option<SocketAddr>,
}

impl<'a> SessionLine<'a> {
    fn new(closed: SystemTime, record: &'a SessionRecord) -> Self {
        let whole = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        Self {
            time: stamp(closed),
            event: "session",
            session: record.session,
            listener: &record.listener.name,
            pool: pool_of(record),
            backend: record.backend.as_ref().map(|backend| backend.name.as_str()),
            client: client_of(record),
            bytes_to_backend: record.bytes_to_backend,
            bytes_to_client: record.bytes_to_client,
            queue_ms: record.queue_ms.map_or(-1, whole),
            connect_ms: record.connect_ms.map_or(-1, whole),
            total_ms: record.total_ms,
            path: record.path.label(),
            generation: record.generation.0,
            term: record.term,
            reason: reason_of(record),
            pick: record.pick.by.word(),
            slot: record.pick.slot(),
            skipped: skipped_of(record),
            limit: record.limit.as_deref(),
            to: record.to,
        }
    }

    fn write_text(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let Self { time, event, session, client, .. } = self;
        write!(out, "time={time} event={event} session={session} listener=")?;
        write_value(self.listener, out);
        out.extend_from_slice(b" pool=");
        write_value(self.pool.unwrap_or("-"), out);
        out.extend_from_slice(b" backend=");
        write_value(self.backend.unwrap_or("-"), out);
        let Self { bytes_to_backend, bytes_to_client, queue_ms, connect_ms, total_ms, .. } = self;
        write!(out, " client={client} bytes_to_backend={bytes_to_backend}")?;
        write!(out, " bytes_to_client={bytes_to_client} queue_ms={queue_ms}")?;
        write!(out, " connect_ms={connect_ms} total_ms={total_ms}")?;
        let Self { path, generation, term, reason, .. } = self;
        write!(out, " path={path} generation={generation} term={term} reason=")?;
        write_value(reason, out);
        write!(out, " pick={} slot=", self.pick.unwrap_or("-"))?;
        match self.slot {
            Some(slot) => write!(out, "{slot}")?,
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" skipped=");
        write_value(self.skipped.as_deref().unwrap_or("-"), out);
        out.extend_from_slice(b" limit=");
        write_value(self.limit.unwrap_or("-"), out);
        match self.to {
            Some(to) => write!(out, " to={to}"),
            None => out.write_all(b" to=-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::{Duration, UNIX_EPOCH};

    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_070)
    }

    fn line() -> SessionLine<'static> {
        SessionLine {
            time: stamp(moment()),
            event: "session",
            session: 7,
            listener: "db",
            pool: None,
            backend: None,
            client: "192.0.2.1:1234".to_owned(),
            bytes_to_backend: 1,
            bytes_to_client: 2,
            queue_ms: -1,
            connect_ms: -1,
            total_ms: 3,
            path: "copy",
            generation: 4,
            term: "PR",
            reason: Cow::Borrowed("client over its rate"),
            pick: None,
            slot: None,
            skipped: None,
            limit: None,
            to: None,
        }
    }

    fn event(message: &str) -> Event {
        let fields = vec![("error", "no \"such\" file\n".to_owned()), ("plain", "x".to_owned())];
        Event { time: moment(), level: Level::Warn, message: message.to_owned(), fields }
    }

    fn shown(event: &Event, shape: LineShape) -> String {
        let mut out = Vec::new();
        event_line(event, shape, &mut out);
        String::from_utf8(out).unwrap()
    }

    // If this fails, programs that read the session log by field break.
    #[test]
    fn session_fields_have_their_names_and_order() {
        let mut out = Vec::new();
        line().write_text(&mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "time=2023-11-14T22:13:20.070Z event=session session=7 listener=db pool=- backend=- \
             client=192.0.2.1:1234 bytes_to_backend=1 bytes_to_client=2 queue_ms=-1 connect_ms=-1 \
             total_ms=3 path=copy generation=4 term=PR reason=\"client over its rate\" pick=- \
             slot=- skipped=- limit=- to=-"
        );
        let json = serde_json::to_string(&line()).unwrap();
        assert_eq!(
            json,
            "{\"time\":\"2023-11-14T22:13:20.070Z\",\"event\":\"session\",\"session\":7,\
             \"listener\":\"db\",\"pool\":null,\"backend\":null,\"client\":\"192.0.2.1:1234\",\
             \"bytes_to_backend\":1,\"bytes_to_client\":2,\"queue_ms\":-1,\"connect_ms\":-1,\
             \"total_ms\":3,\"path\":\"copy\",\"generation\":4,\"term\":\"PR\",\
             \"reason\":\"client over its rate\",\"pick\":null,\"slot\":null,\
             \"skipped\":null,\"limit\":null,\"to\":null}"
        );
    }

    // If this fails, a value with a newline in it forges a line of the log.
    #[test]
    fn an_event_stays_on_one_line() {
        assert_eq!(
            shown(&event("a b\nc"), LineShape::Text),
            "time=2023-11-14T22:13:20.070Z level=warn event=log message=\"a b\\nc\" \
             error=\"no \\\"such\\\" file\\n\" plain=x\n"
        );
        assert!(shown(&event("x"), LineShape::Journal).starts_with("<4>time=2023-"));
        let json = shown(&event("a\nb"), LineShape::Json);
        assert_eq!(json.lines().count(), 1, "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], "a\nb");
    }
}
