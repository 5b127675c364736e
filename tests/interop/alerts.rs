//! The alert rules that are shipped: each fires in the fault that it names, and none without one.
//!
//! The real program is put into the fault and scraped before and in it; promtool evaluates the
//! rules on these samples.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::in_front_of;
use crate::program::{Nginx, program, text_of};
use crate::promtool::{Scrape, Then, alerts, assert_fire, rules};
use crate::support::switched::{PROBES, switchable, wait_until};
use crate::support::systemd::activated;
use crate::support::{
    Backend, PATIENCE, Proxy, Setup, connect, connect_from, eventually, try_connect, visit,
};
use crate::tls::certified;

/// Scrapes, lets `fault` happen, scrapes again: these alerts have to fire.
#[track_caller]
fn assert_fires(proxy: &Proxy, then: Then, expected: &[&str], fault: impl FnOnce()) {
    let before = Scrape::of(proxy);
    fault();
    assert_fire([&before, &Scrape::of(proxy)], then, expected);
}

fn probes(proxy: &Proxy, backend: &str, result: &str) -> f64 {
    let labels = [("backend", backend), ("result", result)];
    proxy.metric("evenkeel_backend_probes_total", &labels)
}

/// Sessions that stay open.
fn stay(proxy: &Proxy, count: usize) -> Vec<TcpStream> {
    let clients = (0..count).map(|_| connect(proxy.address())).collect();
    proxy.wait_for_sessions(count as u64);
    clients
}

/// If it fails, an alert exists that no test has seen fire, or Prometheus does not load the file.
#[test]
fn every_rule_is_valid_and_fired_by_a_test() {
    text_of(Command::new(program("promtool")).args(["check", "rules"]).arg(rules()));
    let text = std::fs::read_to_string(rules()).unwrap();
    let alerts = alerts(&text);
    assert!(alerts.len() > 15, "{alerts:?}");
    let tests = include_str!("alerts.rs");
    let untested: Vec<_> =
        alerts.iter().filter(|alert| !tests.contains(&format!("\"{alert}\""))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

/// If it fails, an operator is called for nothing.
#[test]
fn a_healthy_process_fires_nothing() {
    let backends = [Backend::echo(), Backend::echo()];
    let health = "[pool.back.health]\nprobe = \"tcp\"\ninterval = \"20ms\"";
    let proxy = Setup::of(&[&backends[0], &backends[1]])
        .listener("max_sessions = 10")
        .limit("rate = \"1000/s\"\nmax_concurrent = 100")
        .pool("queue = { max = 10, timeout = \"1s\" }")
        .backend(1, "max_sessions = 10")
        .also(health)
        .start();
    assert_fires(&proxy, Then::GoOn, &[], || {
        for mut client in stay(&proxy, 4) {
            client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).unwrap();
        }
        for backend in ["b1", "b2"] {
            eventually("probes pass", PATIENCE, || {
                (probes(&proxy, backend, "pass") > 2.5).then_some(())
            });
        }
        assert!(proxy.reload().status.success());
    });
}

/// If it fails, no operator learns that the process is gone.
#[test]
fn a_process_that_is_gone() {
    let backend = Backend::echo();
    let mut proxy = Setup::of(&[&backend]).start();
    let before = Scrape::of(&proxy);
    proxy.signal(Signal::KILL);
    proxy.wait_for_exit();
    UnixStream::connect(proxy.admin_socket()).unwrap_err();
    assert_fire([&before, &Scrape::of_nothing()], Then::Rest, &["EvenkeelDown"]);
}

/// If it fails, a pool without a healthy backend calls no operator.
#[test]
fn all_probes_of_a_pool_fail() {
    let is_well = Arc::new(AtomicBool::new(true));
    let backends = [switchable(&is_well), switchable(&is_well)];
    let proxy = Setup::of(&[&backends[0], &backends[1]])
        .pool("panic_threshold = \"never\"")
        .also(PROBES)
        .start();
    let expected = ["EvenkeelBackendDown", "EvenkeelNotReady", "EvenkeelPoolDown"];
    assert_fires(&proxy, Then::Rest, &expected, || {
        is_well.store(false, Ordering::SeqCst);
        wait_until(&proxy, "b1", "down");
        wait_until(&proxy, "b2", "down");
    });
}

/// If it fails, a pool sends clients to backends that fail their probes, and no operator knows.
#[test]
fn a_pool_panics() {
    let (well, ill) = (Backend::echo(), Backend::refusing());
    let health = "[pool.back.health]\nprobe = \"tcp\"\ninterval = \"20ms\"";
    let proxy = Setup::of(&[&well, &ill]).pool("panic_threshold = \"50%\"").also(health).start();
    assert_fires(&proxy, Then::Rest, &["EvenkeelBackendDown", "EvenkeelPoolPanicking"], || {
        eventually("it panics", PATIENCE, || {
            (proxy.metric("evenkeel_pool_panicking", &[("pool", "back")]) > 0.5).then_some(())
        });
    });
}

/// If it fails, a backend that an operator took out is forgotten, or calls one who knows it.
#[test]
fn a_drain_and_a_maintenance_are_forgotten() {
    let (well, drained, ill) = (Backend::echo(), Backend::echo(), Backend::refusing());
    let health = "[pool.back.health]\nprobe = \"tcp\"\ninterval = \"20ms\"";
    let proxy = Setup::of(&[&well, &drained, &ill]).also(health).start();
    wait_until(&proxy, "b3", "down");
    let fault = || {
        proxy.tell("back/b2", "drain");
        proxy.tell("back/b3", "maint");
    };
    assert_fires(&proxy, Then::Rest, &["EvenkeelForgottenDrain"], fault);
}

/// If it fails, a backend that goes down and up all the time calls no operator.
#[test]
fn a_backend_flaps() {
    let is_well = Arc::new(AtomicBool::new(true));
    let backend = switchable(&is_well);
    let proxy = Setup::of(&[&backend]).also(PROBES).start();
    wait_until(&proxy, "b1", "up");
    assert_fires(&proxy, Then::GoOn, &["EvenkeelBackendFlapping"], || {
        for state in ["down", "up"] {
            is_well.store(state == "up", Ordering::SeqCst);
            wait_until(&proxy, "b1", state);
        }
    });
}

/// If it fails, clients are turned away for want of a backend, and no operator knows.
#[test]
fn clients_find_no_backend() {
    let backend = Backend::refusing();
    let proxy = Setup::of(&[&backend]).start();
    let expected = ["EvenkeelNoBackend", "EvenkeelRefusals"];
    assert_fires(&proxy, Then::GoOn, &expected, || assert_eq!(visit(proxy.address()), ""));
}

/// If it fails, a limit turns a great share of clients away, and no operator knows.
#[test]
fn a_limit_refuses_clients() {
    let backend = Backend::named("one");
    let proxy = Setup::of(&[&backend]).limit("rate = \"2/h\"").start();
    assert_fires(&proxy, Then::GoOn, &["EvenkeelRefusals"], || {
        let served = (0..3).filter(|_| visit(proxy.address()) == "one").count();
        assert_eq!(served, 2);
    });
}

/// If it fails, an operator learns at the next start that the file is wrong.
#[test]
fn a_reload_is_refused() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    assert_fires(&proxy, Then::Rest, &["EvenkeelReloadRefused"], || {
        proxy.rewrite("this is no configuration");
        assert!(!proxy.reload().status.success());
    });
}

