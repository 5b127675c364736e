//! What this process is allowed to use: CPUs, descriptors, memory.
//!
//! Read at start, to size the worker pool and the session limit. See getrlimit(2),
//! sched_setaffinity(2), cgroups(7), proc_sys_net(5).

use std::io;
use std::os::fd::OwnedFd;

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
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit_files(&membership)
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        // cgroup v1 writes "no limit" as a number near 2^63.
        .filter(|bytes| *bytes < 1 << 60)
        .min()
}

/// The limit files of a process and of every group above it, for both cgroup versions.
fn memory_limit_files(membership: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let mut group = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{group}/{file}"));
            match group.rfind('/') {
                Some(parent) => group = &group[..parent],
                None => break,
            }
        }
    }
    files
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

/// A kernel setting below /proc/sys that is one number.
#[must_use]
pub fn sysctl_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().parse().ok()
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

    // If this fails, a memory ceiling set on a parent group is not seen and the kernel kills us.
    #[test]
    fn every_enclosing_group_is_asked() {
        assert_eq!(
            memory_limit_files("0::/system.slice/evenkeel.service\n"),
            [
                "/sys/fs/cgroup/system.slice/evenkeel.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            memory_limit_files("5:cpu:/x\n3:memory:/a\n"),
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
    }
}
