#!/usr/bin/env bash
# Least connections: one of two balancers forgets the weights while there is little to do.
#
# Programs: haproxy 2.6.12-1+deb12u4 and nginx 1.22.1-9+deb12u11 with its stream module (Debian), two
#           servers with weights 1 and 9, 400 sessions one after another.
# Guess:    both give the second server nine of ten, as they do under load.
# Seen:     HAProxy's leastconn gives each the half: with no session open the servers are equal, whatever
#           they weigh, and take turns. Its random(2) keeps the weights, and so does nginx's least_conn,
#           which settles equal load by weighted turns.
# Output:   haproxy leastconn   200 : 200
#           haproxy random(2)   below 20 % : above 80 %
#           nginx least_conn    40 : 360
# Means:    a small server that is given weight 1 for its size gets half of all short sessions at night,
#           and one that warms up by its weight gets more than it should. Short sessions: roundrobin.
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

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 haproxy=2.6.12-1+deb12u4
A=$(port) B=$(port) L=$(port) R=$(port) N=$(port); export LD_LIBRARY_PATH=$LIBS
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen leastconn
 bind 127.0.0.1:$L
 balance leastconn
 server one 127.0.0.1:$A weight 1
 server nine 127.0.0.1:$B weight 9
listen random
 bind 127.0.0.1:$R
 balance random(2)
 server one 127.0.0.1:$A weight 1
 server nine 127.0.0.1:$B weight 9
EOF
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid $T/pid; error_log $T/errors; events {}
stream {
 upstream both { least_conn; server 127.0.0.1:$A weight=1; server 127.0.0.1:$B weight=9; }
 server { listen 127.0.0.1:$N; proxy_pass both; }
}
EOF
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/errors" -c "$T/nginx" >>"$T/log" 2>&1 & PIDS+=($!)
python3 - "$A" "$B" "$L" "$R" "$N" <<'EOF'
import collections, socket, sys, threading, time
one, nine, leastconn, random, nginx = map(int, sys.argv[1:])
def serve(port, name):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        try: connection.sendall(name)
        except OSError: pass
        connection.close()
for port, name in (one, b"1"), (nine, b"9"):
    threading.Thread(target=serve, args=(port, name), daemon=True).start()
def ask(proxy):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", proxy), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    name = s.recv(1)
    s.close()
    time.sleep(0.005)  # the balancer sees the end before the next session begins
    return name
def share(proxy):
    names = collections.Counter(ask(proxy) for _ in range(400))
    return names[b"1"], names[b"9"]
seen = [share(proxy) for proxy in (leastconn, random, nginx)]
for text, (a, b) in zip(("haproxy leastconn", "haproxy random(2)", "nginx least_conn"), seen):
    print(f"{text:19} {a} : {b}")
(equal, _), (drawn, _), (turns, _) = seen
sys.exit(not (abs(equal - 200) <= 10 and 0 < drawn < 80 and abs(turns - 40) <= 10))
EOF
