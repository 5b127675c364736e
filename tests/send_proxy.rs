//! PROXY headers towards backends: they learn the client's address, and get its bytes unchanged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use evenkeel::policy::first_bytes::proxy_header::tlv::TlvKinds;
use evenkeel::policy::first_bytes::proxy_header::{
    Ends, Header, ProxyVersion, Statement, encode, parse,
};
use parking_lot::Mutex;
use support::{Backend, PATIENCE, Setup, connect, eventually, read_all, stream};

/// Headers that a server has got, each as its bytes.
type Headers = Arc<Mutex<Vec<Vec<u8>>>>;

/// A server that takes a header off each connection and echoes the rest.
fn expecting() -> (Backend, Headers) {
    let headers = Headers::default();
    let kept = Arc::clone(&headers);
    let backend = Backend::serving(move |mut stream, _| {
        let header = read_header(&mut stream)?;
        kept.lock().push(header);
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        stream.shutdown(Shutdown::Write)
    });
    (backend, headers)
}

/// Reads byte by byte, so that none of the client's is taken.
fn read_header(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
        match parse(&bytes) {
            Ok(None) => {}
            Ok(Some(_)) => return Ok(bytes),
            Err(error) => return Err(std::io::Error::other(error.to_string())),
        }
    }
}

#[track_caller]
fn header(headers: &Headers, index: usize) -> (Vec<u8>, Header) {
    let bytes = eventually("a header", PATIENCE, || headers.lock().get(index).cloned());
    let header = parse(&bytes).unwrap().unwrap();
    (bytes, header)
}

fn ends(client: &TcpStream) -> Option<Ends> {
    Some(Ends { source: client.local_addr().unwrap(), destination: client.peer_addr().unwrap() })
}

/// The value of a TLV of a version 2 header over IPv4.
fn tlv(header: &[u8], kind: u8) -> Option<Vec<u8>> {
    let mut rest = &header[28..];
    while let [found, high, low, tail @ ..] = rest {
        let (value, tail) = tail.split_at(usize::from(*high) << 8 | usize::from(*low));
        if *found == kind {
            return Some(value.to_owned());
        }
        rest = tail;
    }
    None
}

// If this fails, backends log and judge the wrong client, or its bytes arrive changed.
#[test]
fn backends_learn_who_the_client_is() {
    for version in ["v1", "v2"] {
        let (backend, headers) = expecting();
        let proxy = Setup::of(&[&backend]).pool(&format!("send_proxy = \"{version}\"")).start();
        for (index, length) in [0_u64, 5, 300_000].into_iter().enumerate() {
            let mut client = connect(proxy.address());
            let ends = ends(&client);
            stream::exchange(&mut client, (7, length));
            let (bytes, header) = header(&headers, index);
            assert_eq!(header.ends, ends, "{version}");
            let line = &proxy.wait_for_session_lines(index + 1)[index];
            assert_eq!(line["bytes_to_backend"], length, "the header is not the client's");
            assert_eq!(line["bytes_to_client"], length);
            match version {
                "v1" => assert!(bytes.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 ")),
                _ => {
                    let session = line["session"].to_string();
                    assert_eq!(tlv(&bytes, 5).unwrap(), session.trim_matches('"').as_bytes());
                    assert_eq!(tlv(&bytes, 2), None);
                }
            }
        }
        proxy.wait_for_metric("evenkeel_bytes_total", &[("direction", "to_backend")], 300_005.0);
    }
}

// If this fails, a server that speaks first never speaks, or the client never hears it.
#[test]
fn a_server_that_speaks_first_gets_its_header_at_once() {
    let backend = Backend::serving(|mut stream, _| {
        read_header(&mut stream)?;
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)
    });
    let proxy = Setup::of(&[&backend]).pool("send_proxy = \"v2\"").start();
    let mut client = connect(proxy.address());
    assert_eq!(read_all(&mut client).unwrap(), b"hello");
}

// If this fails, the backend that serves after a retry does not know the client.
#[test]
fn the_backend_after_a_retry_gets_a_header_too() {
    let refusing = Backend::refusing();
    let (backend, headers) = expecting();
    let proxy =
        Setup::of(&[&refusing, &backend]).pool("balance = \"first\"\nsend_proxy = \"v1\"").start();
    for index in 0..3 {
        let mut client = connect(proxy.address());
        let ends = ends(&client);
        stream::exchange(&mut client, (9, 1000));
        assert_eq!(header(&headers, index).1.ends, ends);
    }
    proxy.wait_for_metric("evenkeel_backend_connect_failures_total", &[("backend", "b1")], 3.0);
}

