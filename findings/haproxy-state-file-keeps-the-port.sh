#!/usr/bin/env bash
# HAProxy's state file brings a server's old port back, and not its address: it goes where no server ever was.
#
# Program:  haproxy 2.6.12 (Debian), load-server-state-from-file global; a server at 127.0.0.1:1002, its state saved by
#           "show servers state", then a start with that file.
# Guess:    address and port go together: both from the file, or, where the configuration was changed, both from there.
# Seen:     the port comes from the file and the address from the configuration. A weight set by the control socket is
#           kept only while the configured weight is the same; a drain is kept in each case.
# Output:   before                              configured then     after
#           configured 127.0.0.1:1002           127.0.0.9:3002      127.0.0.9:1002
#           set addr 127.0.0.5 port 2002        127.0.0.1:1002      127.0.0.1:2002
#           set weight 50%, drain               the same            weight 5 of 10, drained
#           set weight 50%, drain               weight 20           weight 20 of 20, drained
# Means:    a server that moves to another host and port is not found after a reload with the state file, and nothing
#           warns. Give a server that moves another name, so that the file does not know it.
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

deb haproxy=2.6.12-1+deb12u4
LD_LIBRARY_PATH=$LIBS python3 - "$T" <<'EOF'
import contextlib, os, socket, subprocess, sys, time
T = sys.argv[1]
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    PORT = probe.getsockname()[1]
def control(command):
    for _ in range(100):
        with socket.socket(socket.AF_UNIX) as client:
            try: client.connect(f"{T}/control")
            except (FileNotFoundError, ConnectionRefusedError): time.sleep(0.1); continue
            client.sendall(command.encode() + b"\n")
            return client.makefile().read()
@contextlib.contextmanager
def haproxy(server):  # nothing is sent to that server
    with open(f"{T}/conf", "w") as conf: conf.write(f"""global
 stats socket {T}/control mode 600 level admin
 server-state-file {T}/state
defaults
 load-server-state-from-file global
 timeout client 10s
 timeout server 10s
 timeout connect 1s
listen l
 bind 127.0.0.1:{PORT}
 server b {server}
""")
    proxy = subprocess.Popen([f"{T}/r/usr/sbin/haproxy", "-db", "-f", f"{T}/conf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try: yield
    finally: proxy.kill(); proxy.wait(); os.unlink(f"{T}/control")
def after(commands, before, configured):  # the server's address, weight, configured weight, administrative state
    open(f"{T}/state", "w").close()
    with haproxy(before):
        control("show info")
        for command in commands: control(f"set server l/b {command}")
        with open(f"{T}/state", "w") as state: state.write(control("show servers state"))
    with haproxy(configured): fields = control("show servers state").splitlines()[2].split()
    return f"{fields[4]}:{fields[18]}", int(fields[7]), int(fields[8]), "drained" if int(fields[6]) & 8 else "ready"
PLAIN = "127.0.0.1:1002 weight 10"
moved = after([], PLAIN, "127.0.0.9:3002 weight 10")
by_hand = after(["addr 127.0.0.5 port 2002"], PLAIN, PLAIN)
same = after(["weight 50%", "state drain"], PLAIN, PLAIN)
other = after(["weight 50%", "state drain"], PLAIN, PLAIN.replace("weight 10", "weight 20"))
for what, then, seen in (("configured 127.0.0.1:1002", "127.0.0.9:3002", moved[0]), ("set addr 127.0.0.5 port 2002", "127.0.0.1:1002", by_hand[0]),
                         ("set weight 50%, drain", "the same", f"weight {same[1]} of {same[2]}, {same[3]}"),
                         ("set weight 50%, drain", "weight 20", f"weight {other[1]} of {other[2]}, {other[3]}")):
    print(f"{what:36}{then:20}{seen}")
sys.exit(moved[0] != "127.0.0.9:1002" or by_hand[0] != "127.0.0.1:2002" or same[1:] != (5, 10, "drained") or other[1:] != (20, 20, "drained"))
EOF
