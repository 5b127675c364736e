//! The metrics that Prometheus' own libraries give of a process, under their usual names.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use crate::sys::process;

use crate::control::plane::state::Plane;
use crate::control::tell::metrics::family::{counter, gauge};

/// CPU time, memory, descriptors, start.
pub(crate) fn encode_process(encoder: &mut DescriptorEncoder<'_>, plane: &Plane) -> fmt::Result {
    let mut family = counter(encoder, "process_cpu_seconds", "CPU time, user and system")?;
    family.encode_counter::<[(&str, &str); 0], f64, u64>(&cpu_seconds(), None)?;
    gauge(encoder, "process_resident_memory_bytes", "Resident memory")?
        .encode_gauge(&process::resident_bytes())?;
    gauge(encoder, "process_open_fds", "Open descriptors")?
        .encode_gauge(&process::open_descriptors())?;
    gauge(encoder, "process_max_fds", "Descriptors that may be open")?
        .encode_gauge(&plane.sizes.descriptors)?;
    gauge(encoder, "process_start_time_seconds", "When the process started, Unix time")?
        .encode_gauge(&plane.started_at)
}

/// CPU time of all threads; 0 when /proc cannot be read.
#[allow(clippy::cast_precision_loss, reason = "ticks of centuries are below 2^53")]
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks_of(&text) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// utime and stime of proc_pid_stat(5): fields 14 and 15, counted after the name, which may hold
/// anything and is field 2.
fn ticks_of(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, CPU time is read from another field of the kernel's line.
    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20";
        assert_eq!(ticks_of(stat), 154);
        assert_eq!(ticks_of(""), 0);
        assert!(cpu_seconds() >= 0.0);
    }
}
