//! Three network namespaces joined by veth, made by the test and gone with it.
//!
//! ```text
//! client 10.1.0.1-9 ── up ── 10.1.0.254 evenkeel 10.2.0.254 ── down ── 10.2.0.1-9 backend
//! ```
//!
//! A thread that has entered a namespace opens its sockets there, and so do the threads it starts;
//! evenkeel is run there by nsenter. Names carry the process id: a namespace whose process
//! is gone (a test that was killed) is removed by the next test that makes one.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::Proxy;

/// Names of the namespaces begin with this, and then the process id.
const PREFIX: &str = "ekeel";

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Evenkeel,
    Backend,
}

/// How the namespaces are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// One namespace for all three, and its loopback.
    Loopback,
    /// Two veth pairs with this MTU; with or without GRO, GSO and TSO.
    Veth { mtu: u32, offloads: bool },
}

impl Link {
    /// MTU 1500 and one packet for each segment: what a pipe sees of a real network. With
    /// `EVENKEEL_OFFLOADS` in the environment, GRO, GSO and TSO are on all the same.
    pub(crate) const PLAIN: Self = Self::Veth { mtu: 1500, offloads: false };
    /// MTU 1500 with GRO, GSO and TSO: few and large packets.
    pub(crate) const OFFLOADED: Self = Self::Veth { mtu: 1500, offloads: true };
}

/// The namespaces; removed when dropped.
#[derive(Debug)]
pub(crate) struct Net {
    names: Vec<String>,
    link: Link,
}

