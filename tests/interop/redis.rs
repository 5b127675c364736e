//! Redis behind evenkeel.

use std::net::SocketAddr;
use std::process::Command;

use crate::in_front_of;
use crate::program::{Server, program, succeed, text_of};
use crate::support::Proxy;

fn start(directory: &std::path::Path) -> (Server, Proxy) {
    let server = Server::start(|address| {
        let mut command = Command::new(program("redis-server"));
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory);
        command
    });
    let proxy = Proxy::start(&in_front_of(&[server.address()], ""));
    (server, proxy)
}

fn client(name: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(program(name));
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command
}

/// If it fails, values are cut or changed on their way.
#[test]
fn redis_cli_stores_and_reads_a_large_value() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, proxy) = start(directory.path());
    let cli = || client("redis-cli", proxy.address());
    assert_eq!(text_of(cli().arg("PING")), "PONG\n");
    let value: Vec<u8> =
        (0..500_000_u32).flat_map(|number| format!("{number} ").into_bytes()).collect();
    assert_eq!(succeed(cli().args(["-x", "SET", "large"]), &value).0, b"OK\n");
    let (mut read, _) = succeed(cli().args(["--raw", "GET", "large"]), b"");
    assert_eq!(read.pop(), Some(b'\n'));
    assert!(read == value, "{} of {} bytes", read.len(), value.len());
    // Thousands of commands sent before the first answer is read.
    let commands: String =
        (0..20_000).map(|number| format!("SET key:{number} {number}\r\n")).collect();
    let (said, _) = succeed(cli().arg("--pipe"), commands.as_bytes());
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("errors: 0, replies: 20000"), "{said}");
}

/// If it fails, many clients at once, or pipelined requests, break.
#[test]
fn redis_benchmark_runs_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, proxy) = start(directory.path());
    for more in [&["-c", "50"][..], &["-c", "50", "-P", "16", "-d", "4096"], &["-k", "0"]] {
        let mut command = client("redis-benchmark", proxy.address());
        command.args(["-n", "5000", "-t", "set,get", "--csv"]).args(more);
        let (said, errors) = succeed(&mut command, b"");
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("\"SET\"") && said.contains("\"GET\""), "{more:?}: {said}\n{errors}");
        assert!(!errors.contains("rror"), "{more:?}: {errors}");
    }
}
