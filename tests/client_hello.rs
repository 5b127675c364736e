//! What evenkeel reads in a TLS hello, beside what rustls reads in the same bytes: hellos that
//! rustls makes, cut into records of any size, and the same with bytes changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

use std::sync::Arc;

use evenkeel::policy::first_bytes::client_hello::{Spoken, parse};
use proptest::prelude::*;
use proptest::sample::Index;
use rustls::server::Acceptor;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

const RECORD_HEADER_BYTES: usize = 5;
const HANDSHAKE: u8 = 22;

/// Name and protocols, as both readers give them.
type Said = (Option<String>, Vec<Vec<u8>>);

/// What a client of rustls says first.
fn hello(
    name: &str,
    protocols: &[Vec<u8>],
    versions: &[&'static SupportedProtocolVersion],
) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = protocols.to_vec();
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same handshake message in records of these lengths, the last one as long as it takes.
fn in_records(bytes: &[u8], lengths: &[usize]) -> Vec<u8> {
    let (header, mut message) = bytes.split_at(RECORD_HEADER_BYTES);
    assert_eq!(header[0], HANDSHAKE);
    let mut out = Vec::new();
    let mut lengths = lengths.iter();
    while !message.is_empty() {
        let length = lengths.next().map_or(message.len(), |length| *length).min(message.len());
        let (fragment, rest) = message.split_at(length);
        out.extend([HANDSHAKE, header[1], header[2]]);
        out.extend(u16::try_from(length).unwrap().to_be_bytes());
        out.extend(fragment);
        message = rest;
    }
    out
}

/// What rustls reads; `None` when it reads no hello, or not all of one.
fn by_rustls(mut bytes: &[u8]) -> Option<Said> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let protocols = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
            return Some((hello.server_name().map(str::to_ascii_lowercase), protocols));
        }
    }
    None
}

fn by_us(bytes: &[u8]) -> Option<Said> {
    match parse(bytes) {
        Spoken::Hello(hello) => {
            let protocols = hello.protocols.iter().map(|name| name.to_vec()).collect();
            Some((hello.server_name, protocols))
        }
        Spoken::Incomplete | Spoken::NotTls => None,
    }
}

fn versions() -> impl Strategy<Value = Vec<&'static SupportedProtocolVersion>> {
    prop_oneof![Just(vec![&TLS12]), Just(vec![&TLS13]), Just(vec![&TLS12, &TLS13])]
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?(\\.[a-z]([a-zA-Z0-9-]{0,20}[a-z])?){1,4}",
        Just("192.0.2.1".to_owned()),
    ]
}

fn protocols() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..12)
}

proptest! {
    // If this fails, a client is not led where its hello says, by how it was cut into records.
    #[test]
    fn both_read_the_same_in_a_hello(
        name in names(),
        protocols in protocols(),
        versions in versions(),
        lengths in proptest::collection::vec(1_usize..200, 0..8),
        cut: Index,
    ) {
        let bytes = in_records(&hello(&name, &protocols, &versions), &lengths);
        let ours = by_us(&bytes);
        prop_assert_eq!(&ours, &by_rustls(&bytes));
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let expected = (!is_address).then(|| name.to_ascii_lowercase());
        prop_assert_eq!(ours, Some((expected, protocols)));
        // Not one byte less is enough.
        let part = &bytes[..cut.index(bytes.len())];
        prop_assert_eq!(parse(part), Spoken::Incomplete);
    }

    // If this fails, a client can send a hello that leads to one server by our reading and is for
    // another by that server's.
    #[test]
    fn where_both_read_a_changed_hello_they_read_the_same(
        name in names(),
        protocols in protocols(),
        versions in versions(),
        edits in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = hello(&name, &protocols, &versions);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let (Some(ours), Some(theirs)) = (by_us(&bytes), by_rustls(&bytes)) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
