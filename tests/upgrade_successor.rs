//! A new process that the test itself hands over to: what it takes, when it begins, and what it
//! does with a predecessor that fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use evenkeel::sys::channel::{Channel, PACKET_DESCRIPTORS_MAX};
use evenkeel::sys::process::{raise_descriptor_limit, sysctl_number};
use evenkeel::sys::sealed::sealed;
use evenkeel::sys::socket::{self, KeepaliveOptions, ListenOptions};
use serde_json::{Value, json};
use support::upgrade::{heard_of, listening, sockets_of};
use support::{Backend, PATIENCE, Proxy, Setup, connect, eventually, read_line, visit};

/// Clients whose handshake is complete and that no process has accepted.
const QUEUED: usize = 1_000;

fn until() -> Instant {
    Instant::now() + PATIENCE
}

fn options() -> ListenOptions {
    let second = Duration::from_secs(1);
    ListenOptions {
        backlog: 4_096,
        keepalive: KeepaliveOptions { idle: 60 * second, interval: 10 * second, count: 3 },
        user_timeout: None,
        fast_open: false,
        defer_accept: false,
        mptcp: false,
        freebind: false,
    }
}

/// Two sockets of two workers on one address, from which nothing accepts.
fn paused() -> (Vec<OwnedFd>, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let sockets = socket::listen(any, 2, &options()).unwrap();
    let address = socket::local_address(sockets[0].as_fd()).unwrap();
    (sockets, address)
}

/// A process that was started to take over from this one.
struct Started {
    channel: Channel,
    proxy: Proxy,
}

impl Started {
    /// With a file that listens where [`paused`] sockets do.
    fn on(address: SocketAddr, backend: &Backend) -> Self {
        let setup = Setup::of(&[backend]).global("workers = 2");
        Self::with(&setup.listener(&format!("bind = [\"{address}\"]")).text())
    }

    fn with(config: &str) -> Self {
        let (channel, theirs) = Channel::pair().unwrap();
        let (directory, mut command) = Proxy::command(config);
        command.env("EVENKEEL_UPGRADE_FROM", std::process::id().to_string());
        command.stdin(Stdio::from(theirs));
        Self { channel, proxy: Proxy::spawn(directory, command) }
    }

    fn say(&self, what: &Value, descriptors: &[&OwnedFd]) {
        let descriptors: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
        self.channel.send(what.to_string().as_bytes(), &descriptors, until()).unwrap();
    }

    /// What it says next; `None` once it has ended.
    fn hear(&self) -> Option<Value> {
        let packet = self.channel.receive(until()).unwrap()?;
        Some(serde_json::from_slice(&packet.bytes).unwrap())
    }

    /// Opens with this protocol and a manifest of these sockets on an address.
    fn open(&self, protocol: u32, address: SocketAddr, sockets: usize) {
        let place = json!({ "ip": address });
        let manifest = json!({
            "addresses": [{
                "asked": place, "repeat": 0, "real": place, "is_multipath": false,
                "is_shared": false,
                "file": null, "sockets": sockets,
            }],
            "control": null,
            "page": null,
        });
        let manifest = sealed(manifest.to_string().as_bytes()).unwrap();
        self.say(&json!({ "protocol": protocol, "version": "9.9.9" }), &[&manifest]);
    }

    /// Passes everything on, up to the moment when it is ready.
    fn pass(&self, address: SocketAddr, sockets: &[OwnedFd]) {
        self.open(1, address, sockets.len());
        for some in sockets.chunks(PACKET_DESCRIPTORS_MAX) {
            self.say(&json!("sockets"), &some.iter().collect::<Vec<_>>());
            let cookies: Vec<u64> =
                some.iter().map(|one| socket::cookie(one.as_fd()).unwrap()).collect();
            assert_eq!(self.hear().unwrap(), json!({ "taken": { "cookies": cookies } }));
        }
        let ready = self.hear().unwrap();
        assert!(ready["ready"]["version"].is_string(), "{ready}");
    }

    /// Why it refuses; it has ended then.
    #[track_caller]
    fn refused(mut self) -> String {
        let said = self.hear().unwrap();
        assert_eq!(self.proxy.wait_for_exit().code(), Some(1), "{}", self.proxy.said());
        said["refused"]["reason"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

/// Says "one" to as many at once: its accept queue has room for all of them.
fn patient_backend() -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = socket::listen(any, 1, &options()).unwrap().pop().unwrap();
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A client may have gone when the test has failed.
            let _gone = stream.write_all(b"one\n");
            kept.push(stream);
        }
    });
    address
}

fn queue(address: SocketAddr) -> Vec<TcpStream> {
    raise_descriptor_limit().unwrap();
    (0..QUEUED).map(|_| connect(address)).collect()
}

// If this fails, clients that wait in the accept queues are reset by an upgrade.
#[test]
fn completed_handshakes_in_paused_queues_are_served() {
    let (sockets, address) = paused();
    let started = Started::with(&format!(
        "[global]\nworkers = 2\n[listener.front]\nbind = [\"{address}\"]\npool = \"p\"\n\
         [pool.p]\nbackends = [\"{}\"]\n",
        patient_backend()
    ));
    started.pass(address, &sockets);
    let mut waiting = queue(address);
    started.say(&json!("begin"), &[]);
    let accepting = started.hear().unwrap();
    assert_eq!(accepting, json!({ "accepting": { "has_control": false, "opened": 0 } }));
    drop(sockets);
    started.say(&json!("lead"), &[]);
    for client in &mut waiting {
        assert_eq!(read_line(client).unwrap(), "one");
    }
}

