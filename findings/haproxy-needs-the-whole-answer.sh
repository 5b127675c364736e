#!/usr/bin/env bash
# A name with forty addresses gives HAProxy none: it asks for 512 bytes, and drops an answer that was cut to that.
#
# Programs: haproxy 2.6.12 (Debian), server-template with 60 places and a resolvers section; dnsmasq 2.90 (Debian) with
#           names of 20 and 40 addresses.
# Guess:    a cut answer is asked for again over TCP, or the addresses that it has are used.
# Seen:     neither. By default HAProxy says that it takes 512 bytes; where the name server marks the answer as cut,
#           all of it is dropped, and all places stay without an address. With accepted_payload_size 1232 all are found.
# Output:   20 addresses     default 20    accepted_payload_size 1232: 20
#           40 addresses     default 0     accepted_payload_size 1232: 40
# Means:    a pool that grows by one server can lose all of them, at the latest at the next start. Set
#           accepted_payload_size in every resolvers section.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb haproxy=2.6.12-1+deb12u4 dnsmasq-base=2.90-4~deb12u2
LD_LIBRARY_PATH=$LIBS python3 - "$T" <<'EOF'
import os, socket, subprocess, sys, time
T, HOST = sys.argv[1], "127.0.0.1"
SIZES = (20, 40)
with open(f"{T}/hosts", "w") as hosts:
    for size in SIZES:
        for number in range(size): hosts.write(f"10.{size}.0.{number + 1} n{size}.test\n")
def free():  # a port that is free for TCP and UDP
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            try: udp.bind(tcp.getsockname())
            except OSError: continue
            return tcp.getsockname()[1]
port = free()
names = subprocess.Popen([f"{T}/r/usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-p", str(port), f"--listen-address={HOST}", "--bind-interfaces",
                          "-R", "-h", "--pid-file", "--user=root", f"--addn-hosts={T}/hosts"])
def found(more):  # how many servers have an address, by pool
    listens = "".join(f"""listen l{size}
 bind {HOST}:{free()}
 server-template s 60 n{size}.test:80 resolvers names resolve-prefer ipv4 init-addr none
""" for size in SIZES)
    with open(f"{T}/conf", "w") as conf: conf.write(f"""global
 stats socket {T}/stats mode 600
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 1s
resolvers names
 nameserver one {HOST}:{port}
 timeout retry 200ms
 timeout resolve 200ms
 {more}
{listens}""")
    proxy = subprocess.Popen([f"{T}/r/usr/sbin/haproxy", "-db", "-f", f"{T}/conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    counts, same, before = {}, 0, None
    try:
        for _ in range(150):  # until nothing has changed for three seconds
            time.sleep(0.1)
            with socket.socket(socket.AF_UNIX) as control:
                try: control.connect(f"{T}/stats")
                except (ConnectionRefusedError, FileNotFoundError): continue
                control.sendall(b"show servers state\n")
                rows = [row.split() for row in control.makefile() if row.count(" ") > 10 and row[0] != "#"]
            counts = {size: sum(row[1] == f"l{size}" and row[4] not in ("-", "0.0.0.0") for row in rows) for size in SIZES}
            same, before = (same + 1 if counts == before else 0), counts
            if same == 30: break
        return counts
    finally: proxy.kill(); proxy.wait(); os.unlink(f"{T}/stats")
try: small, large = found(""), found("accepted_payload_size 1232")
finally: names.terminate(); names.wait()
for size in SIZES: print(f"{size} addresses     default {small[size]:<6}accepted_payload_size 1232: {large[size]}")
sys.exit(small != {20: 20, 40: 0} or large != {size: size for size in SIZES})
EOF
