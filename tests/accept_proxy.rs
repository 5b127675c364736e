//! PROXY headers from trusted peers: the address they name is the client's, for everything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use evenkeel::policy::first_bytes::proxy_header::{
    Ends, ProxyVersion, Statement, encode, encode_own,
};
use support::{
    Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually, read_all, read_line,
    try_connect,
};

const TRUSTING: &str = "accept_proxy = { from = [\"127.0.0.1\"] }";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn header(version: ProxyVersion, source: &str) -> Vec<u8> {
    let destination = if source.starts_with('[') { "[2001:db8::9]:443" } else { "192.0.2.9:443" };
    let ends = Some(Ends { source: address(source), destination: address(destination) });
    let tlvs = b"\x02\x00\x0fwww.example.com";
    encode(version, &Statement { tlvs, ..Statement::new(ends, b"x") })
}

/// A client that says `header` and then `word`; what the echo gives back.
#[track_caller]
fn say(proxy: &Proxy, header: &[u8], word: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut client = connect(proxy.address());
    client.write_all(header)?;
    client.write_all(word)?;
    client.shutdown(Shutdown::Write)?;
    read_all(&mut client)
}

#[track_caller]
fn line(proxy: &Proxy, index: usize) -> serde_json::Value {
    proxy.wait_for_session_lines(index + 1)[index].clone()
}

fn refused(proxy: &Proxy, reason: &str, times: f64) {
    proxy.wait_for_metric("evenkeel_listener_refused_total", &[("reason", reason)], times);
}

/// Whether a client that may be refused as early as its connect is.
fn is_refused(proxy: &Proxy, bytes: &[u8]) -> bool {
    let Ok(mut client) = try_connect(proxy.address()) else { return true };
    client.write_all(bytes).is_err() || is_cut_off(&mut client)
}

fn is_cut_off(client: &mut TcpStream) -> bool {
    match client.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

// If this fails, the log and the backend's hash see the proxy in front instead of the client.
#[test]
fn the_claimed_address_is_the_client() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).start();
    let cases = [
        (header(ProxyVersion::V1, "198.51.100.7:5000"), "198.51.100.7:5000"),
        (header(ProxyVersion::V2, "198.51.100.8:5001"), "198.51.100.8:5001"),
        (header(ProxyVersion::V1, "[2001:db8::1]:1"), "[2001:db8::1]:1"),
        (header(ProxyVersion::V2, "[2001:db8::2]:2"), "[2001:db8::2]:2"),
    ];
    for (index, (header, client)) in cases.iter().enumerate() {
        assert_eq!(say(&proxy, header, b"hello").unwrap(), b"hello");
        let line = line(&proxy, index);
        assert_eq!(line["client"], *client);
        assert_eq!(line["bytes_to_backend"], 5, "the header is not counted");
        assert_eq!(line["reason"], "closed by both sides");
    }
    assert_eq!(backend.received(), 5 * cases.len());
}

// If this fails, a health check of the balancer in front is taken for a client, or refused.
#[test]
fn local_and_unknown_keep_the_address_of_the_peer() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).start();
    let headers = [encode_own(ProxyVersion::V1, None), encode_own(ProxyVersion::V2, None)];
    for (index, header) in headers.iter().enumerate() {
        assert_eq!(say(&proxy, header, b"x").unwrap(), b"x");
        let client = line(&proxy, index)["client"].as_str().unwrap().to_owned();
        assert!(client.starts_with("127.0.0.1:"), "{client}");
    }
}

// If this fails, a header that the network cuts somewhere is misread, or its rest is lost.
#[test]
fn a_header_may_be_cut_at_every_byte() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).global("log = { sessions = 'none' }");
    let proxy = proxy.start();
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let bytes = [&header(version, "198.51.100.7:5000")[..], b"body"].concat();
        for cut in 1..bytes.len() {
            let mut client = connect(proxy.address());
            client.write_all(&bytes[..cut]).unwrap();
            // The rest comes to a connection that is waited for.
            proxy.wait_for_sessions(1);
            client.write_all(&bytes[cut..]).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut client).unwrap(), b"body", "{version:?} cut at {cut}");
            proxy.wait_for_sessions(0);
        }
    }
}

// If this fails, a header that comes byte by byte is waited for in vain.
#[test]
fn a_header_may_come_byte_by_byte() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).start();
    let mut client = connect(proxy.address());
    for byte in [&header(ProxyVersion::V2, "198.51.100.7:5000")[..], b"body"].concat() {
        client.write_all(&[byte]).unwrap();
    }
    let mut echoed = [0; 4];
    client.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"body");
}

