//! What `evenkeel import` makes of configurations of HAProxy and nginx: each file in
//! `tests/import/` with the result and the notes that are expected of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::config::{parse, render};
use evenkeel::import::{Disk, Import, ImportError, ImportFiles, NoFiles, haproxy, nginx};
use proptest::prelude::*;

/// Files of a folder, so that notes name them as an operator in that folder would see them.
struct Folder(PathBuf);

impl ImportFiles for Folder {
    fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        Disk.read(&self.0.join(file))
    }

    fn names(&self, directory: &Path) -> Result<Vec<String>, String> {
        Disk.names(&self.0.join(directory))
    }
}

type Importer = fn(&Path, &dyn ImportFiles) -> Result<Import, ImportError>;

const PEERS: [(&str, &str, Importer); 2] = [("haproxy", "cfg", haproxy), ("nginx", "conf", nginx)];

fn corpus(peer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(peer)
}

/// Compares with a file, or writes it where `UPDATE_EXPECTED` is set.
fn compare(file: &Path, found: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(file, found).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected != found {
        wrong.push(format!("{}: expected\n{expected}\nfound\n{found}", file.display()));
    }
}

fn shown(import: &Import) -> String {
    import.notes.iter().map(|note| format!("{note}\n")).collect()
}

/// If it fails, an operator who migrates gets another configuration than the one that was reviewed.
#[test]
fn the_corpus_becomes_what_is_expected() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (peer, extension, import) in PEERS {
        let folder = Folder(corpus(peer));
        let mut names: Vec<PathBuf> =
            fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names.iter().filter(|path| path.extension().is_some_and(|it| it == extension)) {
            let name = Path::new(path.file_name().unwrap());
            match import(name, &folder) {
                Ok(import) => {
                    compare(&path.with_extension("toml"), &import.text, &mut wrong);
                    compare(&path.with_extension("notes"), &shown(&import), &mut wrong);
                    let parsed = parse(&import.text, name);
                    let told = render(&parsed.problems, &import.text, false);
                    assert!(parsed.config.is_some(), "{}: {told}", path.display());
                }
                Err(error) => wrong.push(error.to_string()),
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(count >= 40, "{count} files");
}

/// What a line of a proxy becomes, with its notes; around it is what makes the file whole.
fn of_line(section: &str, line: &str) -> (String, String) {
    let file = match section {
        "global" => format!("global\n {line}\nlisten l\n bind :1\n server s 10.0.0.1:1\n"),
        _ => format!("listen l\n bind :1\n server s 10.0.0.1:1\n {line}\n"),
    };
    let import = haproxy(Path::new("f"), &NoFiles(file.as_bytes())).unwrap();
    (import.text.clone(), shown(&import))
}

/// Keywords of HAProxy's manual (2.6), each with an argument that it takes.
const HAPROXY_LINES: &str = include_str!("import/haproxy-keywords.txt");
/// Directives of nginx's stream modules and its core (1.27).
const NGINX_LINES: &str = include_str!("import/nginx-directives.txt");

/// Lines that only say what evenkeel does anyway: they leave no trace, and need none.
const ALREADY_SO: &[&str] = &[
    "mode tcp",
    "option redispatch",
    "option tcplog",
    "log global",
    "option log-health-checks",
    "option splice-auto",
    "option splice-request",
    "option splice-response",
    "option tcpka",
    "option clitcpka",
    "option srvtcpka",
    "option allbackups",
    "enabled",
    "acl local src 10.0.0.0/8",
    "hash-type consistent",
    "balance roundrobin",
    // The weights of its servers cannot be changed by a command; here they can.
    "balance static-rr",
    // Without a `deny` all others are allowed as well.
    "allow 10.0.0.0/8;",
    "retries 3",
    "timeout check 1s",
    "timeout queue 1s",
    "tcp-request inspect-delay 5s",
    "default-server check",
    "option tcp-check",
    "option httpchk",
    "option pgsql-check user u",
    "option redis-check",
    "option smtpchk",
    "option ldap-check",
    "option ssl-hello-chk",
    "tcp-check connect",
    "tcp-check expect string +PONG",
    "tcp-check send PING",
    "tcp-check comment x",
    "http-check send meth GET uri /",
    "http-check expect status 200",
    "tcp-request connection accept",
    "proxy_next_upstream on;",
    "proxy_protocol off;",
    "proxy_timeout 10m;",
    "tcp_nodelay on;",
    "ssl_preread on;",
    "proxy_socket_keepalive on;",
    "proxy_half_close on;",
    "proxy_bind off;",
    "proxy_ssl off;",
    "proxy_connect_timeout 60s;",
    "proxy_next_upstream_tries 0;",
    "proxy_next_upstream_timeout 0;",
    "preread_timeout 30s;",
    "preread_buffer_size 16k;",
    "limit_conn_dry_run off;",
    "set_real_ip_from 10.0.0.0/8;",
    "limit_conn_zone $binary_remote_addr zone=a:1m;",
    "map $ssl_preread_server_name $x { a b; }",
    "geo $y { 10.0.0.0/8 b; }",
    "upstream u { zone u 64k; server 10.0.0.2:1; }",
    "worker_processes auto;",
];

/// If it fails, a line of a file is dropped in silence: the operator believes that it counts.
#[test]
fn every_line_is_carried_over_or_in_a_note() {
    let (plain, before) = of_line("listen", "mode tcp");
    let mut silent = Vec::new();
    let mut count = 0;
    for line in HAPROXY_LINES.lines().filter(|line| !line.is_empty()) {
        let (section, line) = line.split_once(": ").unwrap();
        let (text, notes) = of_line(section, line);
        count += 1;
        if text == plain && notes == before && !ALREADY_SO.contains(&line) {
            silent.push(line);
        }
    }
    for line in NGINX_LINES.lines().filter(|line| !line.is_empty()) {
        let (context, line) = line.split_once(": ").unwrap();
        let of = |line: &str| {
            let file = match context {
                "main" => {
                    format!("{line}\nstream {{ server {{ listen 1; proxy_pass 10.0.0.1:1; }} }}")
                }
                "stream" => {
                    format!("stream {{ {line} server {{ listen 1; proxy_pass 10.0.0.1:1; }} }}")
                }
                "server" => {
                    format!(
                        "stream {{ server {{ listen 9; proxy_pass 10.0.0.1:1; }} \
                         server {{ listen 1; proxy_pass 10.0.0.1:1; {line} }} }}"
                    )
                }
                _ => format!(
                    "stream {{ upstream a {{ server 10.0.0.1:1; {line} }} \
                     server {{ listen 1; proxy_pass a; }} }}"
                ),
            };
            let import = nginx(Path::new("f"), &NoFiles(file.as_bytes()));
            let import = import.unwrap_or_else(|error| panic!("{line}: {error}"));
            (import.text.clone(), shown(&import).replacen("f:2", "f:1", 9))
        };
        count += 1;
        if of(line) == of("") && !ALREADY_SO.contains(&line) {
            silent.push(line);
        }
    }
    assert!(count > 250, "{count} lines");
    assert!(silent.is_empty(), "nothing became of:\n{}", silent.join("\n"));
}

/// Words of both grammars, so that soup of them gets far.
const WORDS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "a",
    "b",
    "from",
    "bind",
    ":80",
    ":::81",
    "[::1]:80",
    "10.0.0.1:80-90",
    "/run/a.sock",
    "unix@/a",
    "accept-proxy",
    "ssl",
    "tfo",
    "mode",
    "tcp",
    "http",
    "server",
    "s",
    "10.0.0.1:80",
    "10.0.0.2",
    "check",
    "inter",
    "1s",
    "0",
    "-1",
    "99999999999999",
    "weight",
    "300",
    "maxconn",
    "send-proxy",
    "backup",
    "balance",
    "source",
    "random(2)",
    "option",
    "tcp-check",
    "httpchk",
    "GET",
    "/x",
    "tcp-check",
    "send",
    "expect",
    "string",
    "\\x00",
    "\"",
    "'",
    "acl",
    "src",
    "10.0.0.0/8",
    "::/0",
    "0.0.0.0/0",
    "req.ssl_sni",
    "-i",
    "-m",
    "end",
    "x.example.com",
    "tcp-request",
    "connection",
    "content",
    "reject",
    "accept",
    "track-sc0",
    "if",
    "unless",
    "{",
    "}",
    "!",
    "or",
    "sc0_conn_rate",
    "gt",
    "10",
    "stick-table",
    "type",
    "ip",
    "size",
    "1m",
    "expire",
    "store",
    "conn_rate(10s)",
    "stick",
    "on",
    "use_backend",
    "default_backend",
    "timeout",
    "client",
    "5000",
    "stream",
    "upstream",
    "proxy_pass",
    "$x",
    "map",
    "$ssl_preread_server_name",
    "hostnames;",
    "*.example.com",
    "default",
    ";",
    "geo",
    "limit_conn_zone",
    "limit_conn",
    "zone=z:1m",
    "allow",
    "deny",
    "all;",
    "80;",
    "10.0.0.1:80;",
    "udp;",
    "proxy_protocol",
    "on;",
    "hash",
    "$remote_addr",
    "consistent;",
    "include",
    "*;",
    "#",
    "\\",
    "${A}",
    "\n",
    "\n",
    "\n",
    "\n ",
    "é",
    "\u{7f}",
];

/// A file becomes a configuration that is accepted, or an error with a place; never a panic.
fn any_file(bytes: &[u8]) {
    for (peer, _, import) in PEERS {
        match import(Path::new("f"), &NoFiles(bytes)) {
            Ok(import) => {
                let parsed = parse(&import.text, Path::new("f"));
                let told = render(&parsed.problems, &import.text, false);
                assert!(parsed.config.is_some(), "{peer}: {told}");
                for note in &import.notes {
                    assert!(note.place.line >= 1 && note.place.last >= note.place.line);
                    assert!(!note.reason.is_empty());
                }
            }
            Err(error) => {
                assert!(error.place.line >= 1 && !error.message.is_empty());
                let is_ours = error.message.contains("would not be valid");
                assert!(!is_ours, "{peer}: {error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// If it fails, a file that is damaged, or of another program, ends the command.
    #[test]
    fn any_bytes_are_imported_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        any_file(&bytes);
    }

    /// If it fails, some file has a result that `check` refuses.
    #[test]
    fn any_words_are_imported_or_refused(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..80),
    ) {
        any_file(words.join(" ").as_bytes());
        let words = words.join(" ");
        any_file(format!("listen l\n bind :1\n server s 10.0.0.1:1\n{words}").as_bytes());
        let server = "stream { server { listen 1; proxy_pass 10.0.0.1:1;";
        any_file(format!("{server} }} {words} }}").as_bytes());
        any_file(format!("{server} {words} }} }}").as_bytes());
    }
}

fn evenkeel(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let output = command.args(arguments).current_dir(directory).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// If it fails, a script that migrates a file cannot tell whether all of it is there.
#[test]
fn the_exit_status_tells_what_became_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let whole = "defaults\n timeout client 1m\n timeout server 1m\n\
                 listen l\n bind :1\n server s 10.0.0.1:1\n";
    write("whole.cfg", whole);
    write("part.cfg", &format!("{whole} http-request deny\n"));
    write("broken.cfg", "listen l\n bind ':1\n");
    write("empty.cfg", "global\n daemon\n");
    write("broken.conf", "stream {\n server {\n");
    let import = |peer, file| evenkeel(&["import", peer, file], folder.path());

    let (code, text, told) = import("haproxy", "whole.cfg");
    assert_eq!((code, told.as_str()), (0, ""));
    write("whole.toml", &text);
    let (code, _, told) = evenkeel(&["check", "-c", "whole.toml"], folder.path());
    assert_eq!(code, 0, "{told}");

    let (code, partly, told) = import("haproxy", "part.cfg");
    let reason = "it is about requests, which evenkeel does not read";
    assert_eq!(told, format!("part.cfg:7: http-request deny: not carried over: {reason}\n"));
    assert_eq!(
        (code, partly.lines().skip(1).collect::<Vec<_>>()),
        (3, text.lines().skip(1).collect())
    );

    for (peer, file, wrong) in [
        ("haproxy", "broken.cfg", "broken.cfg:2: a single quote has no end"),
        (
            "haproxy",
            "empty.cfg",
            "empty.cfg:1: nothing in it can be carried over\nempty.cfg:2: daemon",
        ),
        ("haproxy", "none.cfg", "none.cfg:1: cannot read it: No such file"),
        ("nginx", "broken.conf", "broken.conf:2: the block of `server` has no end"),
        ("nginx", ".", "cannot read it"),
    ] {
        let (code, text, told) = import(peer, file);
        assert_eq!((code, text.as_str()), (78, ""), "{file}");
        assert!(told.contains(wrong), "{told}");
    }
    assert_eq!(evenkeel(&["import", "envoy", "x"], folder.path()).0, 2);
}
