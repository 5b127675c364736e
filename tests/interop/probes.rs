//! The recipes of docs/probes.md against the programs that they are for.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;

use crate::in_front_of;
use crate::postgres;
use crate::program::{Nginx, Server, program, text_of};
use crate::support::{Backend, PATIENCE, Proxy, eventually};
use crate::tls::certified;

const PAGE: &str = include_str!("../../docs/probes.md");
const OFTEN: &str = "interval = \"50ms\"\nfast_interval = \"50ms\"\ntimeout = \"5s\"\nfall = 1";

/// The health table that the page has for a pool of this name.
fn recipe(pool: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("\n[pool.{pool}.health]\n")).unwrap();
    let (keys, _) = rest.split_once("```").unwrap();
    let initial = if keys.contains("initial") { "" } else { "initial = \"down\"" };
    format!("[pool.p.health]\n{OFTEN}\n{initial}\n{keys}")
}

fn probed(server: SocketAddr, pool: &str) -> Proxy {
    let proxy = Proxy::start(&in_front_of(&[server], &recipe(pool)));
    eventually("probes", PATIENCE, || {
        (count(&proxy, "pass") + count(&proxy, "fail") > 0.0).then_some(())
    });
    proxy
}

fn count(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric("evenkeel_backend_probes_total", &[("result", result)])
}

/// Asserts that the recipe of a pool brings this server up and keeps it there, and takes a server
/// of another kind down.
#[track_caller]
fn works(pool: &str, server: SocketAddr) {
    let proxy = probed(server, pool);
    wait_for_state(&proxy, "up");
    let failed = count(&proxy, "fail");
    let enough = count(&proxy, "pass") + 10.0;
    eventually("ten more", PATIENCE, || (count(&proxy, "pass") >= enough).then_some(()));
    let later = count(&proxy, "fail");
    assert!(later <= failed, "{pool}: {} of the probes failed: {}", later - failed, proxy.said());
    let other = Backend::half_closing(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    wait_for_state(&probed(other.address(), pool), "down");
}

#[track_caller]
fn wait_for_state(proxy: &Proxy, state: &str) {
    eventually(state, PATIENCE, || {
        let status = proxy.status();
        status.pools["p"].backends.values().all(|backend| backend.state == state).then_some(())
    });
}

fn redis(directory: &Path) -> Server {
    Server::start(|address| {
        let mut command = Command::new(program("redis-server"));
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory);
        command
    })
}

/// If it fails, the page has a recipe for Redis that takes a master down, or leaves a replica up.
#[test]
fn redis_and_its_role() {
    let directory = tempfile::tempdir().unwrap();
    let server = redis(directory.path());
    works("redis", server.address());
    works("redis-master", server.address());
    let proxy = probed(server.address(), "redis-master");
    wait_for_state(&proxy, "up");
    let mut cli = Command::new(program("redis-cli"));
    cli.args(["-p", &server.address().port().to_string(), "REPLICAOF", "127.0.0.1", "1"]);
    text_of(&mut cli);
    wait_for_state(&proxy, "down");
}

/// If it fails, the page has a recipe for Redis Sentinel that does not work.
#[test]
fn redis_sentinel() {
    let directory = tempfile::tempdir().unwrap();
    let master = redis(directory.path());
    let file = directory.path().join("sentinel.conf");
    let server = Server::start(|address| {
        let (own, port) = (address.port(), master.address().port());
        let directory = directory.path().display();
        let text = format!(
            "port {own}\nbind 127.0.0.1\ndir {directory}\n\
             sentinel monitor mymaster 127.0.0.1 {port} 1\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program("redis-server"));
        command.arg(&file).arg("--sentinel");
        command
    });
    works("sentinel", server.address());
}

/// If it fails, the page has a recipe for MQTT that Mosquitto refuses.
#[test]
fn mosquitto() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mosquitto.conf");
    let server = Server::start(|address| {
        let listener = format!("listener {} 127.0.0.1\nallow_anonymous true\n", address.port());
        std::fs::write(&file, listener).unwrap();
        let mut command = Command::new(program("mosquitto"));
        command.arg("-c").arg(&file);
        command
    });
    works("mqtt", server.address());
}

/// If it fails, the page has a recipe for memcached that does not work.
#[test]
fn memcached() {
    let server = Server::start(|address| {
        let mut command = Command::new(program("memcached"));
        command.args(["-u", "root", "-l", "127.0.0.1", "-p", &address.port().to_string()]);
        command
    });
    works("memcached", server.address());
}

/// If it fails, the page has a recipe for LDAP that slapd refuses.
#[test]
fn slapd() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slapd.conf");
    let pid = directory.path().join("pid");
    let text = format!(
        "modulepath /usr/lib/ldap\nmoduleload back_null\npidfile {}\ndatabase null\n\
         suffix \"\"\n",
        pid.display()
    );
    std::fs::write(&file, text).unwrap();
    let server = Server::start(|address| {
        let mut command = Command::new(program("slapd"));
        command.args(["-d", "0", "-f"]).arg(&file).arg("-h").arg(format!("ldap://{address}/"));
        command
    });
    works("ldap", server.address());
}

/// If it fails, the page has a recipe for SSH that does not work.
#[test]
fn sshd() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let mut keygen = Command::new(program("ssh-keygen"));
    text_of(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
    if geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd").unwrap();
    }
    let server = Server::start(|address| {
        let mut command = Command::new(program("sshd"));
        command.args(["-D", "-e", "-f", "/dev/null", "-o", "ListenAddress=127.0.0.1"]);
        command.arg(format!("-oHostKey={}", key.display()));
        command.arg(format!("-oPort={}", address.port()));
        // So many at once are more than it takes of unauthenticated clients by default.
        command.args(["-o", "MaxStartups=100", "-o", "PidFile=none"]);
        command
    });
    works("ssh", server.address());
}

/// If it fails, the page has a recipe for HTTPS that nginx refuses.
#[test]
fn https() {
    let server = Nginx::start_with("secret", certified);
    works("https", server.address());
}

/// If it fails, the page has a recipe for PostgreSQL that does not work.
#[test]
fn postgresql() {
    let directory = tempfile::tempdir().unwrap();
    let server = postgres::serve(directory.path());
    works("postgresql", server.address());
}

/// If it fails, the page has a recipe that `check` refuses.
#[test]
fn every_recipe_is_accepted() {
    let names: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("[pool.")?.strip_suffix(".health]"))
        .collect();
    assert!(names.len() >= 14, "{names:?}");
    let refusing = Backend::refusing();
    for name in names {
        let proxy = probed(refusing.address(), name);
        wait_for_state(&proxy, "down");
        assert!(!proxy.said().contains("no effect"), "{name}: {}", proxy.said());
    }
}
