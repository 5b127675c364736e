#!/usr/bin/env python3
"""CPU time per unit of work: evenkeel, HAProxy and nginx stream in front of the same nginx.

One proxy worker on one core, client and backend on the other; targets interleaved A B C A B C;
medians of the rounds. What is counted is the CPU time of the proxy's own threads
(/proc/PID/task/*/schedstat), which a busy neighbour disturbs less than throughput. On loopback the
receiver's work is done in the sender's context for every proxy alike, so quote the ratios. The
backend sends files as Debian's nginx does by default, with sendfile.

    python3 benches/versus/versus.py [--rounds 5] [--seconds 3] [--binary target/release/evenkeel]

Needs wrk, haproxy, nginx with the stream module. Ports are fixed: 17000 to 17200 are reserved
(net.ipv4.ip_local_reserved_ports) while it runs.
"""
import argparse
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BACKEND = 17100
PORTS = {"evenkeel": 17001, "haproxy": 17002, "haproxy-tuned": 17004, "nginx": 17003}
PROXY_CPU, OTHER_CPU = "0", "1"
RESERVED = pathlib.Path("/proc/sys/net/ipv4/ip_local_reserved_ports")

HTTP = """
worker_processes 1; daemon off; pid {dir}/backend.pid; error_log {dir}/backend.log;
events {{ worker_connections 16000; }}
http {{ access_log off; sendfile on; tcp_nopush on;
  keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {dir}/www; }} }}
"""
NGINX = """
{module}
worker_processes 1; daemon off; pid {dir}/proxy.pid; error_log {dir}/proxy.log;
events {{ worker_connections 32000; }}
stream {{ server {{ listen 127.0.0.1:{port} backlog=4096 reuseport; access_log off;
  proxy_pass 127.0.0.1:{backend}; proxy_timeout 600s; }} }}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 6000
  {tuning}
defaults
  mode tcp
  timeout connect 3s
  timeout client 600s
  timeout server 600s
  {options}
listen web
  bind 127.0.0.1:{port} backlog 4096
  server one 127.0.0.1:{backend}
"""
EVENKEEL = """
[global]
workers = 1
log = {{ sessions = false, level = "error" }}
[admin]
socket = "{dir}/admin.sock"
[listener.web]
bind = ["127.0.0.1:{port}"]
pool = "web"
[pool.web]
backends = ["127.0.0.1:{backend}"]
"""
TUNED = {
    "tuning": "tune.pipesize 1048576",
    "options": "option splice-request\n  option splice-response\n"
    "  option tcp-smart-connect\n  option tcp-smart-accept",
}


def write(path, text):
    path.write_text(text)
    return str(path)


def wait_for(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit(f"nothing answers on port {port}")


def pinned(cpu, command):
    return subprocess.Popen(
        ["taskset", "-c", cpu, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def start(directory, binary, processes):
    common = {"dir": directory, "backend": BACKEND}
    module = next(pathlib.Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so"), None)
    load = f"load_module {module};" if module else ""
    http = write(directory / "backend.conf", HTTP.format(dir=directory, port=BACKEND))
    processes["backend"] = pinned(OTHER_CPU, ["nginx", "-c", http])
    keel = write(directory / "keel.toml", EVENKEEL.format(port=PORTS["evenkeel"], **common))
    processes["evenkeel"] = pinned(PROXY_CPU, [binary, "run", "-c", keel])
    for name, extra in (("haproxy", {"tuning": "", "options": ""}), ("haproxy-tuned", TUNED)):
        text = HAPROXY.format(port=PORTS[name], **common, **extra)
        conf = write(directory / f"{name}.cfg", text)
        processes[name] = pinned(PROXY_CPU, ["haproxy", "-f", conf, "-db"])
    text = NGINX.format(port=PORTS["nginx"], module=load, **common)
    conf = write(directory / "stream.conf", text)
    processes["nginx"] = pinned(PROXY_CPU, ["nginx", "-c", conf])
    for port in [BACKEND, *PORTS.values()]:
        wait_for(port)


def family(pid):
    """A process and its descendants: nginx works in a child."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            pids += family(int(child))
    return pids


def cpu_ns(pid):
    total = 0
    for member in family(pid):
        for task in pathlib.Path(f"/proc/{member}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total


def resident_kib(pid):
    total = 0
    for member in family(pid):
        status = pathlib.Path(f"/proc/{member}/status").read_text()
        total += int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
    return total


def wrk(port, path, connections, seconds, close):
    header = ["-H", "Connection: close"] if close else []
    command = ["taskset", "-c", OTHER_CPU, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    out = subprocess.run(
        [*command, *header, f"http://127.0.0.1:{port}/{path}"],
        capture_output=True, text=True, check=True,
    ).stdout
    return int(re.search(r"(\d+) requests in", out).group(1))


LOADS = [
    # name, path, connections, close, bytes a reply (0: count requests)
    ("short connection, µs", "tiny", 64, True, 0),
    ("small request, 64 kept, µs", "tiny", 64, False, 0),
    ("16 KiB reply, 32 kept, µs", "16k", 32, False, 0),
    ("1 MiB replies, s/GB", "1m", 16, False, 1 << 20),
    ("64 MiB replies, s/GB", "64m", 4, False, 1 << 26),
]


def measure(pid, port, load, seconds):
    _, path, connections, close, size = load
    before = cpu_ns(pid)
    requests = wrk(port, path, connections, seconds, close)
    spent = cpu_ns(pid) - before
    return spent / 1e9 / (requests * size / 1e9) if size else spent / 1e3 / requests


def idle_bytes(pid, port, count=4000):
    before = resident_kib(pid)
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    time.sleep(1.5)
    grown = resident_kib(pid) - before
    for one in held:
        one.close()
    time.sleep(0.5)
    return grown * 1024 / count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--binary", default="target/release/evenkeel")
    parser.add_argument("--only", nargs="*", default=list(PORTS))
    options = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="evenkeel-versus-"))
    directory.chmod(0o755)
    (directory / "www").mkdir()
    for name, size in (("tiny", 64), ("16k", 16 << 10), ("1m", 1 << 20), ("64m", 1 << 26)):
        (directory / "www" / name).write_bytes(os.urandom(size))
    reserved = RESERVED.read_text()
    RESERVED.write_text("17000-17200")
    processes = {}
    try:
        start(directory, options.binary, processes)
        results = {}
        for round_number in range(options.rounds):
            for load in LOADS:
                for name in options.only:
                    value = measure(processes[name].pid, PORTS[name], load, options.seconds)
                    results.setdefault((load[0], name), []).append(value)
            print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr)
        for name in options.only:
            value = idle_bytes(processes[name].pid, PORTS[name])
            results[("idle session, resident bytes", name)] = [value]
        show(results, options.only)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
        RESERVED.write_text(reserved)
        shutil.rmtree(directory, ignore_errors=True)


def show(results, names):
    print("| work | " + " | ".join(names) + " | evenkeel/haproxy |")
    print("| --- |" + " --- |" * (len(names) + 1))
    for load in dict.fromkeys(load for load, _ in results):
        cells = []
        for name in names:
            values = results[(load, name)]
            median = statistics.median(values)
            cells.append(f"{median:.3g} ({min(values):.3g}–{max(values):.3g})")
        ratio = "-"
        if {"evenkeel", "haproxy"} <= set(names):
            ours, theirs = results[(load, "evenkeel")], results[(load, "haproxy")]
            ratio = f"{statistics.median(ours) / statistics.median(theirs):.2f}"
        print(f"| {load} | " + " | ".join(cells) + f" | {ratio} |")


if __name__ == "__main__":
    main()
