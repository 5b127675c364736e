#!/usr/bin/env bash
# A PROXY header that arrives in two segments is an error for some servers, not a reason to wait.
#
# Programs: haproxy 2.6.12-1+deb12u4, nginx 1.22.1-9+deb12u11, varnish 7.1.1-2+deb12u1 (Debian).
#           Needs a C compiler for Varnish.
# Guess:    TCP is a stream: a server that has half of a header waits for the rest.
# Seen:     HAProxy resets, nginx closes ("broken header"); so do lighttpd 1.4.69, Dovecot 2.3.19,
#           slapd 2.5.13 ("header read insufficient data"), Postfix 3.7.11 ("missing protocol header
#           terminator"). Varnish 7.1, httpd 2.4.71 and Envoy 1.40 wait.
# Output:   haproxy   v1 whole: 200      v1 split: refused  v2 split: refused
#           nginx     v1 whole: 200      v1 split: refused  v2 split: refused
#           varnish   v1 whole: 200      v1 split: 200      v2 split: 200
# Means:    whoever sends a header has to send it by one call and first of all, before TCP has a
#           reason to cut it. A proxy in between that copies piece by piece, or an MSS below the
#           header's length, makes sessions fail at the first group only, and now and then only.
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

deb haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11 varnish=7.1.1-2+deb12u1
H=$(port) N=$(port) V=$(port); export LD_LIBRARY_PATH=$LIBS:$LIBS/varnish
printf 'defaults\n mode http\n timeout client 5s\nfrontend f\n bind 127.0.0.1:%s accept-proxy\n http-request return status 200\n' "$H" >"$T/haproxy"
cat >"$T/nginx" <<EOF
daemon off; pid $T/pid; error_log $T/log.n; events { worker_connections 64; }
http { access_log off; client_body_temp_path $T/1; proxy_temp_path $T/2; fastcgi_temp_path $T/3; uwsgi_temp_path $T/4;
  scgi_temp_path $T/5; server { listen 127.0.0.1:$N proxy_protocol; location / { return 200; } } }
EOF
printf 'vcl 4.1;\nbackend default none;\nsub vcl_recv { return (synth(200)); }\n' >"$T/vcl"
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log.h" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/log.n" -c "$T/nginx" & PIDS+=($!)
"$T/r/usr/sbin/varnishd" -F -n "$T/work" -j none -T none -a "127.0.0.1:$V,PROXY" -f "$T/vcl" >"$T/log.v" 2>&1 & PIDS+=($!)
for p in $H $N $V; do up "$p"; done
python3 - "$H" "$N" "$V" <<'EOF'
import socket, sys, time
one = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"
two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 0, 80])
def ask(port, *parts):
    s = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = "refused"
    try:
        for part in parts: s.sendall(part); time.sleep(0.2)
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = s.recv(100)[9:12].decode() or answer
    except ConnectionError: pass
    s.close()
    return answer
seen = [(ask(p, one), ask(p, one[:20], one[20:]), ask(p, two[:14], two[14:])) for p in sys.argv[1:]]
for name, (whole, first, second) in zip(("haproxy", "nginx", "varnish"), seen):
    print(f"{name:10}v1 whole: {whole:9}v1 split: {first:9}v2 split: {second}")
sys.exit(seen != [("200", "refused", "refused")] * 2 + [("200",) * 3])
EOF
