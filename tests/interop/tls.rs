//! TLS passes through evenkeel untouched: clients see the server's own certificate. So do probes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::in_front_of;
use crate::program::{Nginx, Server, program, succeed, text_of};
use crate::support::{PATIENCE, Proxy, eventually};

const NAME: &str = "evenkeel.test";

/// A certificate that is its own authority, and the lines that make nginx use it.
pub(crate) fn certified(directory: &Path) -> String {
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

/// A health table whose probes check the certificate of this server for that name.
fn verified(server: &Path, name: &str) -> String {
    let ca = server.join("certificate.pem");
    format!(
        "[pool.p.health]\nprobe = \"tls\"\ninterval = \"50ms\"\nfast_interval = \"50ms\"\n\
         fall = 1\nhost = \"{name}\"\nverify = true\nca = \"{}\"",
        ca.display()
    )
}

/// A server of OpenSSL with the certificate and the key of this directory.
#[track_caller]
fn s_server(directory: &Path, more: &[&str]) -> Server {
    Server::start(|address| {
        let mut openssl = Command::new(program("openssl"));
        openssl.args(["s_server", "-quiet", "-accept", &address.to_string()]).args(more);
        openssl.arg("-cert").arg(directory.join("certificate.pem"));
        openssl.arg("-key").arg(directory.join("key.pem"));
        openssl
    })
}

/// When a certificate expires, as openssl reads it.
fn not_after(certificate: &Path) -> String {
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in"]).arg(certificate);
    let said = text_of(&mut openssl);
    said.trim().trim_start_matches("notAfter=").replace(' ', "T")
}

fn probes(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("evenkeel_backend_probes_total", &[("result", result)])
}

/// If it fails, probes do not know a good certificate of a real server, or its end, or nginx takes
/// every probe for an error.
#[test]
fn nginx_passes_tls_probes_and_logs_nothing() {
    let server = Nginx::start_with("secret", certified);
    let health = verified(server.directory(), NAME);
    let proxy = Proxy::start(&in_front_of(&[server.address()], &health));
    eventually("five probes pass", PATIENCE, || (probes(&proxy, "pass") >= 5.0).then_some(()));
    assert!(probes(&proxy, "fail") < 1.0, "{}", proxy.said());
    let backend = proxy.backend("p", &server.address().to_string());
    let wanted = not_after(&server.directory().join("certificate.pem"));
    assert_eq!(backend.certificate_expires, Some(wanted));
    assert!(backend.reason.starts_with("certificate expires in "), "{}", backend.reason);
    assert_eq!(server.said(), "");
    let other = verified(server.directory(), "other.test");
    proxy.reload_with(&in_front_of(&[server.address()], &other));
    proxy.wait_for_line("certificate not valid for other.test, only for evenkeel.test");
    assert_eq!(server.said(), "");
}

/// If it fails, a server of OpenSSL that speaks one version of TLS is taken out.
#[test]
fn openssl_passes_tls_probes_in_both_versions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    certified(path);
    for version in ["-tls1_2", "-tls1_3"] {
        let server = s_server(path, &[version]);
        let proxy = Proxy::start(&in_front_of(&[server.address()], &verified(path, NAME)));
        eventually("five probes pass", PATIENCE, || (probes(&proxy, "pass") >= 5.0).then_some(()));
        assert!(probes(&proxy, "fail") < 1.0, "{version}: {}", proxy.said());
    }
}

/// If it fails, a server that speaks only obsolete versions passes for a good one.
#[test]
fn versions_that_are_too_old_are_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    certified(path);
    let server = s_server(path, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    let proxy = Proxy::start(&in_front_of(&[server.address()], &verified(path, NAME)));
    proxy.wait_for_line("down: TLS handshake refused: protocol version (1 of 1 probes failed)");
}

/// If it fails, small authorities that make certificates without extensions lose their servers,
/// though they are not to be checked; or such a one passes a check.
#[test]
fn a_certificate_without_extensions_passes_unless_it_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old", "-keyout"]);
    text_of(openssl.arg(path.join("key.pem")).arg("-out").arg(path.join("request.pem")));
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["x509", "-req", "-days", "2", "-in"]).arg(path.join("request.pem"));
    openssl.arg("-signkey").arg(path.join("key.pem"));
    text_of(openssl.arg("-out").arg(path.join("certificate.pem")));
    for version in ["-tls1_2", "-tls1_3"] {
        let server = s_server(path, &[version]);
        let health = verified(path, "old");
        let unchecked = health.replace("verify = true", "verify = false");
        let proxy = Proxy::start(&in_front_of(&[server.address()], &unchecked));
        eventually("five probes pass", PATIENCE, || (probes(&proxy, "pass") >= 5.0).then_some(()));
        assert!(probes(&proxy, "fail") < 1.0, "{version}: {}", proxy.said());
        let name = server.address().to_string();
        assert_eq!(
            proxy.backend("p", &name).certificate_expires,
            Some(not_after(&path.join("certificate.pem")))
        );
        proxy.reload_with(&in_front_of(&[server.address()], &health));
        proxy.wait_for_line("down: certificate");
    }
}