/// If it fails, an operator learns of the maximum of the process from clients that are refused.
#[test]
fn sessions_come_near_their_maximum() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).global("max_sessions = 10").start();
    let mut clients = Vec::new();
    assert_fires(&proxy, Then::Rest, &["EvenkeelSessionsNearMax"], || clients = stay(&proxy, 9));
}

/// If it fails, an operator learns of the maximum of a listener from clients that are refused.
#[test]
fn a_listener_comes_near_its_maximum() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).listener("max_sessions = 10").start();
    let mut clients = Vec::new();
    assert_fires(&proxy, Then::Rest, &["EvenkeelListenerNearMax"], || clients = stay(&proxy, 9));
}

/// If it fails, clients wait in line for a full backend, and no operator knows.
#[test]
fn a_backend_is_full_and_so_is_the_line() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend])
        .backend(1, "max_sessions = 1")
        .pool("queue = { max = 1, timeout = \"60s\" }")
        .start();
    let mut clients = Vec::new();
    assert_fires(&proxy, Then::Rest, &["EvenkeelBackendFull", "EvenkeelQueueNearMax"], || {
        clients = stay(&proxy, 2);
        proxy.wait_for_metric("evenkeel_pool_waiting", &[("pool", "back")], 1.0);
    });
}

/// If it fails, a certificate runs out before an operator looks.
#[test]
fn a_certificate_expires_soon() {
    let server = Nginx::start_with("secret", certified);
    let health = "[pool.p.health]\nprobe = \"tls\"\ninterval = \"50ms\"";
    let proxy = Proxy::start(&in_front_of(&[server.address()], health));
    assert_fires(&proxy, Then::Rest, &["EvenkeelCertificateExpires"], || {
        eventually("a probe has seen it", PATIENCE, || {
            let expiry = "evenkeel_backend_certificate_expiry_timestamp_seconds";
            (proxy.metrics().count(expiry, &[]) == 1).then_some(())
        });
    });
}

