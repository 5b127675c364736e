#!/usr/bin/env bash
# HAProxy tries a dead server four times, a second apart, while the next one is well.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), mode tcp, roundrobin, two servers without checks.
# Guess:    "retries 3" (the default) goes to another server when a connect is refused, as nginx's
#           proxy_next_upstream (on by default) does.
# Seen:     all four attempts go to the same server, with a second between them; then the client is
#           closed. Every second client waits 3 s for nothing. With "option redispatch" it is served
#           at once: then the first retry goes elsewhere.
# Output:   default            served 3 of 6, slowest refusal 3.0 s
#           option redispatch  served 6 of 6 at once
# Means:    between the death of a server and the verdict of its checks clients are lost by default.
#           Who compares balancers, or migrates, has to set redispatch first, and should not take
#           over "retries" as a number: here it counts attempts at one server, not servers.
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
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

deb haproxy=2.6.12-1+deb12u4
D=$(port) S=$(port) A=$(port) B=$(port)
cat >"$T/cfg" <<EOF
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen one
 bind 127.0.0.1:$A
 server dead 127.0.0.1:$D
 server well 127.0.0.1:$S
listen two
 bind 127.0.0.1:$B
 option redispatch
 server dead 127.0.0.1:$D
 server well 127.0.0.1:$S
EOF
LD_LIBRARY_PATH=$LIBS "$T/r/usr/sbin/haproxy" -db -f "$T/cfg" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$A" "$B" "$S" <<'EOF'
import socket, sys, threading, time
one, two, port = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", port))
def serve():
    while True:
        connection, _ = listener.accept()
        try: connection.sendall(b"hello")
        except OSError: pass
        connection.close()
threading.Thread(target=serve, daemon=True).start()
def ask(proxy):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", proxy), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    start = time.monotonic()
    try: served = s.recv(10) == b"hello"
    except ConnectionError: served = False
    s.close()
    return served, time.monotonic() - start
def six(proxy):
    results = [ask(proxy) for _ in range(6)]
    return sum(served for served, _ in results), max(seconds for _, seconds in results)
(count, slowest), (all_of_them, at_once) = six(one), six(two)
print(f"default            served {count} of 6, slowest refusal {slowest:.1f} s")
print(f"option redispatch  served {all_of_them} of 6, slowest {at_once:.1f} s")
sys.exit(not (count == 3 and 2.5 < slowest < 4.5 and all_of_them == 6 and at_once < 1))
EOF
