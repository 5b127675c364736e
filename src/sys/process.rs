//! What this process is allowed to use: CPUs, descriptors, memory.
//!
//! Read at start, to size the worker pool and the session limit. See getrlimit(2),
//! sched_setaffinity(2), cgroups(7), proc_sys_net(5), and the
//! kernel's cgroup-v2.rst and sched-bwc.rst.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs this process may run on, in ascending order.
///
/// # Errors
/// As sched_getaffinity(2).
pub fn usable_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Binds the calling thread to one CPU.
///
/// # Errors
/// As sched_setaffinity(2); `EINVAL` when the CPU is not usable.
pub fn pin_thread(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the soft descriptor limit to the hard one and returns what is then allowed.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The memory this process may use by its cgroup, in bytes; `None` when nothing bounds it.
#[must_use]
pub fn memory_limit_bytes() -> Option<u64> {
    groups_of_this_process("memory")
        .iter()
        .filter_map(|group| match group {
            ControlGroup::V1(path) => number(&format!("{path}/memory.limit_in_bytes")),
            ControlGroup::V2(path) => number(&format!("{path}/memory.max")),
        })
        // cgroup v1 writes "no limit" as a number near 2^63.
        .filter(|bytes| *bytes < 1 << 60)
        .min()
}

/// The CPUs this process's cgroup grants time for, rounded up; `None` when nothing bounds it.
#[must_use]
pub fn cpu_quota() -> Option<usize> {
    groups_of_this_process("cpu")
        .iter()
        .filter_map(|group| match group {
            ControlGroup::V1(path) => {
                let quota = number(&format!("{path}/cpu.cfs_quota_us"))?;
                whole_cpus(quota, number(&format!("{path}/cpu.cfs_period_us"))?)
            }
            ControlGroup::V2(path) => {
                cpu_max(&std::fs::read_to_string(format!("{path}/cpu.max")).ok()?)
            }
        })
        .min()
}

/// What a cpu.max grants: `QUOTA PERIOD`, and QUOTA may be `max`.
fn cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota.parse().ok()?, period.parse().ok()?)
}

fn whole_cpus(quota: u64, period: u64) -> Option<usize> {
    let cpus = (period > 0).then(|| quota.div_ceil(period))?;
    usize::try_from(cpus).ok().filter(|cpus| *cpus > 0)
}

/// The one number in a file; `None` when it is a word or negative, which both mean "no limit".
fn number(file: &str) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The directory of a control group, by the version of its hierarchy.
#[derive(Debug, PartialEq, Eq)]
enum ControlGroup {
    V1(String),
    V2(String),
}

fn groups_of_this_process(controller: &str) -> Vec<ControlGroup> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    enclosing_groups(&membership, controller)
}

/// The groups of a process and every group above them that limit what `controller` is for.
fn enclosing_groups(membership: &str, controller: &str) -> Vec<ControlGroup> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == controller) {
            continue;
        }
        let mut group = path.trim_end_matches('/');
        loop {
            groups.push(if is_v2 {
                ControlGroup::V2(format!("/sys/fs/cgroup{group}"))
            } else {
                ControlGroup::V1(format!("/sys/fs/cgroup/{controller}{group}"))
            });
            match group.rfind('/') {
                Some(parent) => group = &group[..parent],
                None => break,
            }
        }
    }
    groups
}

/// The range from which the kernel takes source ports; the kernel's default when unreadable.
#[must_use]
pub fn ephemeral_ports() -> (u16, u16) {
    let parse = |text: String| {
        let mut numbers = text.split_whitespace().map(str::parse::<u16>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(parse)
        .unwrap_or((32768, 60999))
}

/// How many ports the kernel has to choose from for one address towards another: those of
/// [`ephemeral_ports`] that are not reserved.
#[must_use]
pub fn source_ports() -> u32 {
    let reserved = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
    let (first, last) = ephemeral_ports();
    unreserved(first..=last, &reserved.unwrap_or_default())
}

/// Ports of a range that are not in a list such as `8080,9000-9100`.
fn unreserved(ports: RangeInclusive<u16>, reserved: &str) -> u32 {
    let ranges: Vec<(u16, u16)> = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((from.parse().ok()?, to.parse().ok()?))
        })
        .collect();
    let is_free = |port: &u16| !ranges.iter().any(|(from, to)| (from..=to).contains(&port));
    u32::try_from(ports.filter(is_free).count()).unwrap_or(u32::MAX)
}

