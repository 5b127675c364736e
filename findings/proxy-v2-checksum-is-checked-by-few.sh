#!/usr/bin/env bash
# A wrong CRC32C in a PROXY header is refused by HAProxy and not looked at by nginx.
#
# Programs: haproxy 2.6.12-1+deb12u4, nginx 1.22.1-9+deb12u11 (Debian).
# Guess:    whoever reads version 2 checks its checksum: receivers that know the TLV have to.
# Seen:     HAProxy, and Varnish 7.1, serve the right one and close the wrong one. nginx serves both,
#           and so do httpd 2.4.71, lighttpd 1.4.69, Dovecot 2.3.19, slapd 2.5.13, Postfix 3.7.11
#           and Envoy 1.40.
# Output:   haproxy  right: 200  wrong: refused
#           nginx    right: 200  wrong: 200
# Means:    a sender that computes it wrongly, or changes a header on its way without computing it
#           anew, is found at the first receiver of this kind, often long after it went into service.
#           And a checksum protects nothing at the others. To test a sender, test with HAProxy.
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
up() { local _; for _ in {1..100}; do (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null && return; sleep 0.1; done; return 1; }

deb haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11
H=$(port) N=$(port); export LD_LIBRARY_PATH=$LIBS
printf '%s\n' defaults ' mode http' ' timeout client 5s' 'frontend f' " bind 127.0.0.1:$H accept-proxy" \
  ' http-request return status 200' >"$T/haproxy"
cat >"$T/nginx" <<EOF
daemon off; pid $T/pid; error_log $T/log.n; events { worker_connections 64; }
http { access_log off; client_body_temp_path $T/1; proxy_temp_path $T/2; fastcgi_temp_path $T/3; uwsgi_temp_path $T/4;
  scgi_temp_path $T/5; server { listen 127.0.0.1:$N proxy_protocol; location / { return 200; } } }
EOF
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log.h" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/log.n" -c "$T/nginx" & PIDS+=($!)
up "$H"; up "$N"
env -u LD_LIBRARY_PATH python3 - "$H" "$N" <<'EOF'
import socket, struct, sys
def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
addresses = bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 0, 80])
empty = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13" + addresses + b"\3\0\4\0\0\0\0"
def ask(port, change):
    header = empty[:-4] + struct.pack("!I", crc32c(empty) ^ change)
    s = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    try:
        s.sendall(header + b"GET / HTTP/1.0\r\n\r\n")
        answer = s.recv(100)[9:12].decode() or "refused"
    except ConnectionError: answer = "refused"
    s.close()
    return answer
seen = [(ask(port, 0), ask(port, 1)) for port in sys.argv[1:]]
for name, (right, wrong) in zip(("haproxy", "nginx"), seen): print(f"{name:9}right: {right}  wrong: {wrong}")
sys.exit(seen != [("200", "refused"), ("200", "200")])
EOF
