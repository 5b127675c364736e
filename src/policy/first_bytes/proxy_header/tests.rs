//! Examples and promises of the PROXY protocol.

use super::*;
use proptest::prelude::*;

fn ends(source: &str, destination: &str) -> Ends {
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_START, &[command, family], &length, body].concat()
}

/// A TLV.
fn written(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn parsed(bytes: &[u8]) -> Header {
    parse(bytes).unwrap().expect("a whole header")
}

#[test]
fn the_text_of_the_specification_is_understood() {
    // If this fails, other proxies and evenkeel do not understand each other in version 1.
    let longest = "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n";
    let long = longest.replace("f...f", "ffff:ffff:ffff:ffff:ffff:ffff");
    let cases = [
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            Some(ends("192.168.0.1:56324", "192.168.0.11:443")),
        ),
        ("PROXY TCP6 2001:db8::1 ::1 1 0\r\n", Some(ends("[2001:db8::1]:1", "[::1]:0"))),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    ];
    for (text, wanted) in cases {
        let header = parsed(format!("{text}GET / HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!((header.length, header.ends), (text.len(), wanted), "{text}");
    }
    assert!(parsed(long.as_bytes()).ends.is_some(), "{long}");
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_shows() {
    // If this fails, a guess is taken for an address, or nonsense is waited for.
    let long_line = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES_MAX));
    let cases: [(&[u8], Malformed); 13] = [
        (b"G", Malformed::Start),
        (b"PROXZ", Malformed::Start),
        (b"\r\n\r\n\0\r\nQUIX", Malformed::Start),
        (long_line.as_bytes(), Malformed::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Malformed::Line),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Malformed::Words),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Malformed::Words),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Malformed::Words),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", Malformed::Words),
        (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::Words),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 65536\r\n", Malformed::Words),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Malformed::Unknown),
        (b"PROXY UNKNOWNS\r\n", Malformed::Words),
    ];
    for (bytes, wanted) in cases {
        assert_eq!(parse(bytes), Err(wanted), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn version_2_knows_local_unspec_and_unix_and_nothing_else() {
    // If this fails, a health check is taken for a client, or an unknown family for a known one.
    for (command, family, body) in [
        (LOCAL, UNSPEC, &b""[..]),
        (LOCAL, 0xff, b"whatever this is"),
        (PROXY, UNSPEC, b"anything"),
        (PROXY, UNIX_STREAM, &[0; 216]),
    ] {
        let bytes = v2(command, family, body);
        let wanted = Header { length: bytes.len(), ends: None, tlvs: Box::default() };
        assert_eq!(parsed(&bytes), wanted, "{command:#x} {family:#x}");
    }
    for (command, family) in
        [(0x22, TCP4), (0x11, TCP4), (0x31, TCP4), (PROXY, 0x41), (PROXY, 0x13), (PROXY, 0x12)]
    {
        let bytes = v2(command, family, &[0; 40]);
        assert_eq!(parse(&bytes[..14]), Err(Malformed::Unknown), "{command:#x} {family:#x}");
    }
}

#[test]
fn tlvs_fit_exactly_and_4_kib_is_the_end() {
    // If this fails, bytes of the client are taken for the header's or the other way round.
    let addresses = [10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
    let with = |tlvs: &[u8]| v2(PROXY, TCP4, &[&addresses[..], tlvs].concat());
    let header = parsed(&with(&[4, 0, 1, 9, 2, 0, 2, b'h', b'i', 2, 0, 1, b'x']));
    assert_eq!(header.authority(), Some(&b"hi"[..]));
    for tlvs in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0, 0, 9], &[4, 0xff, 0xff, 1]] {
        assert_eq!(parse(&with(tlvs)), Err(Malformed::Length), "{tlvs:?}");
    }
    assert_eq!(parse(&v2(PROXY, TCP4, &addresses[..11])), Err(Malformed::Length));
    let room = V2_BYTES_MAX - V2_FIXED_BYTES;
    assert!(parse(&v2(LOCAL, UNSPEC, &vec![0; room])).unwrap().is_some());
    let over = v2(LOCAL, UNSPEC, &vec![0; room + 1]);
    assert_eq!(parse(&over[..V2_FIXED_BYTES]), Err(Malformed::TooLong));
}

#[test]
fn a_checksum_has_to_be_right() {
    // If this fails, a header that was damaged on its way names a client, or a sound one is
    // refused.
    assert_eq!(
        tlv::crc32c(b"123456789".iter().copied()),
        0xe306_9283,
        "the check value of CRC-32C"
    );
    let addresses = [10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
    for behind in [&b""[..], &[tlv::AUTHORITY, 0, 2, b'h', b'i']] {
        let body = [&addresses[..], &[tlv::CRC32C, 0, 4, 0, 0, 0, 0], behind].concat();
        let mut bytes = v2(PROXY, TCP4, &body);
        let place = V2_FIXED_BYTES + addresses.len() + tlv::HEADER_BYTES;
        let sum = tlv::crc32c(bytes.iter().copied());
        bytes[place..place + 4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parsed(&[&bytes[..], b"more"].concat()).length, bytes.len());
        for at in V2_FIXED_BYTES..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x10;
            // What is no checksum, or no whole TLV, any more is another thing.
            let is_kind = (place - tlv::HEADER_BYTES..place).contains(&at);
            assert!(parse(&wrong) == Err(Malformed::Checksum) || is_kind, "byte {at}");
        }
    }
    let short = [&addresses[..], &[tlv::CRC32C, 0, 1, 0]].concat();
    assert_eq!(parse(&v2(PROXY, TCP4, &short)), Err(Malformed::Checksum));
}

#[test]
fn a_header_is_no_longer_than_a_line_of_version_1() {
    // If this fails, nginx's stream module resets clients that ask for a long name, and healthy
    // backends are ejected for it.
    let ends = Some(ends("[2001:db8::1]:1", "[2001:db8::2]:2"));
    for (length, is_told) in [(33, true), (34, false)] {
        let host = vec![b'h'; length];
        let tlvs = written(tlv::AUTHORITY, &host);
        let statement = Statement { tlvs: &tlvs, ..Statement::new(ends, b"0123456789abcdef") };
        let header = parsed(&encode(ProxyVersion::V2, &statement));
        assert_eq!((header.authority().is_some(), header.length <= 107), (is_told, true));
        let more = Statement { bytes_max: 108, ..statement };
        assert!(parsed(&encode(ProxyVersion::V2, &more)).authority().is_some(), "on request");
    }
}

#[test]
fn tlvs_are_passed_on_in_the_order_asked_for() {
    // If this fails, a backend does not learn what the proxy in front knows, or learns what it was
    // not to be told.
    let ends = Some(ends("192.0.2.1:1", "192.0.2.2:2"));
    let incoming = [
        written(0xee, b"two"),
        written(tlv::AUTHORITY, b"host"),
        written(0x20, b"secret"),
        written(0xea, b"one"),
        written(tlv::UNIQUE_ID, b"theirs"),
        written(0xea, b"again"),
    ]
    .concat();
    let passed = |kinds: &[u8], bytes_max: usize| {
        let statement = Statement {
            tlvs: &incoming,
            pass: TlvKinds::new(kinds).unwrap(),
            bytes_max,
            ..Statement::new(ends, b"ours")
        };
        parsed(&encode(ProxyVersion::V2, &statement)).tlvs
    };
    let ours = written(tlv::UNIQUE_ID, b"ours");
    let all = [&ours[..], &written(0xea, b"one"), &written(0xea, b"again"), &written(0xee, b"two")];
    assert_eq!(*passed(&[0xea, 0xee], 107), *all.concat());
    assert_eq!(*passed(&[], 107), *ours);
    let theirs = [written(tlv::UNIQUE_ID, b"theirs"), written(tlv::AUTHORITY, b"host")].concat();
    assert_eq!(*passed(&[tlv::AUTHORITY, tlv::UNIQUE_ID], 107), *theirs);
    // Behind 28 bytes and the id, the first for which there is room.
    assert_eq!(*passed(&[0xea, 0xee], 28 + 7 + 6), *[&ours[..], &written(0xea, b"one")].concat());
    assert_eq!(*passed(&[0xea, 0xee], 28 + 7 + 5), *ours);
    assert!(TlvKinds::new(&[1; tlv::KINDS_MAX + 1]).is_none());
}

#[test]
fn a_connection_without_a_client_names_its_own_addresses_or_none() {
    // If this fails, Postfix, Apache httpd and Varnish refuse probes, or backends take them for
    // clients.
    let ends = |source: &str, destination: &str| Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    };
    let v4 = ends("192.0.2.1:4711", "192.0.2.2:25");
    let v6 = ends("[2001:db8::1]:4711", "[2001:db8::2]:25");
    let line = |own| String::from_utf8(encode_own(ProxyVersion::V1, own)).unwrap();
    assert_eq!(line(Some(v4)), "PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n");
    assert_eq!(line(Some(v6)), "PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n");
    assert_eq!(line(None), "PROXY UNKNOWN\r\n");
    for own in [Some(v4), None] {
        let bytes = encode_own(ProxyVersion::V2, own);
        assert_eq!(bytes, v2(LOCAL, UNSPEC, b""));
        let wanted = Header { length: bytes.len(), ends: None, tlvs: Box::default() };
        assert_eq!(parsed(&bytes), wanted);
    }
}

