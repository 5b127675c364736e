#!/usr/bin/env bash
# nginx's stream module takes PROXY headers up to 107 bytes, its http module up to 1024.
#
# Program:  nginx and libnginx-mod-stream 1.22.1-9+deb12u11 (Debian), listen ... proxy_protocol.
# Guess:    one program, one parser, one limit: version 2 has a length field, so some KiB.
# Seen:     stream keeps 107 bytes, the longest line of version 1, for version 2 too, and closes
#           what is longer ("header is too large while reading PROXY protocol"). http reads into
#           client_header_buffer_size: 1024 by default, more when that is set. Longest header that
#           others took: httpd 2.4.71 232, lighttpd 1.4.69 256, Varnish 7.1 404, Postfix 3.7.11 536,
#           slapd 2.5.13 548, Dovecot 2.3.19 1500, HAProxy 2.6 and Envoy 1.40 over 4096.
# Output:   stream                                   107
#           http                                     1024
#           http, client_header_buffer_size 2k       2048
#           stream, IPv6, name of 33 letters, 16-byte id: served; of 34: closed
# Means:    52 bytes of 107 are gone for an IPv6 client, 19 for a unique id of 16 bytes: an AUTHORITY
#           of 34 letters or more, which a balancer passes on from the one before it, ends every such
#           session at an nginx stream, and only those with long names.
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

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11
S=$(port) H=$(port) B=$(port)
cat >"$T/conf" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid $T/pid; error_log $T/log info; events { worker_connections 64; }
stream { server { listen 127.0.0.1:$S proxy_protocol; return ok; } }
http { access_log off; client_body_temp_path $T/1; proxy_temp_path $T/2; fastcgi_temp_path $T/3; uwsgi_temp_path $T/4;
  scgi_temp_path $T/5; server { listen 127.0.0.1:$H proxy_protocol; location / { return 200 ok; } }
  server { listen 127.0.0.1:$B proxy_protocol; client_header_buffer_size 2k; location / { return 200 ok; } } }
EOF
LD_LIBRARY_PATH=$LIBS "$T/r/usr/sbin/nginx" -e "$T/log" -c "$T/conf" & PIDS+=($!)
up "$B"
python3 - "$S" "$H" "$B" <<'EOF'
import socket, struct, sys
stream, http, big = map(int, sys.argv[1:])
def tlv(kind, value): return bytes([kind]) + struct.pack("!H", len(value)) + value
def header(family, body): return b"\r\n\r\n\0\r\nQUIT\n\x21" + bytes([family]) + struct.pack("!H", len(body)) + body
def served(port, header):
    s = socket.create_connection(("127.0.0.1", port), timeout=5)
    try:
        s.sendall(header + (b"" if port == stream else b"GET / HTTP/1.0\r\n\r\n"))
        answer = b""
        while more := s.recv(1000): answer += more
    except ConnectionError: pass
    s.close()
    return b"ok" in answer
def longest(port):
    good, bad = 31, 8192   # 16 fixed, 12 of addresses, 3 of a NOOP that fills the rest
    while bad - good > 1:
        size = (good + bad) // 2
        ok = served(port, header(0x11, bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 1, 0, 80]) + tlv(4, b"\0" * (size - 31))))
        good, bad = (size, bad) if ok else (good, size)
    return good
def named(letters):
    six = (b"\x20\x01\x0d\xb8" + b"\0" * 11 + b"\1") * 2 + b"\4\1\0\x50"
    return served(stream, header(0x21, six + tlv(2, b"n" * letters) + tlv(5, b"u" * 16)))
seen = [longest(stream), longest(http), longest(big), named(33), named(34)]
print(f"stream {seen[0]}\nhttp {seen[1]}\nhttp, client_header_buffer_size 2k {seen[2]}")
print(f"stream, name of 33 letters: {seen[3]}, of 34: {seen[4]}")
sys.exit(seen != [107, 1024, 2048, True, False])
EOF
grep -o "header is too large while reading PROXY protocol" "$T/log" | head -1
