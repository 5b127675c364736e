#!/usr/bin/env bash
# A client a fifth over its limit gets nothing at all: HAProxy's rate counts what it has refused.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), a stick table with conn_rate(1s), 5 connects a second
#           let in, one client that connects at an even pace for six seconds.
# Guess:    a client that connects 6 or 20 times a second gets 5 of them in each, as from a token bucket.
# Seen:     with the usual order (track, then reject above 5) it gets 5 in the first second and none
#           after that, for as long as it goes on: the refused are counted, too. With the order turned
#           round (reject from 5 on, then track) the same client gets 5 a second.
# Output:   track, reject gt 5     4/s: 4 4 4 4 4 4     6/s: 5 0 0 0 0 0    20/s: 5 0 0 0 0 0
#           reject ge 5, track     4/s: 4 4 4 4 4 4     6/s: 5 5 5 5 5 5    20/s: 5 5 5 5 5 5
# Means:    behind one address (NAT, another balancer) a site that grows from 5 to 6 is cut off whole,
#           and clients that retry keep it cut off. Nothing is wrong if a ban is wanted; as a limit,
#           track after the test. Limits that are moved here from or to a token bucket are not equal.
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
read -r B A R <<<"$(ports 3)"; export LD_LIBRARY_PATH=$LIBS
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen track_first
 bind 127.0.0.1:$A
 stick-table type ip size 1k expire 1m store conn_rate(1s)
 tcp-request connection track-sc0 src
 tcp-request connection reject if { sc0_conn_rate gt 5 }
 server one 127.0.0.1:$B
listen track_last
 bind 127.0.0.1:$R
 stick-table type ip size 1k expire 1m store conn_rate(1s)
 tcp-request connection reject if { src_conn_rate ge 5 }
 tcp-request connection track-sc0 src
 server one 127.0.0.1:$B
EOF
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$B" "$A" "$R" <<'EOF'
import socket, sys, threading, time
backend, first, last = map(int, sys.argv[1:])
def serve(port):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        try: connection.sendall(b"x")
        except OSError: pass
        connection.close()
threading.Thread(target=serve, args=(backend,), daemon=True).start()
def served(proxy):
    try:
        with socket.create_connection(("127.0.0.1", proxy), timeout=10) as s: return s.recv(1) == b"x"
    except ConnectionResetError: return False
def seconds(proxy, rate):
    time.sleep(3)  # the table forgets the run before
    start, got = time.monotonic(), [0] * 6
    for i in range(6 * rate):
        time.sleep(max(0, start + i / rate - time.monotonic()))
        got[i // rate] += served(proxy)
    return got
for proxy in (first, last):
    for _ in range(100):
        try: socket.create_connection(("127.0.0.1", proxy)).close(); break
        except ConnectionRefusedError: time.sleep(0.1)
held = True
for name, proxy in ("track, reject gt 5", first), ("reject ge 5, track", last):
    seen = {rate: seconds(proxy, rate) for rate in (4, 6, 20)}
    print(f"{name:22}", *(f"{rate:2}/s: {' '.join(map(str, got)):14}" for rate, got in seen.items()))
    held = held and sum(seen[4]) >= 22
    for rate in (6, 20):
        held = held and (sum(seen[rate][2:]) == 0 if proxy == first else sum(seen[rate][2:]) >= 16)
sys.exit(not held)
EOF