// If this fails, IPv6 clients are lost on the way.
#[test]
fn clients_of_ipv6_are_told_of_as_such() {
    let (backend, headers) = expecting();
    let proxy =
        Setup::of(&[&backend]).listener("bind = [\"[::1]:0\"]").pool("send_proxy = \"v2\"").start();
    let mut client = connect(proxy.address());
    let ends = ends(&client);
    stream::exchange(&mut client, (3, 10));
    let told = header(&headers, 0).1.ends;
    assert_eq!(told, ends);
    assert!(matches!(told.unwrap().source, SocketAddr::V6(_)));
}

// If this fails, a pool whose servers expect a header is down for its probes.
#[test]
fn probes_begin_with_a_header_that_names_no_client() {
    for (version, probe) in [("v1", "tcp"), ("v2", "http")] {
        let headers = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&headers);
        let backend = Backend::serving(move |mut stream, _| {
            let header = read_header(&mut stream)?;
            let own = Ends { source: stream.peer_addr()?, destination: stream.local_addr()? };
            kept.lock().push((header, own));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        });
        let proxy = Setup::of(&[&backend])
            .pool(&format!("send_proxy = \"{version}\""))
            .also(&format!("[pool.back.health]\nprobe = \"{probe}\"\ninitial = \"down\"\nrise = 1"))
            .start();
        proxy.wait_for_metric("evenkeel_backend_up", &[], 1.0);
        let (header, own) = eventually("a header", PATIENCE, || headers.lock().first().cloned());
        // LOCAL in version 2; version 1 has UNKNOWN for it, which Postfix and others refuse.
        let due = (version == "v1").then_some(own);
        assert_eq!(parse(&header).unwrap().unwrap().ends, due, "{version} {probe}");
    }
}

// If this fails, a reload leaves backends with bytes in a form they do not expect.
#[test]
fn a_reload_counts_for_new_connections() {
    let (backend, headers) = expecting();
    let setup = Setup::of(&[&backend]);
    let proxy = setup.clone().pool("send_proxy = \"v1\"").start();
    let mut client = connect(proxy.address());
    client.write_all(b"before").unwrap();
    assert!(header(&headers, 0).0.starts_with(b"PROXY "));
    proxy.reload_with(&setup.pool("send_proxy = \"v2\"").text());
    stream::exchange(&mut connect(proxy.address()), (4, 100));
    assert!(header(&headers, 1).0.starts_with(b"\r\n\r\n\0"));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"before");
}

// If this fails, backends do not learn what the proxy in front knows of a client, such as the
// endpoint of a cloud, or a trace is lost between two proxies.
#[test]
fn tlvs_of_the_client_are_passed_on() {
    let (backend, headers) = expecting();
    let start = |keys: &str| {
        Setup::of(&[&backend])
            .listener("accept_proxy = { from = [\"127.0.0.1\"] }")
            .pool(&format!("send_proxy = \"v2\"\n{keys}"))
            .start()
    };
    let tlvs = b"\x02\x00\x04host\x05\x00\x06theirs\xea\x00\x04\x01vpc\xee\x00\x02az";
    let ends = Some(Ends {
        source: "192.0.2.1:1000".parse().unwrap(),
        destination: "192.0.2.9:443".parse().unwrap(),
    });
    let incoming = encode(
        ProxyVersion::V2,
        &Statement {
            tlvs,
            pass: TlvKinds::new(&[2, 5, 0xea, 0xee]).unwrap(),
            ..Statement::new(ends, b"")
        },
    );
    let cases: [(&str, [bool; 4]); 4] = [
        ("", [true, false, false, false]),
        ("pass_tlvs = []", [false; 4]),
        ("pass_tlvs = [0xEA, 0xEE]", [false, false, true, true]),
        ("pass_tlvs = [5, 2]", [true, true, false, false]),
    ];
    for (index, (keys, wanted)) in cases.into_iter().enumerate() {
        let proxy = start(keys);
        let mut client = connect(proxy.address());
        client.write_all(&incoming).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client).unwrap(), b"", "{keys}");
        let (bytes, header) = header(&headers, index);
        assert_eq!(header.ends, ends);
        let number = proxy.wait_for_session_lines(1)[0]["session"].to_string();
        let number = number.trim_matches('"').to_owned();
        let id = if wanted[1] { b"theirs".to_vec() } else { number.into_bytes() };
        assert_eq!(tlv(&bytes, 5), Some(id), "{keys}");
        let others = [(2, &b"host"[..]), (0xea, b"\x01vpc"), (0xee, b"az")];
        for ((kind, value), is_passed) in others.into_iter().zip([wanted[0], wanted[2], wanted[3]])
        {
            let value = is_passed.then(|| value.to_vec());
            assert_eq!(tlv(&bytes, kind), value, "{keys}, type {kind:#04x}");
        }
    }
}