/// If it fails, the session log has gaps, and no operator knows.
#[test]
fn the_log_finds_no_room() {
    let backend = Backend::named("one");
    // A file on a disk that is full.
    let setup = Setup::of(&[&backend]).also("[global.log]\nto = \"/dev/full\"");
    let (directory, command) = Proxy::command(&setup.text());
    let proxy = Proxy::spawn(directory, command);
    eventually("it serves", PATIENCE, || UnixStream::connect(proxy.admin_socket()).ok());
    let address = proxy.document()["listeners"]["front"]["addresses"][0].clone();
    let address: SocketAddr = address.as_str().unwrap().parse().unwrap();
    let dropped = || proxy.metric("evenkeel_log_dropped_total", &[]);
    let before = dropped();
    assert_fires(&proxy, Then::GoOn, &["EvenkeelLogDropped"], || {
        assert_eq!(visit(address), "one");
        eventually("its line is lost", PATIENCE, || (dropped() > before).then_some(()));
    });
}

/// If it fails, a listener takes no clients in any more, and no operator knows.
#[test]
fn a_socket_cannot_accept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let systemds = listener.try_clone().unwrap();
    let backend = Backend::named("one");
    let config = in_front_of(&[backend.address()], "").replace("127.0.0.1:0", &address.to_string());
    let mut proxy = activated(&config, listener.into(), "listener.l");
    proxy.wait_until_serving();
    let errors = || proxy.metric("evenkeel_accept_errors_total", &[("listener", "l")]);
    assert_fires(&proxy, Then::GoOn, &["EvenkeelAcceptFails"], || {
        rustix::net::shutdown(&systemds, rustix::net::Shutdown::Read).unwrap();
        eventually("it is tried again", PATIENCE, || (errors() > 1.5).then_some(()));
    });
}

/// An strace that has one worker sleep for 5 s in its next wait; ended when dropped.
struct Delay(Child);

impl Delay {
    #[track_caller]
    fn of_a_worker(proxy: &Proxy) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
        let is_worker = |entry: &std::fs::DirEntry| {
            let name = std::fs::read_to_string(entry.path().join("comm"));
            name.is_ok_and(|name| name.starts_with("worker-"))
        };
        let worker = tasks.flatten().find(is_worker).unwrap().path();
        let mut command = Command::new(program("strace"));
        command.args(["-qq", "-o", "/dev/null", "-e", "trace=epoll_wait", "-e"]);
        command.arg("inject=epoll_wait:delay_enter=5000000:when=1");
        command.arg("-p").arg(worker.file_name().unwrap());
        let strace = Self(command.stdin(Stdio::null()).spawn().unwrap());
        let traced = format!("TracerPid:\t{}\n", strace.0.id());
        eventually("strace is attached", PATIENCE, || {
            let status = std::fs::read_to_string(worker.join("status")).unwrap();
            status.contains(&traced).then_some(())
        });
        strace
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let _gone_already = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _reaped = self.0.wait();
    }
}

/// If it fails, a worker stands still with all of its sessions, and no operator knows.
#[test]
fn a_worker_stands_still() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend]).start();
    assert_fires(&proxy, Then::GoOn, &["EvenkeelWorkerStalls"], || {
        let _delay = Delay::of_a_worker(&proxy);
        // Woken, it stalls.
        drop(try_connect(proxy.address()).unwrap());
        proxy.wait_for_metric("evenkeel_worker_stalls_total", &[], 1.0);
    });
}

/// If it fails, a limit does not hold for clients that its table has no room for, and no operator
/// knows.
#[test]
fn the_table_of_a_limit_is_full() {
    let backend = Backend::named("one");
    let proxy = Setup::of(&[&backend]).limit("rate = \"1/h\"\ntable_size = 8").start();
    assert_fires(&proxy, Then::GoOn, &["EvenkeelLimitTableFull"], || {
        for last in 1..=64 {
            let client = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            let mut stream = connect_from((client, 0), proxy.address()).unwrap();
            let _served = stream.read(&mut [0]).unwrap();
        }
    });
}