#[test]
fn a_client_without_an_address_is_announced_as_local_with_its_number() {
    // If this fails, HAProxy, httpd, Postfix, Dovecot, slapd and Envoy refuse its sessions.
    let bytes = encode(ProxyVersion::V2, &Statement::new(None, b"7"));
    assert_eq!(bytes, v2(LOCAL, UNSPEC, b"\x05\0\x017"));
}

#[test]
fn safe_tlvs_keep_the_header_within_107_bytes() {
    // If this fails, nginx resets sessions, and their backends are blamed for it.
    let end: SocketAddr = "[2001:db8::1]:4711".parse().unwrap();
    let ends = Some(Ends { source: end, destination: end });
    let id = u64::MAX.to_string();
    let tlvs = written(tlv::AUTHORITY, &[b'a'; TLVS_BYTES_SAFE - tlv::HEADER_BYTES]);
    let bytes_max = V2_BYTES_MAX;
    let statement = Statement { tlvs: &tlvs, bytes_max, ..Statement::new(ends, id.as_bytes()) };
    assert_eq!(encode(ProxyVersion::V2, &statement).len(), V1_BYTES_MAX);
}

fn any_end() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn any_statement() -> impl Strategy<Value = (Option<Ends>, Vec<u8>, Option<Vec<u8>>)> {
    let ends = (any_end(), any_end())
        .prop_map(|(source, destination)| alike(Ends { source, destination }));
    let host = proptest::option::of(proptest::collection::vec(any::<u8>(), 1..300));
    (proptest::option::of(ends), proptest::collection::vec(any::<u8>(), 1..128), host)
}

