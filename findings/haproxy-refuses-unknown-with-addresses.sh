#!/usr/bin/env bash
# HAProxy takes PROXY UNKNOWN only when nothing follows it.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), bind ... accept-proxy.
# Guess:    "PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80\r\n" is served like "PROXY UNKNOWN\r\n":
#           receivers have to ignore what stands between UNKNOWN and CRLF, and HAProxy's own document
#           shows the long form as the longest line there can be.
# Seen:     the long form is reset, even one space behind UNKNOWN is. nginx, Dovecot, lighttpd and
#           httpd take it; httpd takes only the long one (apache-refuses-proxy-unknown.sh).
# Output:   TCP4                      200
#           UNKNOWN                   200
#           UNKNOWN, a space          reset
#           UNKNOWN, addresses        reset
# Means:    no form of UNKNOWN is taken by all servers. A balancer that has nobody to name should
#           send the short one in version 1, or LOCAL in version 2, which all of these take.
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

deb haproxy=2.6.12-1+deb12u4
P=$(port)
cat >"$T/cfg" <<EOF
defaults
  mode http
  timeout client 5s
frontend f
  bind 127.0.0.1:$P accept-proxy
  http-request return status 200
EOF
LD_LIBRARY_PATH=$LIBS "$T/r/usr/sbin/haproxy" -db -f "$T/cfg" >"$T/log" 2>&1 & PIDS+=($!)
up "$P"
python3 - "$P" <<'EOF'
import socket, sys
def ask(line):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    try:
        s.sendall(line + b"GET / HTTP/1.0\r\n\r\n")
        answer = s.recv(100)[9:12].decode() or "closed"
    except ConnectionError: answer = "reset"
    s.close()
    return answer
seen = {
    "TCP4": ask(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"),
    "UNKNOWN": ask(b"PROXY UNKNOWN\r\n"),
    "UNKNOWN, a space": ask(b"PROXY UNKNOWN \r\n"),
    "UNKNOWN, addresses": ask(b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80\r\n"),
}
for what, answer in seen.items(): print(f"{what:26}{answer}")
sys.exit(list(seen.values()) != ["200", "200", "reset", "reset"])
EOF
