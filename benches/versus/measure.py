"""What the kernel says of time and memory, before and after.

The CPU time of a proxy is that of all its threads and its children's (`schedstat`, nanoseconds);
of the whole system, what `/proc/stat` counts as not idle, without what the host took away (steal),
in hundredths of a second. On a quiet machine the second shows what the first leaves out: work that
the kernel does for a proxy in the name of other processes.
"""
import dataclasses
import os
import pathlib
import re

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Reading:
    """One look at the clocks, in nanoseconds."""

    proxy: int
    system: int
    stolen: int

    def since(self, before):
        """What has been spent since another reading."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(before))
        return Reading(*(now - then for now, then in pairs))


def family(pid):
    """A process and its descendants: nginx works in a child."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += family(int(child))
    return pids


def proxy_ns(pid):
    """CPU time of a process, its threads and children."""
    total = 0
    for member in family(pid):
        for task in pathlib.Path(f"/proc/{member}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def read(pid):
    """All clocks now."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
    busy = user + nice + system + irq + softirq
    return Reading(proxy_ns(pid), busy * TICK_NS, steal * TICK_NS)


def resident_bytes(pid):
    """Memory of a process and its children that is in RAM.

    Without pages of files: code that runs for the first time is no memory of a session, and how
    much of it comes at once depends on what the kernel has in its cache.
    """
    total = 0
    for member in family(pid):
        status = pathlib.Path(f"/proc/{member}/status").read_text()
        for kind in ("RssAnon", "RssShmem"):
            total += int(re.search(rf"{kind}:\s+(\d+)", status).group(1))
    return total * 1024
