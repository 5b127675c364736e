#!/usr/bin/env bash
# Version 2 with command PROXY and family UNSPEC is refused by half of the servers, LOCAL by none.
#
# Programs: haproxy 2.6.12-1+deb12u4, apache2-bin 2.4.71-1~deb12u1, nginx 1.22.1-9+deb12u11,
#           lighttpd 1.4.69-1 (Debian).
# Guess:    "PROXY, UNSPEC" and "LOCAL" are two ways to say the same: receivers must take UNSPEC, and
#           use the connection's own addresses.
# Seen:     HAProxy resets UNSPEC, httpd closes ("unsupported protocol 00"); so do Dovecot 2.3.19
#           ("Not using TCP"), slapd 2.5.13, Postfix 3.7.11 (421) and Envoy 1.40. nginx, lighttpd and
#           Varnish 7.1 serve it. LOCAL is served by all of them.
# Output:   haproxy   PROXY UNSPEC: refused  LOCAL: 200
#           apache    PROXY UNSPEC: refused  LOCAL: 200
#           nginx     PROXY UNSPEC: 200      LOCAL: 200
#           lighttpd  PROXY UNSPEC: 200      LOCAL: 200
# Means:    for a client that has no address to be named by (it came over a Unix socket) a balancer
#           should send LOCAL: with UNSPEC its sessions fail at most servers, though probes, which
#           send LOCAL, pass.
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

deb haproxy=2.6.12-1+deb12u4 apache2-bin=2.4.71-1~deb12u1 nginx=1.22.1-9+deb12u11 lighttpd=1.4.69-1
H=$(port) A=$(port) N=$(port) L=$(port); mkdir "$T/docs"; echo hello >"$T/docs/index.html"
M=$T/r/usr/lib/apache2/modules; export LD_LIBRARY_PATH=$LIBS
printf 'defaults\n mode http\n timeout client 5s\nfrontend f\n bind 127.0.0.1:%s accept-proxy\n http-request return status 200\n' "$H" >"$T/haproxy"
cat >"$T/apache" <<EOF
ServerRoot $T
ServerName x
Listen 127.0.0.1:$A
PidFile $T/pid.a
DefaultRuntimeDir $T
LoadModule mpm_event_module $M/mod_mpm_event.so
LoadModule authz_core_module $M/mod_authz_core.so
LoadModule remoteip_module $M/mod_remoteip.so
User daemon
Group daemon
ErrorLog $T/log.a
DocumentRoot $T/docs
RemoteIPProxyProtocol On
EOF
cat >"$T/nginx" <<EOF
daemon off; pid $T/pid.n; error_log $T/log.n; events { worker_connections 64; }
http { access_log off; client_body_temp_path $T/1; proxy_temp_path $T/2; fastcgi_temp_path $T/3; uwsgi_temp_path $T/4;
  scgi_temp_path $T/5; server { listen 127.0.0.1:$N proxy_protocol; location / { return 200; } } }
EOF
cat >"$T/lighttpd" <<EOF
server.document-root = "$T/docs"
server.bind = "127.0.0.1"
server.port = $L
server.modules = ("mod_extforward")
server.errorlog = "$T/log.l"
extforward.hap-PROXY = "enable"
extforward.forwarder = ("127.0.0.1" => "trust")
EOF
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log.h" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/apache2" -f "$T/apache" -DFOREGROUND & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/log.n" -c "$T/nginx" & PIDS+=($!)
"$T/r/usr/sbin/lighttpd" -D -m "$T/r/usr/lib/lighttpd" -f "$T/lighttpd" & PIDS+=($!)
for p in $H $A $N $L; do up "$p"; done
python3 - "$H" "$A" "$N" "$L" <<'EOF'
import socket, sys
def ask(port, command):
    s = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    try:
        s.sendall(b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, 0, 0, 0]) + b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = s.recv(100)[9:12].decode() or "refused"
    except ConnectionError: answer = "refused"
    s.close()
    return answer
seen = [(ask(port, 1), ask(port, 0)) for port in sys.argv[1:]]
for name, (unspec, local) in zip(("haproxy", "apache", "nginx", "lighttpd"), seen):
    print(f"{name:10}PROXY UNSPEC: {unspec:9}LOCAL: {local}")
sys.exit(seen != [("refused", "200")] * 2 + [("200", "200")] * 2)
EOF
