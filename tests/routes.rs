//! Routes and hashes by what clients say first: the right pool, and every byte as it was sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use support::{Backend, Proxy, connect, read_all, read_line};

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A hello in records of at most `most` bytes. `padding`: of an unknown extension.
fn hello(name: &str, protocol: &str, padding: usize, most: usize) -> Vec<u8> {
    let extension =
        |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &vector16(content)].concat();
    let protocol = [&[u8::try_from(protocol.len()).unwrap()], protocol.as_bytes()].concat();
    let mut extensions = extension(0x0a0a, &vec![1; padding]);
    let entry = [&[0][..], &vector16(name.as_bytes())].concat();
    extensions.extend(extension(0, &vector16(&entry)));
    extensions.extend(extension(16, &vector16(&protocol)));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(vector16(&[0x13, 1]));
    body.extend([1, 0]);
    body.extend(vector16(&extensions));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    message.chunks(most).flat_map(|part| [&[22, 3, 1][..], &vector16(part)].concat()).collect()
}

/// Three pools of one server each, which names itself and echoes; more lines for the listener.
fn start(listener: &str) -> (Proxy, [Backend; 3]) {
    let backends = ["plain", "web", "mail"].map(Backend::named);
    let pools: String = ["plain", "web", "mail"]
        .iter()
        .zip(&backends)
        .map(|(name, backend)| format!("[pool.{name}]\nbackends = [\"{}\"]\n", backend.address()))
        .collect();
    let proxy = Proxy::start(&format!(
        "[global]\nworkers = 1\n[listener.front]\nbind = [\"127.0.0.1:0\"]\npool = \"plain\"\n\
         {listener}\n{pools}"
    ));
    (proxy, backends)
}

