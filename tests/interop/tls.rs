//! TLS passes through evenkeel untouched: clients see the server's own certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::in_front_of;
use crate::program::{Nginx, program, succeed, text_of};
use crate::support::Proxy;

const NAME: &str = "evenkeel.test";

/// A certificate that is its own authority, and the lines that make nginx use it.
fn certified(directory: &Path) -> String {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={NAME}"), "-addext"]);
    openssl.arg(format!("subjectAltName=DNS:{NAME}")).arg("-keyout").arg(&key);
    text_of(openssl.arg("-out").arg(&certificate));
    format!(
        " ssl;\n    ssl_certificate {};\n    ssl_certificate_key {}",
        certificate.display(),
        key.display()
    )
}

fn start() -> (Nginx, Proxy) {
    let server = Nginx::start_with("secret", certified);
    let proxy = Proxy::start(&in_front_of(&[server.address()], ""));
    (server, proxy)
}

fn curl(server: &Nginx, address: SocketAddr, path: &str) -> Command {
    let mut command = Command::new(program("curl"));
    command.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"]);
    command.arg("--cacert").arg(server.directory().join("certificate.pem"));
    command.arg("--resolve").arg(format!("{NAME}:{}:{}", address.port(), address.ip()));
    command.arg(format!("https://{NAME}:{}{path}", address.port()));
    command
}

/// If it fails, a TLS client does not reach the server or does not trust it any more.
#[test]
fn openssl_verifies_the_server_behind() {
    let (server, proxy) = start();
    let mut client = Command::new(program("openssl"));
    client.args(["s_client", "-connect", &proxy.address().to_string(), "-servername", NAME]);
    client.arg("-CAfile").arg(server.directory().join("certificate.pem"));
    client.args(["-verify_return_error", "-verify_hostname", NAME, "-ign_eof"]);
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    let (said, _) = succeed(&mut client, request.as_bytes());
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("secret"), "{said}");
}

/// If it fails, encrypted bytes are changed on their way: every change breaks a TLS record.
#[test]
fn curl_downloads_a_large_file_over_tls() {
    let (server, proxy) = start();
    assert_eq!(text_of(&mut curl(&server, proxy.address(), "/")), "secret\n");
    let content: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(server.directory().join("files/large"), &content).unwrap();
    let (received, _) = succeed(&mut curl(&server, proxy.address(), "/files/large"), b"");
    assert!(received == content, "{} of {} bytes", received.len(), content.len());
}
