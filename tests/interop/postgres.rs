//! PostgreSQL behind evenkeel: the server speaks after the client, and sessions are long.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::in_front_of;
use crate::program::{Server, program, text_of};
use crate::support::{PATIENCE, Proxy, eventually};

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

/// A server whose data is in a directory of its own.
pub(crate) fn serve(directory: &Path) -> Server {
    start_with(directory, &[])
}

/// The settings of a server that speaks TLS, with a certificate in its directory.
fn with_tls(directory: &Path) -> [String; 3] {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    // The key has to belong to the user that runs the server.
    chown_to_server(directory);
    let mut openssl = unprivileged(program("openssl"));
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]);
    openssl.arg("/CN=db.test").arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    text_of(openssl.current_dir("/"));
    [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ]
}

fn chown_to_server(directory: &Path) {
    if geteuid().is_root() {
        chown(directory, Some(id("-u")), Some(id("-g"))).unwrap();
    }
}

fn start_with(directory: &Path, settings: &[String]) -> Server {
    chown_to_server(directory);
    let data = directory.join("data");
    let mut initdb = unprivileged(server_program("initdb"));
    initdb.args(["--auth=trust", "--username=test", "--no-sync", "--no-locale", "-E", "UTF8"]);
    text_of(initdb.arg("-D").arg(&data).current_dir("/"));
    let server = Server::start(|address| {
        let mut command = unprivileged(server_program("postgres"));
        command.arg("-D").arg(&data).args(["-p", &address.port().to_string()]).current_dir("/");
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"]);
        command.arg(format!("unix_socket_directories={}", directory.display()));
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
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
    let server = serve(directory.path());
    let proxy = Proxy::start(&in_front_of(&[server.address()], "balance = \"least-connections\""));
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

/// How many queries that only sleep run on a server, asked directly.
fn sleeping(server: SocketAddr) -> usize {
    let query = "select pid from pg_stat_activity where query like 'select pg_sleep%'";
    let mut psql = client("psql", server);
    text_of(psql.args(["--no-psqlrc", "-At", "-d", "postgres", "-c", query])).lines().count()
}

/// If it fails, Ctrl-C in psql stops nothing where docs/choosing.md says it does: the request to
/// cancel is a second connection, which has to reach the server of the first.
#[test]
fn a_cancel_request_needs_a_choice_that_is_kept() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let servers = directories.each_ref().map(|directory| serve(directory.path()));
    let addresses = servers.each_ref().map(Server::address);
    let least = "balance = \"least-connections\"";
    let sticky = format!("{least}\nsticky = {{ for = \"1h\" }}");
    for (pool, arrives) in [("", true), (&sticky, true), (least, false)] {
        let proxy = Proxy::start(&in_front_of(&addresses, pool));
        let mut psql = client("psql", proxy.address());
        psql.args(["--no-psqlrc", "-d", "postgres", "-c", "select pg_sleep(600)"]);
        let mut psql = psql.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let home = eventually("the query runs", PATIENCE, || {
            addresses.into_iter().find(|address| sleeping(*address) == 1)
        });
        kill_process(Pid::from_child(&psql), Signal::INT).unwrap();
        if arrives {
            eventually("the query ends", PATIENCE, || psql.try_wait().unwrap());
            let said = String::from_utf8(psql.wait_with_output().unwrap().stderr).unwrap();
            assert!(said.contains("canceling statement due to user request"), "{pool}: {said}");
            assert_eq!(sleeping(home), 0, "{pool}");
        } else {
            let cancel = &proxy.wait_for_session_lines(1)[0];
            assert_ne!(cancel["backend"], home.to_string(), "{cancel}");
            assert_eq!((sleeping(home), psql.try_wait().unwrap()), (1, None));
            psql.kill().unwrap();
            psql.wait().unwrap();
        }
    }
}

/// If it fails, psql reaches another database than the one whose name it gives, or no TLS.
#[test]
fn psql_is_routed_by_the_name_that_it_asks_for() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let servers = directories.each_ref().map(|directory| {
        let settings = with_tls(directory.path());
        start_with(directory.path(), &settings)
    });
    let [one, other] = servers.each_ref().map(Server::address);
    let proxy = Proxy::start(&format!(
        "[listener.l]\nbind = [\"127.0.0.1:0\"]\npool = \"one\"\npeek = {{ postgres = true }}\n\
         [[listener.l.route]]\nsni = [\"other.test\"]\npool = \"other\"\n\
         [pool.one]\nbackends = [\"{one}\"]\n[pool.other]\nbackends = [\"{other}\"]\n"
    ));
    let ask = |host: &str, mode: &str| {
        let port = proxy.address().port();
        let target =
            format!("host={host} hostaddr=127.0.0.1 port={port} dbname=postgres sslmode={mode}");
        let query = "select ssl, inet_server_port() from pg_stat_ssl where pid = pg_backend_pid()";
        let mut psql = client("psql", proxy.address());
        text_of(psql.args(["--no-psqlrc", "-At", "-d", &target, "-c", query]))
    };
    for (host, mode, is_encrypted, server) in [
        ("one.test", "require", "t", one),
        ("other.test", "require", "t", other),
        ("other.test", "prefer", "t", other),
        ("other.test", "disable", "f", one),
    ] {
        let wanted = format!("{is_encrypted}|{}\n", server.port());
        assert_eq!(ask(host, mode), wanted, "{host}, sslmode={mode}");
    }
}