impl Net {
    /// Makes and joins them.
    #[track_caller]
    pub(crate) fn new(link: Link) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "network namespaces need root");
        let link = match link {
            Link::PLAIN if std::env::var_os("EVENKEEL_OFFLOADS").is_some() => Link::OFFLOADED,
            link => link,
        };
        remove_leftovers();
        let stem =
            format!("{PREFIX}{}x{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let sides: &[&str] = if link == Link::Loopback { &["a"] } else { &["c", "e", "b"] };
        let names = sides.iter().map(|side| format!("{stem}{side}")).collect();
        let net = Self { names, link };
        for name in &net.names {
            must(Command::new("ip").args(["netns", "add", name]));
            must(Command::new("ip").args(["-n", name, "link", "set", "lo", "up"]));
            must(inside(name, "sysctl").args(["-q", "-w"]).args([
                // Many short sessions between few addresses.
                "net.ipv4.tcp_tw_reuse=1",
                "net.ipv4.ip_local_port_range=10240 65535",
                "net.core.somaxconn=4096",
                "net.ipv4.tcp_max_syn_backlog=4096",
            ]));
        }
        if let Link::Veth { mtu, offloads } = link {
            if !offloads {
                // As on a machine with many sessions: a slow reader soon holds evenkeel up.
                let name = net.name(Side::Evenkeel);
                let small = "net.ipv4.tcp_wmem=4096 16384 65536";
                must(inside(name, "sysctl").args(["-q", "-w", small]));
            }
            net.join([(Side::Client, "ek-up"), (Side::Evenkeel, "ek-up")], 1, (mtu, offloads));
            net.join([(Side::Backend, "ek-down"), (Side::Evenkeel, "ek-down")], 2, (mtu, offloads));
        }
        net
    }

    /// A veth pair: `.1` to `.9` at its outer end, `.254` at evenkeel's.
    fn join(&self, ends: [(Side, &str); 2], third: u8, (mtu, offloads): (u32, bool)) {
        let [(outer, device), (inner, _)] = ends;
        let (outer, inner) = (self.name(outer), self.name(inner));
        plug([(outer, device), (inner, device)], (mtu, offloads));
        let mut batch = String::new();
        for last in 1..10 {
            batch.push_str(&format!("address add 10.{third}.0.{last}/24 dev {device}\n"));
        }
        ip_batch(outer, &batch);
        ip_batch(inner, &format!("address add 10.{third}.0.254/24 dev {device}\n"));
    }

    /// Cuts the client's cable and leads both ends into a namespace of their own, where nothing
    /// passes from one to the other unless a program forwards it. Its name; the last byte of a
    /// frame's source address tells whose it is: 1 is the client, 2 evenkeel.
    pub(crate) fn cut_open(&mut self) -> String {
        let middle = format!("{}m", self.name(Side::Client).trim_end_matches('c'));
        must(Command::new("ip").args(["netns", "add", &middle]));
        // No word of its own.
        must(inside(&middle, "sysctl").args(["-q", "-w", "net.ipv6.conf.default.disable_ipv6=1"]));
        self.run(Side::Client, "ip", &["link", "del", "ek-up"]);
        for (side, device, last) in
            [(Side::Client, "ek-c", 1..10), (Side::Evenkeel, "ek-e", 254..255)]
        {
            let (name, number) = (self.name(side), side as usize + 1);
            plug([(name, "ek-up"), (&middle, device)], (1500, false));
            let mut batch = format!("link set ek-up address 02:00:00:00:00:0{number}\n");
            for last in last {
                batch.push_str(&format!("address add 10.1.0.{last}/24 dev ek-up\n"));
            }
            ip_batch(name, &batch);
        }
        self.names.push(middle.clone());
        middle
    }

    /// The name of a side's namespace.
    pub(crate) fn name(&self, side: Side) -> &str {
        match self.names.as_slice() {
            [all] => all,
            names => &names[side as usize],
        }
    }

    /// Where evenkeel listens for clients.
    pub(crate) fn front(&self) -> SocketAddr {
        let ip = match self.link {
            Link::Loopback => Ipv4Addr::LOCALHOST,
            Link::Veth { .. } => Ipv4Addr::new(10, 1, 0, 254),
        };
        (ip, 7000).into()
    }

    /// Where the backend `number` (1 to 9) listens.
    pub(crate) fn backend(&self, number: u8) -> SocketAddr {
        let ip = match self.link {
            Link::Loopback => Ipv4Addr::LOCALHOST,
            Link::Veth { .. } => Ipv4Addr::new(10, 2, 0, number),
        };
        (ip, 8000 + u16::from(number)).into()
    }

    /// Moves the calling thread, and all it starts from now on, into a side's namespace.
    pub(crate) fn enter(&self, side: Side) {
        enter(self.name(side));
    }

    /// Runs `act` on a thread of a side.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        side: Side,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let file = File::open(Path::new("/run/netns").join(self.name(side))).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        })
    }

    /// Runs `act` on a thread of a side and waits for it.
    #[track_caller]
    pub(crate) fn on<T: Send>(&self, side: Side, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter(side);
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command on a side.
    pub(crate) fn command(&self, side: Side, program: &str) -> Command {
        inside(self.name(side), program)
    }

    /// Runs a program on a side that must succeed.
    #[track_caller]
    pub(crate) fn run(&self, side: Side, program: &str, arguments: &[&str]) {
        must(self.command(side, program).args(arguments));
    }

    /// Drops what this nft expression matches, among what arrives on a side, until [`Self::heal`].
    #[track_caller]
    pub(crate) fn drop_arriving(&self, side: Side, expression: &str) {
        self.rule(side, "input", &format!("{expression} counter drop"));
    }

    /// Like the above, for what leaves a side.
    #[track_caller]
    pub(crate) fn drop_leaving(&self, side: Side, expression: &str) {
        self.rule(side, "output", &format!("{expression} counter drop"));
    }

    /// Counts what this nft expression matches among what arrives on a
    /// side; see [`Self::counted`].
    #[track_caller]
    pub(crate) fn count_arriving(&self, side: Side, expression: &str) {
        self.rule(side, "input", &format!("{expression} counter"));
    }

    /// Packets counted since [`Self::count_arriving`].
    #[track_caller]
    pub(crate) fn counted(&self, side: Side) -> u64 {
        let listed = self.command(side, "nft").args(["list", "ruleset"]).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let (_, rest) = text.split_once("counter packets ").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    }

    #[track_caller]
    fn rule(&self, side: Side, hook: &str, statement: &str) {
        let rules = format!(
            "table inet faults {{\n chain {hook} {{\n type filter hook {hook} priority 0\n \
             {statement}\n }}\n}}\n"
        );
        feed(self.command(side, "nft").args(["-f", "-"]), &rules);
    }

    /// Ends all dropping on a side.
    #[track_caller]
    pub(crate) fn heal(&self, side: Side) {
        self.run(side, "nft", &["flush", "ruleset"]);
    }

    /// evenkeel on its side, serving at [`Self::front`], with further keys of `[global]`, of the
    /// listener and of the pool; the pool has these backends.
    #[track_caller]
    pub(crate) fn evenkeel(&self, backends: &[u8], keys: Keys<'_>) -> Proxy {
        self.evenkeel_under(&[], &self.config(backends, keys))
    }

    /// The configuration of [`Self::evenkeel`].
    pub(crate) fn config(&self, backends: &[u8], keys: Keys<'_>) -> String {
        let backends: Vec<String> = backends
            .iter()
            .map(|number| {
                format!("{{ address = \"{}\", name = \"b{number}\" }}", self.backend(*number))
            })
            .collect();
        format!(
            "[global]\n{}\n[listener.front]\nbind = [\"{}\"]\npool = \"back\"\n{}\n\
             [pool.back]\nbackends = [{}]\n{}\n",
            keys.global,
            self.front(),
            keys.listener,
            backends.join(", "),
            keys.pool,
        )
    }

    /// Like the above, started by another program (`strace`, `prlimit`), which becomes evenkeel.
    #[track_caller]
    pub(crate) fn evenkeel_under(&self, wrapper: &[&str], config: &str) -> Proxy {
        let (directory, plain) = Proxy::command(config);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name(Side::Evenkeel))).args(wrapper);
        command.arg(plain.get_program()).args(plain.get_args());
        let mut proxy = Proxy::spawn(directory, command);
        proxy.wait_until_serving();
        proxy
    }
}