// If this fails, a peer without a header passes for the proxy in front, or nonsense does.
#[test]
fn no_header_is_a_refusal() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).start();
    let nonsense: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.1.1.1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11",
        &[0xff; 300],
    ];
    for bytes in nonsense {
        let mut client = connect(proxy.address());
        // It may be refused before all is sent.
        let _sent = client.write_all(bytes);
        assert!(is_cut_off(&mut client), "{bytes:?}");
    }
    let mut ended = connect(proxy.address());
    ended.write_all(b"PROXY TC").unwrap();
    ended.shutdown(Shutdown::Write).unwrap();
    assert!(is_cut_off(&mut ended));
    refused(&proxy, "proxy_header", 5.0);
    let words = "no PROXY header, or none that is valid";
    let details = [
        " (it begins otherwise)",
        " (a malformed header of version 1)",
        " (an unknown version, command or family)",
        " (it begins otherwise)",
    ];
    for (number, detail) in details.into_iter().enumerate() {
        assert_eq!(line(&proxy, number)["reason"], format!("{words}{detail}"));
    }
    let line = line(&proxy, 4);
    assert_eq!(line["reason"], words);
    assert_eq!((&line["term"], &line["pool"]), (&"PR".into(), &serde_json::Value::Null));
    assert_eq!(backend.accepted(), 0);
    proxy.wait_for_sessions(0);
}

// If this fails, a peer that says nothing holds its place for ever.
#[test]
fn a_header_has_to_come_in_time() {
    let backend = Backend::echo();
    let rule = "accept_proxy = { from = [\"127.0.0.0/8\"], timeout = \"50ms\" }";
    let proxy = Setup::of(&[&backend]).listener(rule).start();
    let mut client = connect(proxy.address());
    client.write_all(b"PROXY ").unwrap();
    assert!(is_cut_off(&mut client));
    refused(&proxy, "proxy_header", 1.0);
    proxy.wait_for_sessions(0);
}

// If this fails, any peer may claim an address, or clients beside the proxy are locked out.
#[test]
fn others_are_refused_or_served_as_they_are() {
    let backend = Backend::echo();
    for (others, direct) in [("refuse", false), ("direct", true)] {
        let rule = format!("accept_proxy = {{ from = [\"127.0.0.2\"], others = \"{others}\" }}");
        let proxy = Setup::of(&[&backend]).listener(&rule).start();
        let forged = header(ProxyVersion::V1, "198.51.100.7:5000");
        if direct {
            assert_eq!(say(&proxy, &forged, b"").unwrap(), forged, "bytes like any others");
            let client = line(&proxy, 0)["client"].as_str().unwrap().to_owned();
            assert!(client.starts_with("127.0.0.1:"), "{client}");
        } else {
            assert!(is_refused(&proxy, &forged));
            refused(&proxy, "proxy_header", 1.0);
        }
        let proxied = (IpAddr::from([127, 0, 0, 2]), 0);
        let mut trusted = connect_from(proxied, proxy.address()).unwrap();
        trusted.write_all(&[&forged[..], b"x"].concat()).unwrap();
        trusted.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut trusted).unwrap(), b"x");
    }
}

// If this fails, access lists and limits judge the proxy in front: all clients or none.
#[test]
fn access_and_limits_judge_the_claimed_client() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend])
        .listener(TRUSTING)
        .listener("deny = [\"203.0.113.0/24\"]")
        .limit("rate = \"1/h\"\nburst = 2")
        .start();
    let from = |source: &str| say(&proxy, &header(ProxyVersion::V2, source), b"x");
    let is_served = |source: &str| from(source).is_ok_and(|echoed| echoed == b"x");
    assert!(!is_served("203.0.113.5:1"));
    refused(&proxy, "access", 1.0);
    let seven: Vec<bool> = (0..4).map(|_| is_served("198.51.100.7:1")).collect();
    assert_eq!(seven, [true, true, false, false]);
    refused(&proxy, "limit", 2.0);
    assert!(is_served("198.51.100.8:1"), "another client has its own budget");
    proxy.wait_for_sessions(0);
}

// If this fails, sessions of refused clients are never given back, or their count is wrong.
#[test]
fn max_concurrent_counts_claimed_clients_and_forgets_them() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).limit("max_concurrent = 1").start();
    let open = |source: &str| {
        let mut client = connect(proxy.address());
        client.write_all(&[&header(ProxyVersion::V1, source)[..], b"x"].concat()).unwrap();
        let echoed = client.read(&mut [0]).is_ok_and(|count| count == 1);
        (client, echoed)
    };
    let (first, is_first_served) = open("198.51.100.7:1");
    assert!(is_first_served && !open("198.51.100.7:2").1 && open("198.51.100.8:1").1);
    refused(&proxy, "concurrent", 1.0);
    drop(first);
    eventually("its place is free again", PATIENCE, || open("198.51.100.7:3").1.then_some(()));
}

// If this fails, a flood of connections that say nothing takes more than `max_sessions`.
#[test]
fn who_has_not_spoken_yet_counts_against_max_sessions() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener(TRUSTING).listener("max_sessions = 2").start();
    let waiting = [connect(proxy.address()), connect(proxy.address())];
    proxy.wait_for_sessions(2);
    assert!(is_refused(&proxy, b""));
    refused(&proxy, "max_sessions", 1.0);
    drop(waiting);
    proxy.wait_for_sessions(0);
}

