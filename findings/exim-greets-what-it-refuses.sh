#!/usr/bin/env bash
# Without the PROXY header that it demands Exim still says 220, and refuses every command after that.
#
# Program:  exim4-daemon-heavy 4.96-15+deb12u11 (Debian), hosts_proxy = 127.0.0.1; a mount namespace gives
#           it the user that its package would make.
# Guess:    a connection without a header, or with one that is not taken, is closed or gets 4xx or 5xx
#           in place of the greeting, as from Postfix.
# Seen:     it waits 3 s for the header, greets with 220 and answers EHLO and the rest with 503. Command
#           PROXY with family UNSPEC gets the same at once. LOCAL and UNKNOWN are served and count as
#           the balancer's own address.
# Output:   no header      220 after 3 s, EHLO 503
#           v2 UNSPEC      220 at once, EHLO 503
#           v1 TCP4        220 at once, EHLO 250
#           v2 LOCAL       220 at once, EHLO 250
#           v1 UNKNOWN     220 at once, EHLO 250
# Means:    a probe that waits for "220" passes while the balancer sends no header and all mail is
#           refused. Expect the answer to EHLO ("250"), and send the header in the probe, too.
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

deb exim4-daemon-heavy=4.96-15+deb12u11
read -r P <<<"$(ports 1)"; export LD_LIBRARY_PATH=$LIBS:$T/r/usr/lib
mkdir -m 777 "$T/spool"
cat >"$T/exim" <<EOF
exim_user = nobody
exim_group = nogroup
spool_directory = $T/spool
log_file_path = $T/spool/%slog
pid_file_path = $T/spool/pid
primary_hostname = mail.test
daemon_smtp_ports = $P
local_interfaces = 127.0.0.1
host_lookup =
hosts_proxy = 127.0.0.1
acl_smtp_helo = accept
begin routers
begin transports
EOF
{ cat /etc/passwd; echo "Debian-exim:x:65533:65533::$T/spool:/usr/sbin/nologin"; } >"$T/passwd"
{ cat /etc/group; echo "Debian-exim:x:65533:"; } >"$T/group"
unshare -m sh -c 'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group &&
  exec "$0/r/usr/sbin/exim4" -bdf -C "$0/exim"' "$T" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$P" <<'EOF'
import socket, struct, sys, time
port = int(sys.argv[1])
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 1111, 25)
def v2(command, family, body=b""):
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body
def ask(header):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", port), timeout=15); break
        except ConnectionRefusedError: time.sleep(0.1)
    else: sys.exit("Exim does not listen")
    with s:
        start = time.monotonic()
        if header: s.sendall(header)
        lines = s.makefile("rb")
        greeting = lines.readline()[:3].decode()
        waited = time.monotonic() - start
        s.sendall(b"EHLO client.test\r\n")
        when = "at once" if waited < 2 else "after 3 s" if waited < 8 else f"after {waited:.1f} s"
        return greeting, when, lines.readline()[:3].decode()
cases = [("no header", b"", ("220", "after 3 s", "503")), ("v2 UNSPEC", v2(1, 0), ("220", "at once", "503")),
         ("v1 TCP4", b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 25\r\n", ("220", "at once", "250")),
         ("v2 LOCAL", v2(0, 0), ("220", "at once", "250")), ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n", ("220", "at once", "250"))]
held = True
for what, header, wanted in cases:
    found = ask(header)
    print(f"{what:15}{found[0]} {found[1]}, EHLO {found[2]}")
    held = held and found == wanted
sys.exit(not held)
EOF
