//! HAProxy and nginx with a configuration, beside evenkeel with the import of the same file: each
//! client gets the same from both.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use evenkeel::import::{Import, NoFiles, haproxy, nginx};

use crate::program::{Server, program};
use crate::support::{Backend, Proxy, connect_from, eventually, free_address, read_line};

/// Longer than a probe and its verdict take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Both programs with one configuration; their listeners in the order of the file.
struct SideBySide {
    _peer: Server,
    _own: Proxy,
    peer: Vec<SocketAddr>,
    own: Vec<SocketAddr>,
}

impl SideBySide {
    /// Starts both; `text` makes the file for as many addresses as the configuration listens on.
    fn start(
        listeners: usize,
        text: impl Fn(&[SocketAddr]) -> String,
        command: fn(&Path) -> Command,
        import: fn(&[u8]) -> Import,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("peer");
        let mut peer = Vec::new();
        let server = Server::start(|first| {
            peer = vec![first];
            peer.extend((1..listeners).map(|_| free_address()));
            std::fs::write(&file, text(&peer)).unwrap();
            command(&file)
        });
        let mut config = import(text(&peer).as_bytes()).text;
        for address in &peer {
            config = config.replace(&format!("bind = [\"{address}\"]"), "bind = [\"127.0.0.1:0\"]");
        }
        let own = Proxy::start(&config);
        assert_eq!(own.addresses().len(), listeners, "{config}");
        Self { _peer: server, peer, own: own.addresses().to_vec(), _own: own }
    }

    fn haproxy(listeners: usize, text: impl Fn(&[SocketAddr]) -> String) -> Self {
        let command = |file: &Path| {
            let mut command = Command::new(program("haproxy"));
            command.arg("-db").arg("-f").arg(file);
            command
        };
        let import = |text: &[u8]| haproxy(Path::new("haproxy.cfg"), &NoFiles(text)).unwrap();
        let defaults = "defaults\n mode tcp\n timeout connect 2s\n timeout client 20s\n \
                        timeout server 20s\n";
        Self::start(listeners, |at| format!("{defaults}{}", text(at)), command, import)
    }

    fn nginx(listeners: usize, text: impl Fn(&[SocketAddr]) -> String) -> Self {
        let command = |file: &Path| {
            let mut command = Command::new(program("nginx"));
            let directory = file.parent().unwrap();
            command.arg("-p").arg(directory).arg("-c").arg(file).args(["-e", "stderr"]);
            command
        };
        let import = |text: &[u8]| nginx(Path::new("nginx.conf"), &NoFiles(text)).unwrap();
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let load = if Path::new(module).exists() {
            format!("load_module {module};")
        } else {
            String::new()
        };
        let around = |stream: String| {
            format!(
                "{load}\ndaemon off;\nmaster_process off;\npid nginx.pid;\n\
                 events {{ worker_connections 512; }}\nstream {{\n{stream}\n}}\n"
            )
        };
        Self::start(listeners, |at| around(text(at)), command, import)
    }

    /// Asserts that a client gets this of both, soon: verdicts take a moment.
    #[track_caller]
    fn both_give(&self, listener: usize, expected: &str, ask: impl Fn(SocketAddr) -> String) {
        for (who, at) in [("the peer", self.peer[listener]), ("evenkeel", self.own[listener])] {
            let what = format!("{who}, listener {listener}: {expected}");
            eventually(&what, PATIENCE, || (ask(at) == expected).then_some(()));
        }
    }

