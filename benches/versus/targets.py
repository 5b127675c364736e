"""The proxies that are compared, and the backend behind them: how each is started and named."""
import os
import pathlib
import re
import shutil
import subprocess

import configurations
from processes import Failed

NAMES = ("evenkeel", "haproxy", "haproxy-tuned", "nginx", "envoy", "bare", "evenkeel-spin")
# For `--proxy-cpu 0,1 --other-cpu 0,1`: what a second worker adds where client and backend share
# the cores. Measured only when they are asked for.
IN_PAIRS = ("evenkeel-2", "haproxy-2")
ALL = NAMES + IN_PAIRS
TITLES = {
    "evenkeel": "evenkeel",
    "haproxy": "HAProxy",
    "haproxy-tuned": "HAProxy, tuned",
    "nginx": "nginx stream",
    "envoy": "Envoy",
    "bare": "bare relay",
    "evenkeel-spin": "evenkeel, spin",
    "evenkeel-2": "evenkeel, 2 workers",
    "haproxy-2": "HAProxy, 2 threads",
}
# Ports of one target above the first one of all.
LISTENERS = ("web", "limited", "small")
BACKEND_OFFSET = 100
FILES = (("tiny", 64), ("16k", 16 << 10), ("1m", 1 << 20), ("64m", 1 << 26))
PATIENCE = 30
REMEDY = "scripts/install-versus-tools.sh installs it, or leave it out by --only"


class Targets:
    """Backend and proxies of one run."""

    def __init__(self, children, options, names):
        self.children = children
        self.options = options
        self.names = names
        self.directory = children.directory
        self.load = options.built / "examples" / "load"

    def place(self, name, listener="web"):
        """Address and port where a target listens."""
        number = ALL.index(name) * len(LISTENERS) + LISTENERS.index(listener)
        return f"{self.children.network.proxy_host}:{self.options.port + number}"

    def backend(self, number=0):
        """Address and port of a server behind: that of most loads, or the one that is idle."""
        host = self.children.network.backend_host
        return f"{host}:{self.options.port + BACKEND_OFFSET + number}"

    def write(self, name, text):
        """A configuration in the directory of the run."""
        path = self.directory / name
        path.write_text(text)
        return path

    def command(self, name):
        """The command line of a target, with its configuration written."""
        places = {listener: self.place(name, listener) for listener in LISTENERS}
        places |= {"dir": self.directory, "backend": self.backend(), "idle": self.backend(1)}
        threads = 2 if name in IN_PAIRS else 1
        if name in ("evenkeel", "evenkeel-spin", "evenkeel-2"):
            places["socket"] = f"{name}.sock"
            text = configurations.evenkeel(places, threads, name == "evenkeel-spin")
            return [self.options.binary, "run", "-c", self.write(f"{name}.toml", text)]
        if name in ("haproxy", "haproxy-tuned", "haproxy-2"):
            text = configurations.haproxy(places, threads, name == "haproxy-tuned")
            return [program("haproxy"), "-f", self.write(f"{name}.cfg", text), "-db"]
        if name == "nginx":
            text = configurations.nginx(places, stream_module())
            return [program("nginx"), "-c", self.write("stream.conf", text)]
        if name == "envoy":
            path = self.write("envoy.json", configurations.envoy(places))
            quiet = ["--log-level", "error", "--concurrency", "1", "--disable-hot-restart"]
            return [self.options.envoy, "-c", path, *quiet]
        web = f"{places['web']}={places['backend']}"
        return [self.options.built / "examples" / "bare-relay", web]

    def start(self, name):
        """Starts a target and waits until it serves."""
        cpu = self.options.proxy_cpu
        self.children.start(name, "proxy", cpu, self.command(name))
        self.wait_for(name, self.place(name))

    def restart(self, name):
        """A fresh process, which has seen no load."""
        self.children.end(name)
        self.start(name)

    def start_all(self):
        """The backend with its files, then every target."""
        www = self.directory / "www"
        www.mkdir()
        for name, size in FILES:
            (www / name).write_bytes(os.urandom(size))
        for number, name in enumerate(("backend", "idle")):
            places = {"dir": self.directory, "name": name, "place": self.backend(number)}
            conf = self.write(f"{name}.conf", configurations.BACKEND.format(**places))
            cpu = self.options.other_cpu
            self.children.start(name, "backend", cpu, [program("nginx"), "-c", conf])
        for name in self.names:
            self.start(name)

    def wait_for(self, name, place):
        """Until something listens there."""
        command = [self.load, place, "wait"]
        try:
            self.children.ask("client", self.options.other_cpu, command, PATIENCE)
        except Failed as error:
            self.children.pid(name)
            raise Failed(f"{name} does not answer at {place}") from error
        self.children.pid(name)

    def pid(self, name):
        """The process of a target, which must be running."""
        return self.children.pid(name)


def program(name):
    """A program, also where Debian keeps those of administrators."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not found:
        raise Failed(f"{name} is missing: {REMEDY}")
    return found


def stream_module():
    """Where nginx keeps its stream module, if that is a file of its own."""
    return next(pathlib.Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so"), None)


def check_files(options, names):
    """What has to be built or installed beforehand."""
    built = [options.binary, options.built / "examples" / "load"]
    built += [options.built / "examples" / "bare-relay"] if "bare" in names else []
    for path in built:
        if not path.exists():
            raise Failed(f"{path} is missing: `make versus` builds it")
    if "envoy" in names and not options.envoy.exists():
        raise Failed(f"{options.envoy} is missing: {REMEDY}")


def versions(options, names):
    """What each program calls itself."""
    asked = {
        "evenkeel": [options.binary, "version"],
        "haproxy": ["haproxy", "-v"],
        "nginx": ["nginx", "-v"],
        "envoy": [options.envoy, "--version"],
    }
    wanted = [name for name in asked if any(one.startswith(name) for one in (*names, "nginx"))]
    found = {}
    for name in wanted:
        command = [program(name) if name in ("haproxy", "nginx") else asked[name][0]]
        done = subprocess.run(
            [*command, *asked[name][1:]], capture_output=True, text=True, check=False
        )
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        found[name] = re.sub(r"^.*envoy\s+version: ", "", lines[0].strip()) if lines else "?"
    wrk = subprocess.run([program("wrk"), "-v"], capture_output=True, text=True, check=False)
    found["wrk"] = (wrk.stdout + wrk.stderr).splitlines()[0].strip()
    return found
