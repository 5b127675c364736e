//! Three nginx behind evenkeel, with curl and wrk in front of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use crate::in_front_of;
use crate::program::{Nginx, program, text_of};
use crate::support::Proxy;

fn three() -> [Nginx; 3] {
    ["one", "two", "three"].map(Nginx::start)
}

fn proxy(servers: &[Nginx; 3]) -> Proxy {
    let addresses = servers.each_ref().map(Nginx::address);
    Proxy::start(&in_front_of(&addresses, "balance = \"round-robin\""))
}

fn curl(address: SocketAddr, path: &str) -> Command {
    let mut command = Command::new(program("curl"));
    command.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"]);
    command.arg(format!("http://{address}{path}"));
    command
}

/// What wrk measured: requests answered with 2xx, and the line of errors if there is one.
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) errors: Option<String>,
}

/// wrk for two seconds, with more arguments.
pub(crate) fn wrk(address: SocketAddr, arguments: &[&str]) -> Load {
    let mut command = Command::new(program("wrk"));
    command.args(["--threads", "1", "--connections", "32", "--duration", "2s"]).args(arguments);
    let said = text_of(command.arg(format!("http://{address}/")));
    assert!(!said.contains("Non-2xx"), "{said}");
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests = requests.unwrap_or_else(|| panic!("{said}")).0.parse().unwrap();
    let errors = said.lines().find(|line| line.contains("Socket errors")).map(str::to_owned);
    Load { requests, errors }
}

/// If it fails, HTTP clients get the wrong answer or not every server works.
#[test]
fn curl_reaches_all_three() {
    let servers = three();
    let proxy = proxy(&servers);
    let seen: BTreeSet<String> = (0..6).map(|_| text_of(&mut curl(proxy.address(), "/"))).collect();
    assert_eq!(seen, ["one\n", "two\n", "three\n"].map(str::to_owned).into());
    // Two requests on one connection reach one server.
    let mut twice = curl(proxy.address(), "/");
    let pair = text_of(twice.arg(format!("http://{}/", proxy.address())));
    let [first, second] = pair.lines().collect::<Vec<_>>()[..] else { panic!("{pair}") };
    assert_eq!(first, second);
}

/// If it fails, people and programs see a broken connection instead of the reason.
#[test]
fn curl_reads_why_it_is_refused() {
    let server = Nginx::start("one");
    let config = in_front_of(&[server.address()], "")
        .replace("pool = \"p\"\n", "pool = \"p\"\nprotocol = \"http\"\n");
    let proxy = Proxy::start(&format!("{config}[listener.l.limit]\nrate = \"1/h\"\n"));
    let url = format!("http://{}/", proxy.address());
    assert_eq!(text_of(&mut curl(proxy.address(), "/")), "one\n");
    let upload = server.directory().join("upload");
    std::fs::write(&upload, vec![b'u'; 8 << 20]).unwrap();
    let body = format!("@{}", upload.display());
    let post = ["--data-binary", body.as_str()];
    let waits = ["--data-binary", body.as_str(), "--header", "Expect: 100-continue"];
    let cases: [&[&str]; 4] = [&[], &["--head"], &post, &waits];
    for arguments in cases {
        let mut command = Command::new(program("curl"));
        command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]);
        command.args(["--include", "--write-out", "\ncode %{response_code}\n"]);
        let said = text_of(command.args(arguments).arg(&url));
        assert!(said.contains("\ncode 429\n"), "{arguments:?}: {said}");
        assert!(said.contains("Retry-After: "), "{arguments:?}: {said}");
    }
}

/// If it fails, a large file is cut or changed on its way.
#[test]
fn curl_downloads_a_large_file_unchanged() {
    let server = Nginx::start("one");
    // No two blocks of it are alike: a block that is lost, repeated or moved shows.
    let content: Vec<u8> = (0..8_000_000_u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(server.directory().join("files/large"), &content).unwrap();
    let proxy = Proxy::start(&in_front_of(&[server.address()], ""));
    for limit in [None, Some("20M")] {
        let mut command = curl(proxy.address(), "/files/large");
        command.args(limit.iter().flat_map(|limit| ["--limit-rate", limit]));
        let (received, _) = crate::program::succeed(&mut command, b"");
        assert!(received == content, "{} of {} bytes", received.len(), content.len());
    }
}

/// If it fails, kept connections break under load.
#[test]
fn wrk_with_kept_connections_has_no_error() {
    let servers = three();
    let proxy = proxy(&servers);
    let load = wrk(proxy.address(), &[]);
    assert_eq!(load.errors, None);
    assert!(load.requests > 1_000, "{} requests", load.requests);
}

/// If it fails, short connections break under load.
#[test]
fn wrk_with_a_connection_for_each_request_has_no_error() {
    let servers = three();
    let proxy = proxy(&servers);
    let load = wrk(proxy.address(), &["--header", "Connection: close"]);
    assert_eq!(load.errors, None);
    assert!(load.requests > 100, "{} requests", load.requests);
}
