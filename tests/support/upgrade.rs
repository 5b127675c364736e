//! Upgrades of the program under test, and what the kernel tells of the sockets of its processes.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::proxy::FOREIGN;
use super::{PATIENCE, Proxy, eventually, verbs, within};

/// A process that an upgrade has started; killed when dropped.
pub struct Heir(Pid);

impl Heir {
    /// The process that answers the admin socket of `proxy` now. This process has to be a
    /// [`reaper`] by then.
    #[track_caller]
    pub fn of(proxy: &Proxy) -> Self {
        Self(Pid::from_raw(i32::try_from(proxy.status().pid).unwrap()).unwrap())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        u32::try_from(self.0.as_raw_nonzero().get()).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.0, signal).unwrap();
    }

    /// Waits until it has ended; the process that started it has to have ended before.
    #[track_caller]
    pub fn wait_for_exit(&self) -> WaitStatus {
        let ended = eventually("the new process ends", PATIENCE, || {
            waitpid(Some(self.0), WaitOptions::NOHANG).unwrap()
        });
        ended.1
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        let _gone_already = kill_process(self.0, Signal::KILL);
        // It is reaped here, or by the process that started it.
        let is_gone = || waitpid(Some(self.0), WaitOptions::NOHANG).map(|it| it.is_some());
        within(PATIENCE, || is_gone().unwrap_or(true).then_some(()));
    }
}

/// Makes this process the parent of those whose parent ends.
pub fn reaper() {
    rustix::process::set_child_subreaper(Pid::from_raw(1)).unwrap();
}

impl Proxy {
    /// Runs the `upgrade` verb.
    pub fn upgrade(&self, arguments: &[&str]) -> Output {
        self.upgrade_command(arguments).output().unwrap()
    }

    /// The `upgrade` verb, not started.
    pub fn upgrade_command(&self, arguments: &[&str]) -> std::process::Command {
        let socket = self.admin_socket();
        let mut command = verbs::command(&["upgrade", "--socket", socket.to_str().unwrap()]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
    }

    /// Upgrades to the program it is, and gives the new process and what the verb told.
    #[track_caller]
    pub fn upgraded(&self) -> (Heir, String) {
        self.upgraded_with(&[])
    }

    /// The same with these arguments.
    #[track_caller]
    pub fn upgraded_with(&self, arguments: &[&str]) -> (Heir, String) {
        let output = self.upgrade(arguments);
        let told = verbs::text(&output.stdout);
        let refused = verbs::text(&output.stderr);
        assert!(output.status.success(), "{told}{refused}\n{}", self.said());
        (Heir::of(self), told)
    }
}

/// Inodes of the sockets that listen on these TCP addresses, which must be of IPv4.
pub fn listening(addresses: &[SocketAddr]) -> BTreeSet<u64> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let wanted: BTreeSet<String> = addresses.iter().map(shown).collect();
    let listens = rows.filter(|row| row[3] == "0A" && wanted.contains(row[1]));
    listens.map(|row| row[9].parse().unwrap()).collect()
}

/// An address of IPv4 as /proc/net/tcp has it: as a number of this machine.
pub fn shown(address: &SocketAddr) -> String {
    let SocketAddr::V4(v4) = address else { panic!("{address} is not IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port())
}

/// Inodes of the sockets that a process has.
pub fn sockets_of(pid: u32) -> BTreeSet<u64> {
    let links = links_of(pid);
    let inode = |link: &str| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    links.iter().filter_map(|(_, link)| inode(link)).collect()
}

/// Those of `wanted` that each epoll instance of a process hears of, without the instances that
/// hear of none; sorted.
pub fn heard_of(pid: u32, wanted: &BTreeSet<u64>) -> Vec<BTreeSet<u64>> {
    let links = links_of(pid);
    let instances = links.iter().filter(|(_, link)| link.contains("[eventpoll]"));
    let mut heard: Vec<BTreeSet<u64>> = instances
        .map(|(number, _)| {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let info = info.unwrap_or_default();
            let inodes = info.lines().filter_map(|line| {
                let (_, after) = line.split_once("ino:")?;
                u64::from_str_radix(after.split_whitespace().next()?, 16).ok()
            });
            inodes.filter(|inode| wanted.contains(inode)).collect()
        })
        .filter(|heard: &BTreeSet<u64>| !heard.is_empty())
        .collect();
    heard.sort();
    heard
}

/// The descriptors of a process, by number, and what each is.
fn links_of(pid: u32) -> Vec<(String, String)> {
    let entries = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).unwrap();
    // A descriptor may be closed between two looks.
    let links = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let link = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().into_string().ok()?, link.to_str()?.to_owned()))
    });
    links.collect()
}
