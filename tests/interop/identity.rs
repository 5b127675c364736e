//! PROXY headers and TLS names, as nginx, curl, HAProxy and OpenSSL write and read them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::in_front_of;
use crate::program::{Nginx, Server, program, succeed, text_of};
use crate::support::Proxy;

fn curl(address: SocketAddr) -> Command {
    let mut command = Command::new(program("curl"));
    command.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"]);
    command.arg(format!("http://{address}/"));
    command
}

/// nginx that wants a PROXY header and answers with the client that it names.
fn telling(_: &Path) -> String {
    " proxy_protocol;\n    location = / { return 200 \"$proxy_protocol_addr\\n\"; }\n    \
     set $unused \"\""
        .to_owned()
}

/// If it fails, a server in the field does not understand our headers, or its probes fail.
#[test]
fn nginx_learns_who_the_client_is() {
    let server = Nginx::start_with("unused", telling);
    for version in ["v1", "v2"] {
        let more = format!(
            "send_proxy = \"{version}\"\n[pool.p.health]\nprobe = \"http\"\npath = \"/x\"\n\
             initial = \"down\"\nrise = 1\ninterval = \"100ms\""
        );
        let config = in_front_of(&[server.address()], &more).replace("127.0.0.1:0", "127.0.0.3:0");
        let proxy = Proxy::start(&config);
        proxy.wait_for_metric("evenkeel_backend_up", &[], 1.0);
        let mut client = curl(proxy.address());
        client.args(["--interface", "127.0.0.9"]);
        assert_eq!(text_of(&mut client), "127.0.0.9\n", "{version}");
    }
}

/// If it fails, headers that others write are refused, or the client in them is lost.
#[test]
fn headers_of_curl_and_haproxy_are_understood() {
    let server = Nginx::start_with("unused", telling);
    let trusting = "accept_proxy = { from = [\"127.0.0.0/8\"] }\n[pool.p]\nsend_proxy = \"v2\"";
    let config = in_front_of(&[server.address()], "").replace("[pool.p]", trusting);
    let proxy = Proxy::start(&config);
    let mut client = curl(proxy.address());
    client.args(["--haproxy-protocol", "--interface", "127.0.0.9"]);
    assert_eq!(text_of(&mut client), "127.0.0.9\n");
    for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let directory = tempfile::tempdir().unwrap();
        let haproxy = Server::start(|address| {
            let file = directory.path().join("haproxy.cfg");
            let config = format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  \
                 timeout server 20s\nlisten l\n  bind {address}\n  unique-id-format %rt\n  \
                 server s {} {send}\n",
                proxy.address()
            );
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new(program("haproxy"));
            command.arg("-db").arg("-f").arg(file);
            command
        });
        let mut client = curl(haproxy.address());
        client.args(["--interface", "127.0.0.8"]);
        assert_eq!(text_of(&mut client), "127.0.0.8\n", "{send}");
    }
}

/// A certificate that is its own authority, and the lines that make nginx use it.
fn certified(directory: &Path) -> String {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let mut openssl = Command::new(program("openssl"));
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=evenkeel.test"]).arg("-keyout").arg(&key);
    text_of(openssl.arg("-out").arg(&certificate));
    format!(
        " ssl;\n    ssl_certificate {};\n    ssl_certificate_key {}",
        certificate.display(),
        key.display()
    )
}

/// If it fails, hellos of a real TLS client are misread: it reaches another server, or none.
#[test]
fn openssl_is_routed_by_its_server_name() {
    let servers = ["fallback", "web", "h2"].map(|name| Nginx::start_with(name, certified));
    let pools: String = ["fallback", "web", "h2"]
        .iter()
        .zip(&servers)
        .map(|(name, server)| format!("[pool.{name}]\nbackends = [\"{}\"]\n", server.address()))
        .collect();
    let proxy = Proxy::start(&format!(
        "[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"fallback\"\n\
         [[listener.l.route]]\nalpn = [\"h2\"]\npool = \"h2\"\n\
         [[listener.l.route]]\nsni = [\"*.example.com\"]\npool = \"web\"\n{pools}"
    ));
    let asked = |arguments: &[&str]| {
        let mut client = Command::new(program("openssl"));
        client.args(["s_client", "-quiet", "-connect", &proxy.address().to_string()]);
        client.args(arguments);
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let (said, _) = succeed(client.arg("-ign_eof"), request);
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(asked(&["-servername", "www.example.com"]), "web");
    assert_eq!(asked(&["-servername", "A.B.Example.com", "-tls1_2"]), "web");
    assert_eq!(asked(&["-servername", "example.com"]), "fallback");
    assert_eq!(asked(&["-noservername"]), "fallback");
    assert_eq!(asked(&["-servername", "example.com", "-alpn", "http/1.1"]), "fallback");
    assert_eq!(asked(&["-servername", "www.example.com", "-alpn", "http/1.1,h2"]), "h2");
}

fn mosquitto(directory: &Path) -> Server {
    let file = directory.join("mosquitto.conf");
    Server::start(|address| {
        let text = format!("listener {} 127.0.0.1\nallow_anonymous true\n", address.port());
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program("mosquitto"));
        command.arg("-c").arg(&file);
        command
    })
}

/// If it fails, a device comes back to another broker than the one that keeps its session.
#[test]
fn a_device_of_mosquitto_returns_to_its_broker() {
    const DEVICES: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let brokers = [mosquitto(directory.path()), mosquitto(directory.path())];
    let servers = brokers.each_ref().map(Server::address);
    let proxy = Proxy::start(&in_front_of(&servers, "hash_key = \"mqtt-client-id\""));
    let at = proxy.address();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for device in 0..DEVICES {
            let mut client = Command::new(program("mosquitto_pub"));
            client.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
            client.args(["-V", version, "-q", "1", "-t", "t", "-m", "m"]);
            text_of(client.args(["-i", &format!("device-{device}")]));
        }
    }
    let lines = proxy.wait_for_session_lines(3 * DEVICES);
    let mut brokers: Vec<_> = lines.iter().map(|line| line["backend"].as_str().unwrap()).collect();
    let (first, again) = brokers.split_at(DEVICES);
    assert_eq!(first, &again[..DEVICES]);
    assert_eq!(first, &again[DEVICES..]);
    brokers.sort_unstable();
    brokers.dedup();
    assert_eq!(brokers.len(), 2, "12 devices are spread over both brokers");
}
