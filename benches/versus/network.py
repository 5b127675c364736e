"""What lies between client, proxy and backend: loopback, or cables between namespaces.

    client --- proxy --- backend

`Loopback` is one host, where a packet never leaves the stack. `Veth` gives each side a network
namespace of its own: packets cross two virtual cables, in whole or, with offloads, as large ones.
"""
import os
import pathlib
import socket
import subprocess

from processes import Failed

RESERVED = pathlib.Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
EPHEMERAL = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
SIDES = ("client", "proxy", "backend")
OFFLOADS = ("gro", "gso", "tso", "sg", "tx")


class Loopback:
    """Everything on 127.0.0.1; the fixed ports are reserved while it is in use."""

    name = "loopback"
    proxy_host = "127.0.0.1"
    backend_host = "127.0.0.1"

    def __init__(self, first, last):
        self.ports = set(range(first, last + 1))
        self.added = set()

    def __enter__(self):
        self.must_be_free()
        low, high = map(int, EPHEMERAL.read_text().split())
        reserved = from_ranges(RESERVED.read_text())
        missing = {port for port in self.ports - reserved if low <= port <= high}
        if missing:
            try:
                RESERVED.write_text(to_ranges(reserved | missing))
            except PermissionError as error:
                what = f"connections may take our ports, they are within {low} to {high}"
                raise Failed(f"{what}: reserve them as root, or choose others by --port") from error
            self.added = missing
        return self

    def __exit__(self, *_):
        if self.added:
            # Others may have reserved some, too, in the meantime.
            RESERVED.write_text(to_ranges(from_ranges(RESERVED.read_text()) - self.added))

    def must_be_free(self):
        """Another program that listens there would be measured instead."""
        for port in sorted(self.ports):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self.proxy_host, port))
                except OSError as error:
                    raise Failed(f"port {port}: {error.strerror}; see --port") from error

    def inside(self, _side):
        """How a command gets there: it is there."""
        return []


class Veth:
    """Three namespaces in a row, gone at the end."""

    proxy_host = "10.231.1.2"
    backend_host = "10.231.2.2"

    def __init__(self, offloads):
        self.offloads = offloads
        self.name = "veth-offload" if offloads else "veth"
        self.spaces = {side: f"versus-{os.getpid()}-{side}" for side in SIDES}

    def __enter__(self):
        if os.geteuid() != 0:
            raise Failed("network namespaces need root")
        try:
            for space in self.spaces.values():
                run("ip", "netns", "add", space)
                run(*inside(space), "ip", "link", "set", "lo", "up")
            self.plug("client", "10.231.1.1", "proxy", self.proxy_host)
            self.plug("proxy", "10.231.2.1", "backend", self.backend_host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for space in self.spaces.values():
            # Gone already is as good.
            subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL, check=False)

    def plug(self, one, one_host, other, other_host):
        """A cable between two sides."""
        ends = ((one, f"to-{other}", one_host), (other, f"to-{one}", other_host))
        (_, device, _), (_, peer, _) = ends
        link = ("link", "add", "name", device, "netns", self.spaces[one])
        run("ip", *link, "type", "veth", "peer", "name", peer, "netns", self.spaces[other])
        state = "on" if self.offloads else "off"
        for side, device, host in ends:
            there = inside(self.spaces[side])
            run(*there, "ip", "address", "add", f"{host}/24", "dev", device)
            run(*there, "ip", "link", "set", device, "up")
            settings = [word for name in OFFLOADS for word in (name, state)]
            run(*there, "ethtool", "-K", device, *settings)

    def inside(self, side):
        """How a command gets into a side's namespace."""
        return inside(self.spaces[side])


def from_ranges(text):
    """Ports of `1-3,7`."""
    ports = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        ports |= set(range(int(first), int(last or first) + 1))
    return ports


def to_ranges(ports):
    """Ports as the kernel wants them; a line without any empties the list."""
    ranges = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(f"{first}-{last}" for first, last in ranges) + "\n"


def inside(space):
    """`ip netns exec` would mount another /sys, without control groups."""
    return ["nsenter", f"--net=/run/netns/{space}"]


def run(*command):
    """A command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")


def of_name(name, ports):
    """The network that `--network` names."""
    return Loopback(*ports) if name == "loopback" else Veth(name == "veth-offload")
