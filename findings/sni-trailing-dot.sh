#!/usr/bin/env bash
# A name with a dot at its end is another server to HAProxy, and the same one to nginx's map.
#
# Programs: nginx and libnginx-mod-stream 1.22.1-9+deb12u11, haproxy 2.6.12-1+deb12u4 (Debian); the
#           hello is made by Python's ssl.
# Guess:    the dot of "www.example.com." is gone before it is sent: SNI has names without one, and
#           curl drops it. If one comes, both proxies compare names as names.
# Seen:     Python's ssl (requests, urllib, asyncio) sends the dot as it was written, and capitals
#           too. nginx leaves both in $ssl_preread_server_name, but a map with "hostnames" finds the
#           name by either. HAProxy's req.ssl_sni finds neither without -i, and the dot never; Envoy
#           1.40 (server_names) takes capitals and not the dot.
# Output:   www.example.com    nginx: www.example.com, map hit     haproxy: exact
#           WWW.Example.COM    nginx: WWW.Example.COM, map hit     haproxy: only with -i
#           www.example.com.   nginx: www.example.com., map hit    haproxy: other
# Means:    a client that writes the full name with its dot, which is valid in a URL and saves DNS
#           searches, is sent to the default pool by some balancers and served by others. Routes by
#           SNI should have the dot form beside the other where clients use it.
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

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 haproxy=2.6.12-1+deb12u4
N=$(port) H=$(port) B=$(port); export LD_LIBRARY_PATH=$LIBS
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid $T/pid; error_log $T/log.n; events { worker_connections 64; }
stream { map \$ssl_preread_server_name \$hit { hostnames; www.example.com hit; default miss; }
  server { listen 127.0.0.1:$N; ssl_preread on; return "\$ssl_preread_server_name, map \$hit"; } 
  server { listen 127.0.0.1:$B; return exact; } server { listen 127.0.0.2:$B; return "only with -i"; }
  server { listen 127.0.0.3:$B; return other; } }
EOF
cat >"$T/haproxy" <<EOF
defaults
 timeout client 5s
 timeout server 5s
 timeout connect 5s
frontend f
 bind 127.0.0.1:$H
 tcp-request inspect-delay 2s
 tcp-request content accept if { req.ssl_hello_type 1 }
 use_backend exact if { req.ssl_sni www.example.com }
 use_backend nocase if { req.ssl_sni -i www.example.com }
 default_backend other
backend exact
 server s 127.0.0.1:$B
backend nocase
 server s 127.0.0.2:$B
backend other
 server s 127.0.0.3:$B
EOF
"$T/r/usr/sbin/nginx" -e "$T/log.n" -c "$T/nginx" & PIDS+=($!)
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log.h" 2>&1 & PIDS+=($!)
up "$B"; up "$N"; up "$H"
env -u LD_LIBRARY_PATH python3 - "$N" "$H" <<'EOF'
import socket, ssl, sys
def hello(name):
    context, sent = ssl.create_default_context(), ssl.MemoryBIO()
    try: context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError: return sent.read()
def ask(port, name):
    s = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    s.sendall(hello(name))
    answer = b""
    try:
        while more := s.recv(1000): answer += more
    except ConnectionResetError: pass
    s.close()
    return answer.decode()
names = ["www.example.com", "WWW.Example.COM", "www.example.com."]
seen = [(ask(sys.argv[1], name), ask(sys.argv[2], name)) for name in names]
for name, (nginx, haproxy) in zip(names, seen): print(f"{name:19}nginx: {nginx:28}haproxy: {haproxy}")
sys.exit(seen != [(f"{name}, map hit", h) for name, h in zip(names, ["exact", "only with -i", "other"])])
EOF
