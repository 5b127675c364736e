#!/usr/bin/env bash
# OpenLDAP's pldap:// closes version 1 of the PROXY protocol without a word, and long or split headers.
#
# Program:  slapd 2.5.13+dfsg-5 (Debian), -h pldap://, an anonymous bind after each header.
# Guess:    both versions are taken, as by most servers; additional data is skipped whatever its length.
# Seen:     version 2 only. LOCAL is served. UNSPEC and a header whose TLVs are longer than some 500 bytes
#           are closed, and so is a header that comes in two segments; no LDAP message says why.
# Output:   v1 TCP4, v1 UNKNOWN            closed
#           v2 TCP4, TCP6, LOCAL           served
#           v2 TCP4 with a unique id       served
#           v2 TCP4 with 1 KiB of TLVs     closed
#           v2 command PROXY, UNSPEC       closed
#           v2 TCP4, split after 20        closed
# Means:    send_proxy = "v2" for LDAP, and probes with it. Clients report "Can't contact LDAP server"; the
#           reason ("proxyp failed") is in the log only.
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

deb slapd=2.5.13+dfsg-5
read -r P <<<"$(ports 1)"; export LD_LIBRARY_PATH=$LIBS
mkdir "$T/data"
cat >"$T/slapd.conf" <<EOF
include $T/r/etc/ldap/schema/core.schema
modulepath $T/r/usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=test
directory $T/data
EOF
"$T/r/usr/sbin/slapd" -f "$T/slapd.conf" -h "pldap://127.0.0.1:$P/" -d 256 2>"$T/log" & PIDS+=($!)
python3 - "$P" <<'EOF'
import socket, struct, sys, time
port = int(sys.argv[1])
BIND = bytes.fromhex("300c020101600702010304008000")
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 1111, 389)
V6 = 2 * socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack(">HH", 1111, 389)
def v2(command, family, body=b""):
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body
def tlv(kind, value): return bytes([kind]) + struct.pack(">H", len(value)) + value
def bind(*parts):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        try:
            for part in parts:
                s.sendall(part)
                if part is not parts[-1]: time.sleep(0.3)
            return "served" if s.recv(100)[:1] == b"0" else "closed"
        except OSError as error: return "closed" if isinstance(error, (ConnectionResetError, BrokenPipeError)) else repr(error)
for _ in range(100):
    try: socket.create_connection(("127.0.0.1", port)).close(); break
    except ConnectionRefusedError: time.sleep(0.1)
whole = v2(1, 0x11, V4)
cases = [("v1 TCP4", "closed", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 389\r\n" + BIND]),
         ("v1 UNKNOWN", "closed", [b"PROXY UNKNOWN\r\n" + BIND]),
         ("v2 TCP4", "served", [whole + BIND]),
         ("v2 TCP6", "served", [v2(1, 0x21, V6) + BIND]),
         ("v2 LOCAL", "served", [v2(0, 0) + BIND]),
         ("v2 TCP4 with a unique id", "served", [v2(1, 0x11, V4 + tlv(5, bytes(16))) + BIND]),
         ("v2 TCP4 with 1 KiB of TLVs", "closed", [v2(1, 0x11, V4 + tlv(4, bytes(1024))) + BIND]),
         ("v2 command PROXY, UNSPEC", "closed", [v2(1, 0) + BIND]),
         ("v2 TCP4, split after 20", "closed", [whole[:20], whole[20:] + BIND])]
held = True
for what, wanted, parts in cases:
    found = bind(*parts)
    print(f"{what:31}{found}")
    held = held and found == wanted
sys.exit(not held)
EOF
