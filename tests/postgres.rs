//! PostgreSQL clients that ask for TLS, routed by the name in the hello that comes behind the
//! answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use support::{Proxy, connect, read_all, read_line};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
/// How a session without TLS begins.
const STARTUP: &[u8] = b"\0\0\0\x17\0\x03\0\0user\0anna\0\0\0\0\0";

fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A hello that names a server.
fn hello(name: &str) -> Vec<u8> {
    let entry = [&[0][..], &vector16(name.as_bytes())].concat();
    let extension = [&[0, 0][..], &vector16(&vector16(&entry))].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(vector16(&extension));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[22, 3, 1][..], &vector16(&[&[1], &length[1..], &body].concat())].concat()
}

/// A server that answers a request for TLS in this way; it then names itself and echoes.
fn server(name: &'static str, answer: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that goes away ends its own connection.
            let _served = stream.and_then(|stream| serve(stream, name, answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, name: &str, answer: u8) -> std::io::Result<()> {
    let mut echoed = vec![0; SSL_REQUEST.len()];
    stream.read_exact(&mut echoed)?;
    if echoed == SSL_REQUEST {
        stream.write_all(&[answer])?;
        echoed.clear();
        if answer != b'S' {
            return Ok(());
        }
    }
    stream.write_all(format!("{name}\n").as_bytes())?;
    stream.read_to_end(&mut echoed)?;
    stream.write_all(&echoed)
}

/// A listener whose own pool is `plain`, and a route of `*.example.com` to `named`, with more keys.
fn start(peek: &str, plain: &[SocketAddr], named: &[SocketAddr], pool: &str) -> Proxy {
    let list = |servers: &[SocketAddr]| -> String {
        servers.iter().map(|server| format!("\"{server}\", ")).collect()
    };
    Proxy::start(&format!(
        "[global]\nworkers = 1\n[listener.pg]\nbind = [\"127.0.0.1:0\"]\npool = \"plain\"\n\
         peek = {{ {peek} }}\n[[listener.pg.route]]\nsni = [\"*.example.com\"]\npool = \"named\"\n\
         [pool.plain]\nbackends = [{}]\n{pool}\n[pool.named]\nbackends = [{}]\n{pool}\n",
        list(plain),
        list(named)
    ))
}

/// The server's name and the echo.
#[track_caller]
fn arrived(client: &mut TcpStream, bytes: &[u8]) -> String {
    let name = read_line(client).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(client).unwrap() == bytes, "the bytes are not those that were sent");
    name
}

#[track_caller]
fn ask(client: &mut TcpStream, request: &[u8]) -> u8 {
    client.write_all(request).unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    answer[0]
}

/// If it fails, clients of one database reach the servers of another, or none.
#[test]
fn the_name_behind_the_answer_leads() {
    let (plain, named) = (server("plain", b'S'), server("named", b'S'));
    let proxy = start("postgres = true", &[plain], &[named], "");
    let cases = [("db.example.com", "named"), ("db.example.org", "plain")];
    for (index, (name, pool)) in cases.into_iter().enumerate() {
        let mut client = connect(proxy.address());
        // GSSAPI first, as libpq does with a ticket.
        assert_eq!(ask(&mut client, GSS_REQUEST), b'N');
        assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
        client.write_all(&hello(name)).unwrap();
        assert_eq!(arrived(&mut client, &hello(name)), pool);
        let line = &proxy.wait_for_session_lines(index + 1)[index];
        assert_eq!(line["pool"], pool);
        assert_eq!(line["bytes_to_backend"], hello(name).len(), "the request is not the client's");
    }
}

/// If it fails, a request that the network cuts is not known, or half of it goes to the server.
#[test]
fn a_request_may_be_cut_at_every_byte() {
    let (plain, named) = (server("plain", b'S'), server("named", b'S'));
    let proxy = start("postgres = true", &[plain], &[named], "");
    let hello = hello("db.example.com");
    for cut in 1..SSL_REQUEST.len() {
        let mut client = connect(proxy.address());
        client.write_all(&SSL_REQUEST[..cut]).unwrap();
        proxy.wait_for_sessions(1);
        assert_eq!(ask(&mut client, &SSL_REQUEST[cut..]), b'S', "cut at {cut}");
        client.write_all(&hello).unwrap();
        assert_eq!(arrived(&mut client, &hello), "named", "cut at {cut}");
        proxy.wait_for_sessions(0);
    }
}

/// If it fails, clients without TLS wait for an answer, or lose their first bytes; or a listener
/// answers that was not told to.
#[test]
fn what_is_not_to_be_answered_goes_on_unaltered() {
    let (plain, named) = (server("plain", b'S'), server("named", b'S'));
    let proxy = start("postgres = true", &[plain], &[named], "");
    let mut client = connect(proxy.address());
    client.write_all(STARTUP).unwrap();
    assert_eq!(arrived(&mut client, STARTUP), "plain");
    let proxy = start("", &[plain], &[named], "");
    let mut client = connect(proxy.address());
    // The server answers, by the listener's own pool.
    assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
    client.write_all(&hello("db.example.com")).unwrap();
    assert_eq!(arrived(&mut client, &hello("db.example.com")), "plain");
}

/// If it fails, a server without TLS gets a hello that it cannot read, or costs its clients the
/// session although another has TLS.
#[test]
fn a_server_without_tls_is_passed_over() {
    let (willing, unwilling) = (server("willing", b'S'), server("unwilling", b'N'));
    let balance = "balance = \"round-robin\"";
    let proxy = start("postgres = true", &[willing], &[unwilling, willing], balance);
    for _ in 0..2 {
        let mut client = connect(proxy.address());
        assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
        client.write_all(&hello("db.example.com")).unwrap();
        assert_eq!(arrived(&mut client, &hello("db.example.com")), "willing");
    }
    let labels = [("pool", "named"), ("reason", "no_tls")];
    assert!(proxy.metric("evenkeel_backend_connect_failures_total", &labels) > 0.5);
}

/// If it fails, a server takes the request for TLS for its PROXY header.
#[test]
fn a_proxy_header_goes_before_the_request() {
    let named = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = server("plain", b'S');
    let servers = [named.local_addr().unwrap()];
    let proxy = start("postgres = true", &[plain], &servers, "send_proxy = \"v1\"");
    let mut client = connect(proxy.address());
    assert_eq!(ask(&mut client, SSL_REQUEST), b'S');
    client.write_all(&hello("db.example.com")).unwrap();
    let (mut stream, _) = named.accept().unwrap();
    let own = client.local_addr().unwrap().port();
    let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {}\r\n", proxy.address().port());
    let mut first = vec![0; header.len() + SSL_REQUEST.len()];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(first, [header.as_bytes(), SSL_REQUEST].concat());
    stream.write_all(b"S").unwrap();
    let mut behind = vec![0; hello("db.example.com").len()];
    stream.read_exact(&mut behind).unwrap();
    assert_eq!(behind, hello("db.example.com"));
}
