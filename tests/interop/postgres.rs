//! PostgreSQL behind evenkeel: the server speaks after the client, and sessions are long.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};

use crate::in_front_of;
use crate::program::{Server, program, text_of};
use crate::support::Proxy;

/// The user that runs the server when the tests run as root, which PostgreSQL refuses.
const UNPRIVILEGED: &str = "postgres";

/// Debian keeps the programs of each version in a directory of its own.
fn server_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.unwrap().path().join("bin").join(name)).collect();
    found.retain(|file| file.is_file());
    found.sort();
    found.pop().unwrap_or_else(|| program(name))
}

fn unprivileged(program: PathBuf) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(crate::program::program("setpriv"));
    command.args(["--reuid", UNPRIVILEGED, "--regid", UNPRIVILEGED, "--clear-groups", "--"]);
    command.arg(program);
    command
}

fn id(kind: &str) -> u32 {
    text_of(Command::new("id").args([kind, UNPRIVILEGED])).trim().parse().unwrap()
}

fn start(directory: &Path) -> (Server, Proxy) {
    let server = serve(directory);
    let proxy = Proxy::start(&in_front_of(&[server.address()], "balance = \"least-connections\""));
    (server, proxy)
}

/// A server whose data is in a directory of its own.
pub(crate) fn serve(directory: &Path) -> Server {
    if geteuid().is_root() {
        chown(directory, Some(id("-u")), Some(id("-g"))).unwrap();
    }
    let data = directory.join("data");
    let mut initdb = unprivileged(server_program("initdb"));
    initdb.args(["--auth=trust", "--username=test", "--no-sync", "--no-locale", "-E", "UTF8"]);
    text_of(initdb.arg("-D").arg(&data).current_dir("/"));
    let server = Server::start(|address| {
        let mut command = unprivileged(server_program("postgres"));
        command.arg("-D").arg(&data).args(["-p", &address.port().to_string()]).current_dir("/");
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"]);
        command.arg(format!("unix_socket_directories={}", directory.display()));
        command
    });
    // INT: disconnects every client and ends its children.
    server.stopped_by(Signal::INT)
}

fn client(name: &str, address: SocketAddr) -> Command {
    let mut command =
        Command::new(if name == "psql" { program(name) } else { server_program(name) });
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
    // What a user has in the environment would change the connection.
    for variable in ["PGSERVICE", "PGSSLMODE", "PGOPTIONS", "PGPASSFILE", "PGDATABASE"] {
        command.env_remove(variable);
    }
    command.args(["-U", "test"]);
    command
}

/// If it fails, databases cannot be used through evenkeel.
#[test]
fn psql_and_pgbench_work() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, proxy) = start(directory.path());
    let ask = |query: &str| {
        let mut psql = client("psql", proxy.address());
        text_of(psql.args(["--no-psqlrc", "-At", "-d", "postgres", "-c", query]))
    };
    assert_eq!(ask("select 6 * 7"), "42\n");
    assert_eq!(ask("select repeat('x', 5000000)").trim_end(), "x".repeat(5_000_000));
    let counted = ask("copy (select generate_series(1, 200000)) to stdout");
    assert!(counted.lines().zip(1..).all(|(line, number)| line == number.to_string()));
    assert_eq!(counted.lines().count(), 200_000);

    let pgbench = |arguments: &[&str]| {
        let mut pgbench = client("pgbench", proxy.address());
        text_of(pgbench.args(arguments).arg("postgres"))
    };
    pgbench(&["-i", "-s", "1", "-q"]);
    for more in [&["-c", "8"][..], &["-c", "4", "-C"], &["-c", "8", "-S", "-M", "prepared"]] {
        let said = pgbench(&[&["-T", "2"], more].concat());
        assert!(said.contains("number of failed transactions: 0 "), "{said}");
        assert!(!said.contains("processed: 0"), "{said}");
    }
}