/// The lowest port that every process may listen on.
#[must_use]
pub fn unprivileged_port_start() -> u16 {
    let start = sysctl_number("net/ipv4/ip_unprivileged_port_start");
    start.and_then(|start| u16::try_from(start).ok()).unwrap_or(1024)
}

/// Whether this process may listen on any port.
#[must_use]
pub fn may_take_any_port() -> bool {
    rustix::process::geteuid().is_root()
        || std::fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| has_capability(&status, CAP_NET_BIND_SERVICE))
}

/// Whether this process may load programs and make maps: CAP_BPF (Linux 5.8), or CAP_SYS_ADMIN. A
/// filter of system calls can still keep bpf(2) away.
#[must_use]
pub fn may_load_programs() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    [CAP_BPF, CAP_SYS_ADMIN].iter().any(|capability| has_capability(&status, *capability))
}

/// See capabilities(7) and linux/capability.h.
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Whether the effective set of a /proc/PID/status has a capability.
fn has_capability(status: &str, capability: u32) -> bool {
    let mut lines = status.lines().filter_map(|line| line.strip_prefix("CapEff:"));
    let effective = lines.next().and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> capability & 1 == 1)
}

/// A kernel setting below /proc/sys that is one number.
#[must_use]
pub fn sysctl_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok()
}

/// SYNs and handshakes that the kernel has dropped in this network namespace because a listening
/// socket could not take them (`ListenDrops` of /proc/net/netstat); `None` when unreadable.
#[must_use]
pub fn listen_drops() -> Option<u64> {
    named_counter(&std::fs::read_to_string("/proc/net/netstat").ok()?, "ListenDrops")
}

/// A counter of a file that has lines of names, each before a line of values.
fn named_counter(text: &str, wanted: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    let counters = lines.chunks_exact(2).flat_map(|pair| match pair {
        [names, values] => names.split_whitespace().zip(values.split_whitespace()).collect(),
        _ => Vec::new(),
    });
    counters.into_iter().find(|(name, _)| *name == wanted)?.1.parse().ok()
}

/// The kernel's own monotonic time, by which it tells programs the time (bpf_ktime_get_ns): a
/// process in a time namespace sees CLOCK_MONOTONIC ahead of it or behind (time_namespaces(7)).
#[must_use]
pub fn kernel_time() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Not rustix's: it reads the vDSO by itself, which crashes under Valgrind.
    // SAFETY: the pointer is to a live `timespec`, which the call fills in. It does not fail for
    // this clock, and a time of zero is one in which nothing has been entered.
    let _never = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let nanos = i128::from(now.tv_sec) * NANOS_PER_SECOND + i128::from(now.tv_nsec);
    // Without the file the kernel knows no such namespaces.
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let own = nanos - monotonic_offset(&offsets).unwrap_or(0);
    Duration::from_nanos(u64::try_from(own.max(0)).unwrap_or(u64::MAX))
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Nanoseconds by which CLOCK_MONOTONIC is ahead of the kernel's, by the file `timens_offsets`.
fn monotonic_offset(offsets: &str) -> Option<i128> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut numbers = line.split_whitespace().map(str::parse::<i128>);
    let (seconds, nanos) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(seconds * NANOS_PER_SECOND + nanos)
}

/// The name of this host; empty when the kernel has none.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// A descriptor held back so that one can be freed when the process has run out of them.
///
/// # Errors
/// As open(2).
pub fn reserve_descriptor() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}

/// Resident memory of this process in bytes; 0 when /proc cannot be read.
#[must_use]
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// The kernel's id of the calling thread.
#[must_use]
pub fn thread_id() -> u64 {
    u64::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0)
}