// If this fails, the test above would pass without a hand-over: to bind anew and to close the old
// sockets loses each client that waits there, unless the kernel migrates them.
#[test]
fn without_a_hand_over_each_of_them_is_lost() {
    let (sockets, address) = paused();
    let mut waiting = queue(address);
    let _new = socket::listen_beside(address, 2, &options()).unwrap();
    drop(sockets);
    for client in &mut waiting {
        client.set_nonblocking(true).unwrap();
    }
    let is_reset = |client: &mut TcpStream| {
        client
            .read(&mut [0])
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    };
    let lost = waiting.iter_mut().filter_map(|client| is_reset(client).then_some(())).count();
    let migrates = sysctl_number("net/ipv4/tcp_migrate_req") == Some(1);
    assert_eq!(lost, if migrates { 0 } else { QUEUED });
}

// If this fails, a new process takes clients before the old one knows that it can serve them.
#[test]
fn nothing_is_accepted_before_it_is_told_to() {
    let backend = Backend::named("one");
    let (sockets, address) = paused();
    let started = Started::on(address, &backend);
    started.pass(address, &sockets);
    let inodes = listening(&[address]);
    assert_eq!(inodes.len(), 2);
    assert!(inodes.is_subset(&sockets_of(started.proxy.pid())), "they are there");
    assert!(heard_of(started.proxy.pid(), &inodes).is_empty());
    started.say(&json!("begin"), &[]);
    started.hear().unwrap();
    let each: Vec<BTreeSet<u64>> = inodes.iter().map(|inode| [*inode].into()).collect();
    assert_eq!(heard_of(started.proxy.pid(), &inodes), each);
}

// If this fails, the end of the old process in the middle of an upgrade leaves a process behind
// that serves nothing, or ends the one that could serve.
#[test]
fn a_predecessor_that_ends_is_survived_once_the_new_process_was_to_begin() {
    let backend = Backend::named("one");
    for step in 0..3 {
        let (sockets, address) = paused();
        let mut started = Started::on(address, &backend);
        match step {
            0 => {}
            1 => started.open(1, address, 2),
            _ => started.pass(address, &sockets),
        }
        let (gone, _theirs) = Channel::pair().unwrap();
        drop(std::mem::replace(&mut started.channel, gone));
        let status = started.proxy.wait_for_exit();
        assert_eq!(status.code(), Some(1), "step {step}: {}", started.proxy.said());
        assert!(started.proxy.said().contains("the process before has ended"), "step {step}");
    }
    for hears in [false, true] {
        let (sockets, address) = paused();
        let started = Started::on(address, &backend);
        started.pass(address, &sockets);
        started.say(&json!("begin"), &[]);
        if hears {
            started.hear().unwrap();
        }
        let Started { channel, mut proxy } = started;
        drop((channel, sockets));
        proxy.wait_until_serving();
        proxy.wait_for_line("going on alone");
        assert_eq!(visit(address), "one");
        assert!(proxy.stop().success());
    }
}

// If this fails, a new process serves with something else than it was said to get.
#[test]
fn what_cannot_be_understood_is_refused() {
    let backend = Backend::named("one");
    let (sockets, address) = paused();
    let of_another_version = Started::on(address, &backend);
    of_another_version.open(99, address, 2);
    let reason = of_another_version.refused();
    assert!(reason.contains("speaks protocol 99") && reason.contains("restart"), "{reason}");

    let elsewhere = Started::on(address, &backend);
    let (others, _) = paused();
    elsewhere.open(1, address, 2);
    elsewhere.say(&json!("sockets"), &others.iter().collect::<Vec<_>>());
    assert!(elsewhere.hear().unwrap()["taken"].is_object());
    let reason = elsewhere.refused();
    assert!(reason.contains(&format!("does not listen on {address}")), "{reason}");

    let unsealed = Started::on(address, &backend);
    unsealed.say(&json!({ "protocol": 1, "version": "1" }), &[&sockets[0]]);
    assert!(unsealed.refused().contains("no sealed file"));
}

// If this fails, an upgrade to a file that is refused does not tell what is wrong with it.
#[test]
fn a_file_that_is_refused_is_told() {
    let (sockets, address) = paused();
    let mut started = Started::with("[global]\nworkers = \"many\"\n");
    started.open(1, address, 2);
    started.say(&json!("sockets"), &sockets.iter().collect::<Vec<_>>());
    assert!(started.hear().unwrap()["taken"].is_object());
    let said = started.hear().unwrap();
    assert!(said["refused"]["reason"].as_str().unwrap().contains("workers"), "{said}");
    assert_eq!(started.proxy.wait_for_exit().code(), Some(78));
    // Its sockets are those of this process still.
    eventually("they listen", PATIENCE, || (listening(&[address]).len() == 2).then_some(()));
}

// If this fails, a variable that was left over makes a process wait for a predecessor it has not.
#[test]
fn a_process_that_nothing_was_passed_to_says_so() {
    for (caller, why) in [("1", "no end of such a channel"), ("", "no end of such a channel")] {
        let (directory, mut command) = Proxy::command("[global]\n");
        command.env("EVENKEEL_UPGRADE_FROM", caller).stdin(Stdio::null());
        let mut proxy = Proxy::spawn(directory, command);
        assert_eq!(proxy.wait_for_exit().code(), Some(1));
        assert!(proxy.said().contains(why), "{}", proxy.said());
    }
}
