#!/usr/bin/env bash
# Varnish refuses PROXY UNKNOWN of version 1, and takes version 2 without an address.
#
# Program:  varnish 7.1.1-2+deb12u1 (Debian), listening with -a ADDRESS,PROXY. Needs a C compiler.
# Guess:    a server that takes LOCAL and UNSPEC in version 2 takes UNKNOWN in version 1: all three
#           say "use the connection's own addresses".
# Seen:     UNKNOWN is closed without an answer, with or without addresses behind it. LOCAL, UNSPEC
#           and even a Unix socket's pair in version 2 are served.
# Output:   v1 TCP4               200
#           v1 UNKNOWN            closed
#           v1 UNKNOWN, addresses closed
#           v2 LOCAL              200
#           v2 PROXY, UNSPEC      200
#           v2 PROXY, Unix        200
# Means:    probes and clients without an address that are announced in version 1 fail at Varnish,
#           always, while all others are served: its health looks bad and is not. Use version 2.
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

deb varnish=7.1.1-2+deb12u1
P=$(port)
cat >"$T/vcl" <<'EOF'
vcl 4.1;
backend default none;
sub vcl_recv { return (synth(200)); }
EOF
LD_LIBRARY_PATH=$LIBS:$LIBS/varnish "$T/r/usr/sbin/varnishd" -F -n "$T/work" -j none -T none \
  -a "127.0.0.1:$P,PROXY" -f "$T/vcl" >"$T/log" 2>&1 & PIDS+=($!)
up "$P"
python3 - "$P" <<'EOF'
import socket, struct, sys
def ask(header):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10)
    try:
        s.sendall(header + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = s.recv(100)
    except ConnectionError: answer = b""
    s.close()
    return answer[9:12].decode() or "closed"
def v2(command, family, body):
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body
seen = {
    "v1 TCP4": ask(b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n"),
    "v1 UNKNOWN": ask(b"PROXY UNKNOWN\r\n"),
    "v1 UNKNOWN, addresses": ask(b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80\r\n"),
    "v2 LOCAL": ask(v2(0, 0, b"")),
    "v2 PROXY, UNSPEC": ask(v2(1, 0, b"")),
    "v2 PROXY, Unix": ask(v2(1, 0x31, b"/a".ljust(108, b"\0") * 2)),
}
for what, answer in seen.items(): print(f"{what:22}{answer}")
sys.exit(list(seen.values()) != ["200", "closed", "closed", "200", "200", "200"])
EOF
