#!/usr/bin/env bash
# slowstart counts for a server that was down, not for one that was drained and restarted.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), roundrobin over two equal servers, the second with
#           slowstart 10s; it is taken out for a moment in three ways, and then asked 60 times a second.
# Guess:    whenever it comes back it begins with a small share, which grows over ten seconds.
# Seen:     so it is after `health down` and after `disable server`. After `state drain` and `state ready`
#           it has its half from the first second on: to HAProxy it was up all the time.
# Output:   health down, up       first second 3 of 60, fourth 14
#           disable, enable       first second 2 of 60, fourth 15
#           drain, ready          first second 30 of 60, fourth 30
# Means:    the polite restart (drain, wait, restart, ready) sends a cold process its full share at once.
#           Put `set server P/S health down` and `health up` before `ready`, or go by `disable`.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"; PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}
ports() { # as many free ones as wanted, all different
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

deb haproxy=2.6.12-1+deb12u4
read -r A B F <<<"$(ports 3)"; export LD_LIBRARY_PATH=$LIBS
cat >"$T/haproxy" <<EOF
global
 nbthread 1
 stats socket $T/stats mode 600 level admin
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen front
 bind 127.0.0.1:$F
 balance roundrobin
 server warm 127.0.0.1:$A weight 100
 server cold 127.0.0.1:$B weight 100 slowstart 10s
EOF
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$A" "$B" "$F" "$T/stats" <<'EOF'
import socket, sys, threading, time
warm, cold, front = map(int, sys.argv[1:4])
def serve(port, name):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        try: connection.sendall(name)
        except OSError: pass
        connection.close()
for port, name in (warm, b"w"), (cold, b"c"): threading.Thread(target=serve, args=(port, name), daemon=True).start()
def tell(command):
    for _ in range(100):
        try: s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[4]); break
        except OSError: time.sleep(0.1)
    with s:
        s.sendall(command.encode() + b"\n")
        answer = s.makefile().read().strip()
    if answer: sys.exit(f"{command}: {answer}")
def second(start, number):
    taken = 0
    for i in range(60):
        time.sleep(max(0, start + number + i / 60 - time.monotonic()))
        with socket.create_connection(("127.0.0.1", front), timeout=10) as s: taken += s.recv(1) == b"c"
    return taken
ways = {"health down, up": ("set server front/cold health down", "set server front/cold health up"),
        "disable, enable": ("disable server front/cold", "enable server front/cold"),
        "drain, ready": ("set server front/cold state drain", "set server front/cold state ready")}
held = True
for name, (out, back) in ways.items():
    tell(out); time.sleep(0.5); tell(back)
    start = time.monotonic()
    shares = [second(start, number) for number in range(4)]
    print(f"{name:18} of 60 in each second: {shares}")
    held = held and (min(shares) >= 27 if name == "drain, ready" else shares[0] <= 8 and shares[3] <= 20)
    time.sleep(8)  # it has its whole share again
sys.exit(not held)
EOF