/// CPU time a thread of this process has used, in nanoseconds; 0 when it is gone.
///
/// Read from schedstat, so that the thread itself need not read a clock twice a turn.
#[must_use]
pub fn thread_cpu_ns(thread: u64) -> u64 {
    std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Descriptors this process has open; 0 when /proc cannot be read.
#[must_use]
pub fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a ceiling set on a parent group is not seen, and the kernel kills us or stops
    // the workers.
    #[test]
    fn every_enclosing_group_is_asked() {
        let v2 = ["/system.slice/evenkeel.service", "/system.slice", ""];
        assert_eq!(
            enclosing_groups("0::/system.slice/evenkeel.service\n", "memory"),
            v2.map(|group| ControlGroup::V2(format!("/sys/fs/cgroup{group}")))
        );
        let membership = "5:cpu,cpuacct:/x\n3:memory:/a\n1:name=systemd:/y\n";
        for (controller, own) in [("memory", "/a"), ("cpu", "/x")] {
            let expected = [own, ""];
            assert_eq!(
                enclosing_groups(membership, controller),
                expected
                    .map(|group| ControlGroup::V1(format!("/sys/fs/cgroup/{controller}{group}")))
            );
        }
    }

    // If this fails, the kernel refuses clients for ever, or never, where evenkeel is in a time
    // namespace (`netns::clocks` has the whole).
    #[test]
    fn offsets_of_a_time_namespace_are_read() {
        let file = "monotonic   1000000000         5\nboottime           7         0\n";
        assert_eq!(monotonic_offset(file), Some(1_000_000_000_000_000_005));
        assert_eq!(monotonic_offset("monotonic  -2  500000000\n"), Some(-1_500_000_000));
        assert_eq!(monotonic_offset(""), None);
        assert_eq!(monotonic_offset("boottime  7  0\n"), None);
    }

    // If this fails, `check` warns of ports that may be taken, or not of those that may not.
    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = |set: &str| format!("Name:\tx\nCapPrm:\t0000000000000400\nCapEff:\t{set}\n");
        assert!(has_capability(&status("0000000000000400"), CAP_NET_BIND_SERVICE));
        assert!(has_capability(&status("000001ffffffffff"), CAP_NET_BIND_SERVICE));
        assert!(!has_capability(&status("0000000000000bff"), CAP_NET_BIND_SERVICE));
        assert!(!has_capability("", CAP_NET_BIND_SERVICE));
    }

    // If this fails, an upgrade tells another number than that of the connections lost.
    #[test]
    fn counters_stand_below_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 2 3\n\
                    IpExt: InNoRoutes\nIpExt: 4\n";
        assert_eq!(named_counter(text, "ListenDrops"), Some(3));
        assert_eq!(named_counter(text, "InNoRoutes"), Some(4));
        assert_eq!(named_counter(text, "Absent"), None);
        assert!(listen_drops().is_some());
    }

    // If this fails, sessions are promised ports that the kernel keeps for others.
    #[test]
    fn reserved_ports_are_not_counted() {
        assert_eq!(unreserved(32768..=60999, "\n"), 28_232);
        assert_eq!(unreserved(10..=19, "9-11,15,18-30\n"), 5);
        assert_eq!(unreserved(1..=u16::MAX, ""), 65_535);
        assert_eq!(unreserved(10..=19, "1-65535"), 0);
        assert_eq!(unreserved(RangeInclusive::new(19, 10), ""), 0);
    }

    // If this fails, a container with a quota of two CPUs gets a worker for each CPU of its host.
    #[test]
    fn quotas_are_whole_cpus_rounded_up() {
        let cases = [
            ("max 100000\n", None),
            ("200000 100000\n", Some(2)),
            ("150000 100000\n", Some(2)),
            ("1000 100000\n", Some(1)),
            ("0 100000\n", None),
            ("100000 0\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(cpu_max(text), expected, "{text:?}");
        }
    }
}
