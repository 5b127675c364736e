//! Sessions on their way to another process: a sealed memfd that describes them, and their sockets.
//!
//! The memfd has the length of the descriptions in eight bytes, the descriptions as JSON, and then
//! what each session holds: bytes of its client, bytes of its backend.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::control::upgrade::packets::{self, Call};
use crate::dataplane::{
    ArrivedSession, PassedPacing, PassedParticulars, PassedRelay, PassedSession, PassedStream,
    Window,
};
use crate::shared::FirstWords;
use crate::sys::channel::{Channel, ChannelPacket};
use crate::sys::sealed;

/// Sends the sessions of a window.
///
/// # Errors
/// As [`packets::send`], and as memfd_create(2); then nothing was sent.
pub(super) fn send(channel: &Channel, window: &Window, until: Instant) -> io::Result<()> {
    let described: Vec<WrittenRef<'_>> = window.passed().iter().map(WrittenRef).collect();
    let described = serde_json::to_vec(&described)?;
    let mut bytes = (described.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&described);
    window.held().flatten().for_each(|held| bytes.extend_from_slice(held));
    let file = sealed::sealed(&bytes)?;
    let descriptors: Vec<BorrowedFd<'_>> =
        std::iter::once(file.as_fd()).chain(window.sockets().map(AsFd::as_fd)).collect();
    packets::send(channel, &Call::Sessions, &descriptors, until)
}

/// The sessions that came in a packet.
///
/// # Errors
/// `InvalidData` for anything else.
pub(super) fn sessions(packet: ChannelPacket) -> io::Result<Vec<ArrivedSession>> {
    if packets::said::<Call>(&packet)? != Call::Sessions {
        return Err(io::Error::new(ErrorKind::InvalidData, "it spoke out of turn"));
    }
    let mut descriptors = packet.descriptors.into_iter();
    let file = descriptors.next().ok_or_else(malformed)?;
    let bytes = sealed::read_sealed(file)?;
    let (length, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| malformed())?;
    let (described, mut held) = rest.split_at_checked(length).ok_or_else(malformed)?;
    let described: Vec<Written> = serde_json::from_slice(described)?;
    let mut next = |passed: PassedSession| {
        let sockets = [descriptors.next()?, descriptors.next()?];
        let PassedStream { to_backend, to_client, .. } = &passed.stream;
        let held = [take(&mut held, to_backend.held)?, take(&mut held, to_client.held)?];
        Some(ArrivedSession { passed, sockets, held })
    };
    let arrived: Option<Vec<_>> = described.into_iter().map(|it| next(it.0)).collect();
    arrived.ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "sessions came without what belongs to them")
}

fn take(bytes: &mut &[u8], count: usize) -> Option<Box<[u8]>> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken.into())
}

#[derive(Serialize)]
struct WrittenRef<'a>(#[serde(serialize_with = "write_session")] &'a PassedSession);

#[derive(Deserialize)]
struct Written(#[serde(with = "SessionForm")] PassedSession);

fn write_session<S: Serializer>(passed: &&PassedSession, out: S) -> Result<S::Ok, S::Error> {
    SessionForm::serialize(passed, out)
}

/// The form of a session: [`packets::SESSIONS_FORM`] is its number.
#[derive(Serialize, Deserialize)]
#[serde(remote = "PassedSession")]
struct SessionForm {
    number: u64,
    listener: String,
    pool: String,
    backend: String,
    address: String,
    client: Option<SocketAddr>,
    picked_by: Option<String>,
    slot: Option<u32>,
    generation: u64,
    opened_us: u64,
    connected_us: Option<u64>,
    waited_ms: Option<u32>,
    active_us: u64,
    is_asked: bool,
    has_keepalive: bool,
    acknowledged: Option<NonZeroU32>,
    is_lingering: bool,
    is_bulk: bool,
    #[serde(with = "StreamForm")]
    stream: PassedStream,
    #[serde(with = "ParticularsForm")]
    particulars: PassedParticulars,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PassedStream")]
struct StreamForm {
    ports: [u16; 2],
    #[serde(with = "RelayForm")]
    to_backend: PassedRelay,
    #[serde(with = "RelayForm")]
    to_client: PassedRelay,
    aborted_by: Option<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PassedRelay")]
struct RelayForm {
    state: String,
    is_spliced: bool,
    in_a_row: u8,
    copied: u64,
    spliced: u64,
    held: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PassedParticulars")]
struct ParticularsForm {
    #[serde(serialize_with = "write_pacing", deserialize_with = "read_pacing")]
    pacing: Option<PassedPacing>,
    observed: Option<[String; 2]>,
    skipped: Vec<[String; 3]>,
    #[serde(serialize_with = "write_words", deserialize_with = "read_words")]
    first_words: Option<FirstWords>,
    reached_port: Option<u16>,
    tlvs: Vec<u8>,
    source: Option<IpAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PassedPacing")]
struct PacingForm {
    from_client: [u64; 2],
    from_backend: [u64; 2],
    resumes_us: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPacing(#[serde(with = "PacingForm")] PassedPacing);

fn write_pacing<S: Serializer>(pacing: &Option<PassedPacing>, out: S) -> Result<S::Ok, S::Error> {
    pacing.map(WrittenPacing).serialize(out)
}

fn read_pacing<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PassedPacing>, D::Error> {
    Ok(Option::<WrittenPacing>::deserialize(from)?.map(|written| written.0))
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "FirstWords")]
struct WordsForm {
    route: Option<usize>,
    server_name: Option<String>,
    read_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenWords(#[serde(with = "WordsForm")] FirstWords);

fn write_words<S: Serializer>(words: &Option<FirstWords>, out: S) -> Result<S::Ok, S::Error> {
    words.clone().map(WrittenWords).serialize(out)
}

fn read_words<'de, D: Deserializer<'de>>(from: D) -> Result<Option<FirstWords>, D::Error> {
    Ok(Option::<WrittenWords>::deserialize(from)?.map(|written| written.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, the form has changed: its number has to grow, or a program of the version
    // before takes sessions for something else.
    #[test]
    fn the_form_is_the_one_that_its_number_says() {
        let form = include_str!("session_form_1.json");
        let read: Vec<Written> = serde_json::from_str(form).unwrap();
        let again: Vec<WrittenRef<'_>> = read.iter().map(|it| WrittenRef(&it.0)).collect();
        let again = serde_json::to_value(&again).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(form).unwrap());
        assert_eq!(packets::SESSIONS_FORM, 1);
    }
}