// If this fails, maglev spreads by the proxy in front: every client to one backend.
#[test]
fn the_claimed_client_is_hashed() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let [one, two, three] = &backends;
    let proxy = Setup::of(&[one, two, three]).listener(TRUSTING).start();
    let serves = |host: u8| {
        let mut client = connect(proxy.address());
        client.write_all(&header(ProxyVersion::V2, &format!("198.51.100.{host}:9"))).unwrap();
        read_line(&mut client).unwrap()
    };
    let first: Vec<String> = (0..24).map(serves).collect();
    assert_eq!(first, (0..24).map(serves).collect::<Vec<_>>(), "the same client, the same backend");
    let used = first.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(used.len(), 3, "{first:?}");
}

// If this fails, the last of two balancers tells backends of the one before it.
#[test]
fn two_in_a_row_pass_the_client_on() {
    let backend = Backend::echo();
    let inner = Setup::of(&[&backend]).listener(TRUSTING).start();
    let outer = Proxy::start(&format!(
        "[listener.front]\nbind = [\"127.0.0.1:0\"]\npool = \"inner\"\n{TRUSTING}\n\
         [pool.inner]\nsend_proxy = \"v2\"\nbackends = [\"{}\"]\n",
        inner.address()
    ));
    let echoed = say(&outer, &header(ProxyVersion::V1, "198.51.100.7:5000"), b"through both");
    assert_eq!(echoed.unwrap(), b"through both");
    assert_eq!(line(&inner, 0)["client"], "198.51.100.7:5000");
}

// If this fails, all clients behind a translator share the limit and the lists of one /64.
#[test]
fn translated_clients_are_their_ipv4_address() {
    let backend = Backend::echo();
    let setup = |nat64: &str| {
        Setup::of(&[&backend])
            .global(nat64)
            .listener(TRUSTING)
            .listener("deny = [\"203.0.113.0/24\"]")
            .limit("rate = \"2/h\"\nkey = { v6 = 64 }")
    };
    let proxy = setup("").start();
    let served = |source: &str| {
        let answer = say(&proxy, &header(ProxyVersion::V2, source), b"x");
        answer.is_ok_and(|echoed| echoed == b"x")
    };
    assert!(!served("[64:ff9b::203.0.113.5]:1"));
    refused(&proxy, "access", 1.0);
    assert!(served("[64:ff9b::198.51.100.7]:1") && served("198.51.100.7:2"));
    assert!(!served("[64:ff9b::198.51.100.7]:3") && !served("198.51.100.7:4"));
    assert!(served("[64:ff9b::198.51.100.8]:1"), "another client of the same /64");
    assert_eq!(line(&proxy, 1)["client"], "[64:ff9b::c633:6407]:1", "the log has what came");
    // Another prefix: now the well-known one is a network like any other.
    proxy.reload_with(&setup("nat64 = [\"2001:db8:64::/48\"]").text());
    assert!(served("[64:ff9b::203.0.113.5]:1") && served("[64:ff9b::198.51.100.7]:1"));
    assert!(!served("[64:ff9b::198.51.100.9]:1"), "the third of one /64");
    assert!(!served("198.51.100.7:2"), "what was used stays used");
    assert!(!served("[2001:db8:64:c633:64:700::]:1"), "the same client");
}

// If this fails, a client behind a translator that waits for a place is routed anew, as a stranger,
// by each reload.
#[test]
fn a_translated_client_keeps_its_route_over_a_reload() {
    let (known, unknown) = (Backend::named("known"), Backend::named("unknown"));
    let text = |patience: &str| {
        format!(
            "[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"unknown\"\n{TRUSTING}\n\
             [[listener.l.route]]\nclient = [\"198.51.100.0/24\"]\npool = \"known\"\n\
             [pool.known]\nqueue = {{ max = 1, timeout = \"{patience}\" }}\n\
             backends = [{{ address = \"{}\", max_sessions = 1 }}]\n\
             [pool.unknown]\nbackends = [\"{}\"]\n",
            known.address(),
            unknown.address()
        )
    };
    let proxy = Proxy::start(&text("1h"));
    let from = |source: &str| {
        let mut client = connect(proxy.address());
        client.write_all(&header(ProxyVersion::V2, source)).unwrap();
        client
    };
    let mut holder = from("198.51.100.1:1");
    assert_eq!(read_line(&mut holder).unwrap(), "known");
    let mut translated = from("[64:ff9b::198.51.100.7]:1");
    proxy.wait_for_metric("evenkeel_pool_waiting", &[("pool", "known")], 1.0);
    proxy.reload_with(&text("2h"));
    drop(holder);
    assert_eq!(read_line(&mut translated).unwrap(), "known");
}
