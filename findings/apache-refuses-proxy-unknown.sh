#!/usr/bin/env bash
# Apache httpd refuses the shortest PROXY header there is.
#
# Program:  apache2 2.4.71-1~deb12u1 (Debian), mod_remoteip with RemoteIPProxyProtocol On.
# Guess:    "PROXY UNKNOWN\r\n" is served, with the peer's own address as the client: the protocol
#           says that receivers must accept UNKNOWN, and version 1 is the simple one.
# Seen:     closed without an answer, whether the request comes with the header or after it. The
#           15 bytes are one less than version 2's fixed part, which mod_remoteip reads first to tell
#           the versions apart, and it does not know what to do with the byte too many. The same with
#           anything, even one space, before the CRLF is served; so are TCP4 and version 2's LOCAL.
# Output:   UNKNOWN, request in the same segment: closed
#           UNKNOWN, request later:               closed
#           UNKNOWN and a space:                  200
#           UNKNOWN and addresses:                200
#           version 2, LOCAL:                     200
#           the error log: "internal error: have data left over;  need=15, rcvd=..."
# Means:    a balancer that begins its probes, or sessions of clients without an address, with the
#           short UNKNOWN sees every one of them fail at httpd while sessions of others go well. Use
#           version 2 towards httpd.
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

deb apache2-bin=2.4.71-1~deb12u1
P=$(port); M=$T/r/usr/lib/apache2/modules; mkdir "$T/docs"; echo hello >"$T/docs/index.txt"
cat >"$T/conf" <<EOF
ServerRoot $T
ServerName x
Listen 127.0.0.1:$P
PidFile $T/pid
DefaultRuntimeDir $T
LoadModule mpm_event_module $M/mod_mpm_event.so
LoadModule authz_core_module $M/mod_authz_core.so
LoadModule remoteip_module $M/mod_remoteip.so
User daemon
Group daemon
ErrorLog $T/log
DocumentRoot $T/docs
RemoteIPProxyProtocol On
EOF
LD_LIBRARY_PATH=$LIBS "$T/r/usr/sbin/apache2" -f "$T/conf" -DFOREGROUND & PIDS+=($!)
up "$P"
python3 - "$P" <<'EOF'
import socket, sys, time
def ask(*parts):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    try:
        for part in parts:
            s.sendall(part); time.sleep(0.2)
        answer = s.recv(100)
    except ConnectionError: answer = b""
    s.close()
    return answer[9:12].decode() or "closed"
get = b"GET /index.txt HTTP/1.0\r\n\r\n"
seen = {
    "UNKNOWN, request in the same segment": ask(b"PROXY UNKNOWN\r\n" + get),
    "UNKNOWN, request later": ask(b"PROXY UNKNOWN\r\n", get),
    "UNKNOWN and a space": ask(b"PROXY UNKNOWN \r\n" + get),
    "UNKNOWN and addresses": ask(b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80\r\n" + get),
    "version 2, LOCAL": ask(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0" + get),
}
for what, answer in seen.items(): print(f"{what + ':':38}{answer}")
sys.exit(list(seen.values()) != ["closed", "closed", "200", "200", "200"])
EOF
grep -o "internal error: have data left over" "$T/log" | head -1