    /// Asserts that a client gets this of both at the first attempt.
    #[track_caller]
    fn both_give_at_once(
        &self,
        listener: usize,
        expected: &str,
        ask: impl Fn(SocketAddr) -> String,
    ) {
        assert_eq!(ask(self.peer[listener]), expected, "the peer, listener {listener}");
        assert_eq!(ask(self.own[listener]), expected, "evenkeel, listener {listener}");
    }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

/// Connects from 127.0.0.`source`, says this, and gives the first line; "refused" without one.
fn asked(source: u8, at: SocketAddr, said: &[u8]) -> String {
    answer(source, at, said).map_or_else(|| "refused".to_owned(), |(line, _)| line)
}

/// The first line, and the connection, which stays open.
fn answer(source: u8, at: SocketAddr, said: &[u8]) -> Option<(String, TcpStream)> {
    let mut stream = connect_from((address(source), 0), at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(said).ok()?;
    let line = read_line(&mut stream).ok().filter(|line| !line.is_empty())?;
    Some((line.trim_end().to_owned(), stream))
}

/// A TLS hello for a name.
fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let roots = rustls::RootCertStore::empty();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A server that says the first three words of the PROXY header that it is sent.
fn telling_of_headers() -> Backend {
    Backend::serving(|mut stream, _| {
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        stream.write_all(format!("{}\n", words.join(" ")).as_bytes())
    })
}

/// If it fails, the import of a file of HAProxy's sends clients elsewhere than HAProxy did.
#[test]
fn an_import_serves_the_clients_of_haproxy_alike() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let dead = Backend::refusing();
    let header = telling_of_headers();
    let sides = SideBySide::haproxy(5, |at| {
        format!(
            "frontend names\n bind {}\n tcp-request inspect-delay 5s\n \
             tcp-request content accept if {{ req.ssl_hello_type 1 }}\n \
             use_backend a if {{ req.ssl_sni -i a.example.com }}\n \
             use_backend b if {{ req.ssl_sni -m end -i .b.example.com }}\n default_backend c\n\
             frontend lists\n bind {}\n acl friend src 127.0.0.7\n \
             tcp-request connection accept if friend\n \
             tcp-request connection reject if {{ src 127.0.0.6/31 }}\n \
             tcp-request connection reject unless {{ src 127.0.0.0/28 }}\n default_backend a\n\
             frontend bounded\n bind {}\n \
             stick-table type ip size 1k expire 1h store conn_cur,conn_rate(1h)\n \
             tcp-request connection accept if {{ src 127.0.0.8 }}\n \
             tcp-request connection track-sc0 src\n \
             tcp-request connection reject if {{ sc0_conn_cur gt 2 }}\n \
             tcp-request connection reject if {{ sc0_conn_rate gt 4 }}\n default_backend a\n\
             listen fallback\n bind {}\n server s1 {} check inter 100ms fall 1\n \
             server s2 {} check backup\n\
             listen header\n bind {}\n server s {} send-proxy\n\
             backend a\n server s {}\nbackend b\n server s {}\nbackend c\n server s {}\n",
            at[0],
            at[1],
            at[2],
            at[3],
            dead.address(),
            b.address(),
            at[4],
            header.address(),
            a.address(),
            b.address(),
            c.address(),
        )
    });
    for (name, pool) in [
        ("a.example.com", "a"),
        ("A.Example.com", "a"),
        ("x.y.b.example.com", "b"),
        ("b.example.com", "c"),
    ] {
        sides.both_give_at_once(0, pool, |at| asked(9, at, &hello(name)));
    }
    sides.both_give_at_once(0, "c", |at| asked(9, at, b"GET / HTTP/1.0\r\n\r\n"));
    for (source, expected) in [(7, "a"), (6, "refused"), (9, "a"), (99, "refused")] {
        sides.both_give_at_once(1, expected, |at| asked(source, at, b""));
    }
    // Two at once, and five in all: of a client that is not exempt.
    let bounded = |source: u8, at: SocketAddr| {
        let held: Vec<_> = (0..3).map(|_| answer(source, at, b"")).collect();
        let served = held.iter().flatten().count();
        drop(held);
        served.to_string()
    };
    sides.both_give_at_once(2, "2", |at| bounded(9, at));
    sides.both_give_at_once(2, "3", |at| bounded(8, at));
    sides.both_give(3, "b", |at| asked(9, at, b""));
    sides.both_give_at_once(4, "PROXY TCP4 127.0.0.9", |at| asked(9, at, b""));
}

/// If it fails, the import of a file of nginx's sends clients elsewhere than nginx did.
#[test]
fn an_import_serves_the_clients_of_nginx_alike() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let dead = Backend::refusing();
    let header = telling_of_headers();
    let sides = SideBySide::nginx(6, |at| {
        format!(
            "map $ssl_preread_server_name $pool {{\n hostnames;\n a.example.com a;\n \
             *.b.example.com b;\n .c.example.com c;\n default b;\n}}\n\
             geo $near {{\n default b;\n 127.0.0.0/28 a;\n 127.0.0.6 c;\n}}\n\
             limit_conn_zone $binary_remote_addr zone=z:1m;\n\
             upstream a {{ server {0}; }}\nupstream b {{ server {1}; }}\n\
             upstream c {{ server {2}; }}\n\
             upstream fallback {{ server {3}; server {1} backup; }}\n\
             server {{ listen {4}; ssl_preread on; proxy_pass $pool; }}\n\
             server {{ listen {5}; allow 127.0.0.7; deny 127.0.0.6/31; \
             allow 127.0.0.0/28; deny all; proxy_pass a; }}\n\
             server {{ listen {6}; limit_conn z 2; proxy_pass a; }}\n\
             server {{ listen {7}; proxy_pass fallback; }}\n\
             server {{ listen {8}; proxy_protocol on; proxy_pass {10}; }}\n\
             server {{ listen {9}; proxy_pass $near; }}\n",
            a.address(),
            b.address(),
            c.address(),
            dead.address(),
            at[0],
            at[1],
            at[2],
            at[3],
            at[4],
            at[5],
            header.address(),
        )
    });
    for (name, pool) in [
        ("a.example.com", "a"),
        ("x.b.example.com", "b"),
        ("x.y.c.example.com", "c"),
        ("c.example.com", "c"),
        ("d.example.com", "b"),
    ] {
        sides.both_give_at_once(0, pool, |at| asked(9, at, &hello(name)));
    }
    for (source, expected) in [(7, "a"), (6, "refused"), (9, "a"), (99, "refused")] {
        sides.both_give_at_once(1, expected, |at| asked(source, at, b""));
    }
    let at_once = |at: SocketAddr| {
        let held: Vec<_> = (0..3).map(|_| answer(9, at, b"")).collect();
        held.iter().flatten().count().to_string()
    };
    sides.both_give_at_once(2, "2", at_once);
    sides.both_give_at_once(3, "b", |at| asked(9, at, b""));
    sides.both_give_at_once(4, "PROXY TCP4 127.0.0.9", |at| asked(9, at, b""));
    for (source, pool) in [(6, "c"), (7, "a"), (99, "b")] {
        sides.both_give_at_once(5, pool, |at| asked(source, at, b""));
    }
}