proptest! {
    #[test]
    fn what_is_written_is_read_wherever_it_is_cut(
        (ends, id, host) in any_statement(), binary: bool, rest: Vec<u8>
    ) {
        // If this fails, a backend learns of another client, or a cut header is misread.
        let version = if binary { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let tlvs = host.as_deref().map(|host| written(tlv::AUTHORITY, host)).unwrap_or_default();
        let statement = Statement { tlvs: &tlvs, ..Statement::new(ends, &id) };
        let mut bytes = encode(version, &statement);
        let length = bytes.len();
        prop_assert!(length <= WRITTEN_BYTES_MAX, "{} bytes", length);
        bytes.extend(rest);
        let header = parsed(&bytes);
        prop_assert_eq!(header.length, length);
        prop_assert_eq!(header.ends, ends);
        if binary && ends.is_some() {
            let is_v4 = ends.is_some_and(|ends| ends.source.is_ipv4());
            let fixed = V2_FIXED_BYTES + if is_v4 { 12 } else { 36 };
            let with = |before: usize, value: &[u8]| before + tlv::HEADER_BYTES + value.len();
            let named = Some(with(fixed, &id)).filter(|bytes| *bytes <= WRITTEN_BYTES_MAX);
            let fits = |host: &&Vec<u8>| with(named.unwrap_or(fixed), host) <= WRITTEN_BYTES_MAX;
            let wanted = host.as_ref().filter(fits);
            prop_assert_eq!(header.authority(), wanted.map(Vec::as_slice));
        }
        for cut in 0..length {
            prop_assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {}", cut);
        }
    }

    #[test]
    fn any_bytes_give_an_answer_that_more_bytes_do_not_change(
        start in 0_usize..3, bytes in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        // If this fails, input panics the process or is judged by how it was cut.
        let starts: [&[u8]; 3] = [b"", V1_START, V2_START];
        let bytes = [starts[start], &bytes].concat();
        let whole = parse(&bytes);
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Ok(None) => {}
                early => prop_assert_eq!(&early, &whole, "cut at {}", cut),
            }
        }
        if let Ok(Some(header)) = whole {
            prop_assert!(header.length <= bytes.len());
        }
    }

    #[test]
    fn a_changed_byte_never_panics(
        (ends, id, host) in any_statement(), position: prop::sample::Index, byte: u8
    ) {
        // If this fails, a damaged header ends the process.
        let tlvs = host.as_deref().map(|host| written(tlv::AUTHORITY, host)).unwrap_or_default();
        let statement = Statement { tlvs: &tlvs, ..Statement::new(ends, &id) };
        let mut bytes = encode(ProxyVersion::V2, &statement);
        *position.get_mut(&mut bytes) = byte;
        if let Ok(Some(header)) = parse(&bytes) {
            prop_assert!(header.length <= bytes.len());
        }
    }
}
