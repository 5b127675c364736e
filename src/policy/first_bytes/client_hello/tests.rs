//! Examples and promises of reading a hello.

use super::*;
use proptest::prelude::*;

fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn name_extension(name: &str) -> Vec<u8> {
    extension(0, &vector16(&[&[0][..], &vector16(name.as_bytes())].concat()))
}

/// A hello as one handshake message. `padding`: of an extension that no parser knows, as large as
/// the key shares that withstand quantum computers.
fn message(name: Option<&str>, protocols: &[&str], padding: usize) -> Vec<u8> {
    let mut extensions = extension(0x0a0a, &vec![0xaa; padding]);
    extensions.extend(name.map(name_extension).unwrap_or_default());
    if !protocols.is_empty() {
        let list: Vec<u8> = protocols.iter().flat_map(|name| vector8(name.as_bytes())).collect();
        extensions.extend(extension(16, &vector16(&list)));
    }
    body(&vector16(&extensions))
}

fn body(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(vector8(&[1; 32]));
    body.extend(vector16(&[0x13, 1, 0x13, 2]));
    body.extend(vector8(&[0]));
    body.extend(extensions);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

/// The message in records of at most `most` bytes.
fn records(message: &[u8], most: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1][..], &vector16(part)].concat();
    message.chunks(most).flat_map(record).collect()
}

fn spoken(name: Option<&str>, protocols: &[&str]) -> Spoken {
    Spoken::Hello(ClientHello {
        server_name: name.map(str::to_owned),
        protocols: protocols.iter().map(|name| Box::from(name.as_bytes())).collect(),
    })
}

#[test]
fn a_name_and_protocols_are_found() {
    // If this fails, clients are sent to the pool of another name.
    let hello = records(&message(Some("WWW.Example.com."), &["h2", "http/1.1"], 20), 16_384);
    assert_eq!(parse(&hello), spoken(Some("www.example.com"), &["h2", "http/1.1"]));
    assert_eq!(parse(&records(&message(None, &[], 0), 99)), spoken(None, &[]));
    assert_eq!(parse(&records(&body(&[]), 99)), spoken(None, &[]), "a hello without extensions");
}

#[test]
fn a_large_hello_over_many_records_is_read_wherever_it_is_cut() {
    // If this fails, hellos of modern clients are routed before they are whole, or never.
    let wanted = spoken(Some("db.example.com"), &["postgresql"]);
    for (padding, most) in [(0, 1), (1700, 16_384), (1700, 100), (15_000, 16_384), (15_000, 3)] {
        let mut bytes = records(&message(Some("db.example.com"), &["postgresql"], padding), most);
        let length = bytes.len();
        bytes.extend(b"whatever follows");
        assert_eq!(parse(&bytes), wanted);
        assert_eq!(parse(&bytes[..length]), wanted);
        let step = if length > 4000 { 97 } else { 1 };
        for cut in (0..length).step_by(step) {
            assert_eq!(parse(&bytes[..cut]), Spoken::Incomplete, "{padding} {most} cut at {cut}");
        }
    }
}

#[test]
fn what_is_no_tls_shows_at_once() {
    // If this fails, clients of other protocols wait for nothing.
    let cases: [&[u8]; 7] = [
        b"G",
        b"\x80",
        &[22, 2],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0x40, 1],
        &[22, 3, 1, 0, 4, 2],
        &[22, 3, 1, 0, 1, 1, 23],
    ];
    for bytes in cases {
        assert_eq!(parse(bytes), Spoken::NotTls, "{bytes:?}");
    }
}

#[test]
fn a_hello_that_contradicts_itself_is_none() {
    // If this fails, it is a guess where such a client goes.
    let twice = [name_extension("a.example"), name_extension("b.example")].concat();
    let short = extension(0, &[0, 9, 0, 0, 1, b'a']);
    let behind = [extension(0, &vector16(&[0, 0, 1, b'a'])), vec![0]].concat();
    for extensions in [twice, short, behind] {
        let hello = records(&body(&vector16(&extensions)), 16_384);
        assert_eq!(parse(&hello), Spoken::NotTls, "{extensions:?}");
    }
    let odd = extension(0, &vector16(&[&[0][..], &vector16(b"a b")].concat()));
    let hello = records(&body(&vector16(&odd)), 16_384);
    assert_eq!(parse(&hello), spoken(None, &[]), "no name that a host has");
}

proptest! {
    #[test]
    fn names_come_back_however_records_are_cut(
        name in "[a-z0-9.-]{1,60}[a-z]",
        protocols in proptest::collection::vec("[a-z0-9/.]{1,12}", 0..5),
        most in 1_usize..600,
        padding in 0_usize..800,
        cut: prop::sample::Index,
    ) {
        // If this fails, a client is routed by a part of a name.
        let offered: Vec<&str> = protocols.iter().map(String::as_str).collect();
        let bytes = records(&message(Some(&name), &offered, padding), most);
        prop_assert_eq!(parse(&bytes), spoken(Some(&name), &offered));
        prop_assert_eq!(parse(&bytes[..cut.index(bytes.len())]), Spoken::Incomplete);
    }

    #[test]
    fn any_bytes_give_an_answer_that_more_bytes_do_not_change(
        start in 0_usize..40,
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        position: prop::sample::Index,
    ) {
        // If this fails, input panics the process or is judged by how it was cut.
        let hello = records(&message(Some("a.example"), &["h2"], 3), 50);
        let mut bytes = [&hello[..start], &bytes, &hello[start..]].concat();
        *position.get_mut(&mut bytes) ^= 1;
        let whole = parse(&bytes);
        for cut in 0..bytes.len() {
            let early = parse(&bytes[..cut]);
            prop_assert!(early == Spoken::Incomplete || early == whole, "cut at {}", cut);
        }
    }
}