const ROUTES: &str = "
[[listener.front.route]]
sni = [\"*.Example.com\"]
pool = \"web\"
[[listener.front.route]]
alpn = [\"imap\", \"smtp\"]
pool = \"mail\"
";

/// What one client says, and where that leads: the server's name, then the echo.
#[track_caller]
fn lead(address: SocketAddr, bytes: &[u8]) -> String {
    let mut client = connect(address);
    client.write_all(bytes).unwrap();
    arrived(&mut client, bytes)
}

#[track_caller]
fn arrived(client: &mut TcpStream, bytes: &[u8]) -> String {
    let name = read_line(client).unwrap();
    // It may have been done before.
    let _ended = client.shutdown(Shutdown::Write);
    assert!(read_all(client).unwrap() == bytes, "the bytes are not those that were sent");
    name
}

fn is_cut_off(client: &mut TcpStream) -> bool {
    match client.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

// If this fails, clients of one name reach the servers of another, or none.
#[test]
fn names_and_protocols_lead_to_their_pools() {
    let (proxy, _backends) = start(ROUTES);
    let cases = [
        (hello("www.EXAMPLE.com", "h2", 0, 16_384), "web"),
        (hello("a.b.example.com", "imap", 0, 16_384), "web"),
        (hello("example.com", "h2", 0, 16_384), "plain"),
        (hello("example.com", "smtp", 0, 16_384), "mail"),
        (hello("www.example.com", "h2", 1_700, 16_384), "web"),
        (hello("www.example.com", "h2", 15_500, 16_384), "web"),
        (hello("www.example.com", "h2", 3_000, 100), "web"),
        (b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n".to_vec(), "plain"),
        (b"\0".to_vec(), "plain"),
    ];
    for (index, (bytes, pool)) in cases.iter().enumerate() {
        assert_eq!(lead(proxy.address(), bytes), *pool, "case {index}");
        let line = &proxy.wait_for_session_lines(index + 1)[index];
        assert_eq!(line["pool"], *pool);
        assert_eq!(line["bytes_to_backend"], bytes.len());
    }
}

// If this fails, a hello that the network cuts somewhere is routed by a part of it, or changed.
#[test]
fn a_hello_may_be_cut_at_every_byte() {
    let (proxy, backends) = start(ROUTES);
    let bytes = hello("www.example.com", "h2", 0, 40);
    for cut in 1..bytes.len() {
        let mut client = connect(proxy.address());
        client.write_all(&bytes[..cut]).unwrap();
        // The rest comes to a connection that is waited for.
        proxy.wait_for_sessions(1);
        client.write_all(&bytes[cut..]).unwrap();
        assert_eq!(arrived(&mut client, &bytes), "web", "cut at {cut}");
        proxy.wait_for_sessions(0);
    }
    assert_eq!(backends[0].accepted(), 0, "no client was routed by a part");
    let mut client = connect(proxy.address());
    for byte in &bytes {
        client.write_all(&[*byte]).unwrap();
    }
    assert_eq!(arrived(&mut client, &bytes), "web", "byte by byte");
}

// If this fails, silent clients hold their places, or a client is routed by half a name.
#[test]
fn who_does_not_say_enough_is_refused_or_goes_to_the_default() {
    let part = &hello("www.example.com", "h2", 0, 16_384)[..50];
    let long = hello("www.example.com", "h2", 2_000, 16_384);
    for (on_timeout, is_served) in [("close", false), ("default", true)] {
        let peek = format!(
            "peek = {{ timeout = \"100ms\", max_bytes = \"1KiB\", on_timeout = \"{on_timeout}\" }}"
        );
        let (proxy, _backends) = start(&format!("{peek}\n{ROUTES}"));
        for (bytes, has_ended) in [(part, false), (&b""[..], false), (&long, false), (part, true)] {
            let mut client = connect(proxy.address());
            // It may be refused before all is sent.
            let sent = client.write_all(bytes);
            if has_ended {
                client.shutdown(Shutdown::Write).unwrap();
            }
            if is_served {
                sent.unwrap();
                assert_eq!(arrived(&mut client, bytes), "plain");
            } else {
                assert!(is_cut_off(&mut client), "{} bytes", bytes.len());
            }
        }
        let refused = if is_served { 0.0 } else { 4.0 };
        let reason = [("reason", "peek")];
        proxy.wait_for_metric("evenkeel_listener_refused_total", &reason, refused);
        proxy.wait_for_sessions(0);
        if !is_served {
            let line = &proxy.wait_for_session_lines(4)[0];
            assert_eq!(line["reason"], "client did not say where it wants to go");
            assert_eq!((&line["term"], &line["pool"]), (&"cR".into(), &serde_json::Value::Null));
        }
    }
}

// If this fails, clients that a route knows by their address wait for bytes that are not needed.
#[test]
fn a_route_by_address_waits_for_no_byte() {
    let by_client = "
[[listener.front.route]]
client = [\"10.0.0.0/8\"]
sni = [\"x.example\"]
pool = \"mail\"
[[listener.front.route]]
client = [\"127.0.0.0/8\"]
pool = \"web\"
";
    let (proxy, _backends) = start(&format!("peek = {{ timeout = \"1h\" }}\n{by_client}"));
    assert_eq!(read_line(&mut connect(proxy.address())).unwrap(), "web");
    assert_eq!(lead(proxy.address(), b"some bytes"), "web");
}

// If this fails, routes judge the proxy in front, or lose the bytes behind its header.
#[test]
fn the_claimed_client_is_routed() {
    let routes = "
accept_proxy = { from = [\"127.0.0.1\"] }
[[listener.front.route]]
client = [\"198.51.100.0/24\"]
sni = [\"*.example.com\"]
pool = \"web\"
";
    let (proxy, _backends) = start(routes);
    let hello = hello("www.example.com", "h2", 0, 16_384);
    for (client, pool) in [("198.51.100.7", "web"), ("203.0.113.7", "plain")] {
        let header = format!("PROXY TCP4 {client} 192.0.2.1 1000 443\r\n");
        let mut stream = connect(proxy.address());
        stream.write_all(&[header.as_bytes(), &hello].concat()).unwrap();
        assert_eq!(arrived(&mut stream, &hello), pool);
    }
}

// If this fails, a reload of routes waits for a restart.
#[test]
fn a_reload_counts_for_new_connections() {
    let (proxy, _backends) = start(ROUTES);
    let bytes = hello("www.example.com", "h2", 0, 16_384);
    assert_eq!(lead(proxy.address(), &bytes), "web");
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    proxy.reload_with(&text.replace("*.Example.com", "*.example.net"));
    assert_eq!(lead(proxy.address(), &bytes), "plain");
}

// If this fails, clients of one port that do not speak TLS reach the servers that do, or a hello
// that names nothing is taken for none.
#[test]
fn tls_and_the_rest_share_a_port() {
    let routes = "
[[listener.front.route]]
sni = [\"www.example.com\"]
pool = \"mail\"
[[listener.front.route]]
tls = true
pool = \"web\"
";
    let by_tls = |tls| format!("[[listener.front.route]]\ntls = {tls}\npool = \"web\"\n");
    let unnamed = hello(".", "h2", 0, 16_384);
    let named = hello("www.example.com", "h2", 0, 16_384);
    let plain = b"EHLO example.com\r\n".to_vec();
    let cases = [
        (routes.to_owned(), ["web", "mail", "plain"]),
        (by_tls(true), ["web", "web", "plain"]),
        (by_tls(false), ["plain", "plain", "web"]),
    ];
    for (routes, pools) in cases {
        let (proxy, _backends) = start(&routes);
        for (bytes, pool) in [&unnamed, &named, &plain].into_iter().zip(pools) {
            assert_eq!(lead(proxy.address(), bytes), pool, "{routes}");
        }
    }
}

/// Six servers in one pool, chosen by `hash_key`.
fn hashing(hash_key: &str) -> (Proxy, Vec<Backend>) {
    let names = ["one", "two", "three", "four", "five", "six"];
    let backends: Vec<Backend> = names.iter().map(|name| Backend::named(name)).collect();
    let list: Vec<String> =
        backends.iter().map(|backend| format!("\"{}\"", backend.address())).collect();
    let proxy = Proxy::start(&format!(
        "[global]\nworkers = 1\n[listener.front]\nbind = [\"127.0.0.1:0\"]\npool = \"back\"\n\
         [pool.back]\nhash_key = \"{hash_key}\"\nbackends = [{}]\n",
        list.join(", ")
    ));
    (proxy, backends)
}

// If this fails, a user changes the server from one connection to the next.
#[test]
fn what_is_said_decides_which_backend_serves() {
    type Say = fn(usize) -> Vec<u8>;
    let cases: [(&str, Say, Say); 5] = [
        (
            "http-header X-User",
            |user| format!("GET / HTTP/1.1\r\nHost: a\r\nx-user: u{user}\r\n\r\n").into(),
            |noise| format!("GET /{noise} HTTP/1.1\r\nHost: a\r\n\r\n").into(),
        ),
        (
            "http-cookie session",
            |user| format!("GET / HTTP/1.1\r\nCookie: a=b; session=s{user}\r\n\r\n").into(),
            |noise| format!("GET / HTTP/1.1\r\nCookie: a={noise}\r\n\r\n").into(),
        ),
        (
            "sni",
            |user| hello(&format!("u{user}.example.com"), "h2", 0, 16_384),
            |noise| format!("no TLS {noise}").into(),
        ),
        (
            "mqtt-client-id",
            |user| {
                let id = format!("device-{user:02}");
                let connect = b"\x10\x15\x00\x04MQTT\x04\x02\x00\x3c";
                [&connect[..], &vector16(id.as_bytes())].concat()
            },
            // The server makes the identifier up.
            |_| b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00".to_vec(),
        ),
        (
            "rdp-cookie",
            |user| {
                let line = format!("Cookie: mstshash=user{user:02}\r\n");
                let request = b"\x03\x00\x00\x24\x1f\xe0\x00\x00\x00\x00\x00";
                [&request[..], line.as_bytes()].concat()
            },
            |_| {
                let request = b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00";
                [&request[..], b"\x01\x00\x08\x00\x03\x00\x00\x00"].concat()
            },
        ),
    ];
    for (hash_key, by_user, without) in cases {
        let (proxy, _backends) = hashing(hash_key);
        let servers = |say: Say| -> Vec<String> {
            (0..24).map(|user| lead(proxy.address(), &say(user))).collect()
        };
        let first = servers(by_user);
        assert_eq!(first, servers(by_user), "{hash_key}");
        assert!(first.iter().collect::<BTreeSet<_>>().len() > 3, "{hash_key}: {first:?}");
        let others = servers(without);
        assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), 1, "all from one address");
    }
}

// If this fails, a head that comes in pieces is hashed by a part of it, or changed on its way.
#[test]
fn a_request_may_be_cut_at_every_byte() {
    let (proxy, _backends) = hashing("http-cookie session");
    let bytes = b"POST /a HTTP/1.1\r\nHost: a\r\nCookie: x=1; session=abcdefg\r\n\r\nbody";
    let wanted = lead(proxy.address(), bytes);
    proxy.wait_for_sessions(0);
    for cut in 1..bytes.len() {
        let mut client = connect(proxy.address());
        client.write_all(&bytes[..cut]).unwrap();
        proxy.wait_for_sessions(1);
        client.write_all(&bytes[cut..]).unwrap();
        assert_eq!(arrived(&mut client, bytes), wanted, "cut at {cut}");
        proxy.wait_for_sessions(0);
    }
}

// If this fails, a pool that hashes nothing waits for bytes that may never come.
#[test]
fn other_balances_wait_for_nothing() {
    let backend = Backend::named("only");
    let proxy = support::Setup::of(&[&backend])
        .pool("balance = \"round-robin\"\nhash_key = \"sni\"")
        .start();
    assert_eq!(read_line(&mut connect(proxy.address())).unwrap(), "only");
}

// If this fails, the log does not say why a client went where it went.
#[test]
fn a_line_says_the_route_and_the_name() {
    let (proxy, _backends) = start(ROUTES);
    lead(proxy.address(), &hello("www.example.com", "h2", 0, 16_384));
    lead(proxy.address(), &hello("other.example.org", "imap", 0, 16_384));
    lead(proxy.address(), b"no hello at all\n");
    let lines = proxy.wait_for_session_lines(3);
    let said = |line: &serde_json::Value| (line["route"].as_u64(), line["server_name"].clone());
    assert_eq!(said(&lines[0]), (Some(1), "www.example.com".into()));
    assert_eq!(said(&lines[1]), (Some(2), "other.example.org".into()));
    assert_eq!(said(&lines[2]), (None, serde_json::Value::Null));
    assert!(lines.iter().all(|line| line["read_ms"].is_u64()), "{lines:?}");
}