/// Further keys of a configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Keys<'a> {
    pub(crate) global: &'a str,
    pub(crate) listener: &'a str,
    pub(crate) pool: &'a str,
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            remove(name);
        }
    }
}

/// Moves the calling thread, and all it starts from now on, into a namespace.
pub(crate) fn enter(name: &str) {
    let file = File::open(Path::new("/run/netns").join(name)).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// A command in a namespace. `ip netns exec` would mount another /sys, without control groups.
pub(crate) fn inside(name: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{name}")).arg(program);
    command
}

/// A veth pair between two namespaces, both ends up.
fn plug(ends: [(&str, &str); 2], (mtu, offloads): (u32, bool)) {
    let [(outer, device), (inner, other)] = ends;
    must(
        Command::new("ip")
            .args(["link", "add", "name", device, "netns", outer])
            .args(["type", "veth", "peer", "name", other, "netns", inner]),
    );
    for (name, device) in ends {
        ip_batch(name, &format!("link set {device} mtu {mtu} up\n"));
        if !offloads {
            must(
                inside(name, "ethtool")
                    .args(["-K", device])
                    .args(["gro", "off", "gso", "off", "tso", "off", "sg", "off", "tx", "off"]),
            );
        }
    }
}

fn remove(name: &str) {
    // Gone already is as good.
    let _gone = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('x'));
        if let Some((owner, _)) = owner
            && owner.parse::<u32>().is_ok()
            && !Path::new("/proc").join(owner).exists()
        {
            remove(&name);
        }
    }
}

#[track_caller]
fn ip_batch(namespace: &str, lines: &str) {
    feed(Command::new("ip").args(["-n", namespace, "-batch", "-"]), lines);
}

#[track_caller]
fn feed(command: &mut Command, input: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("{command:?}: {error}; scripts/install-test-tools.sh installs it")
        });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}\n{input}");
}

/// Runs a program that must succeed.
#[track_caller]
pub(crate) fn must(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/install-test-tools.sh"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
