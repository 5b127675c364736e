#!/usr/bin/env bash
# xinetd and inetd stop a service for all its clients when they together ask too often.
#
# Programs: xinetd 1:2.3.15.3-1+b1 with cps = 10 10 (without that line it is 50 10), openbsd-inetd
#           0.20221205-2~deb12u1 as it is (Debian); a service that echoes "up", as for agent checks.
# Guess:    a limit counts by client, or lets the others wait.
# Seen:     xinetd stops listening after 10 connects within a second, for ten seconds: refused. inetd
#           serves 256 within a minute, and accepts and closes the others without a word: a TCP probe
#           passes, and what asks for the answer fails. Both count all clients together. (inetd's
#           manual says ten minutes; here the next minute was served again.)
# Output:   xinetd, 40 at once            10 or more served, the others refused; so after 3 s, after 12 s served
#           inetd, 300 in a few seconds   about 255 served, the others closed empty, none refused
# Means:    five balancers with two workers that probe every 2 s are 300 a minute: the servers are down
#           in turns while all is well. Raise `cps`; `nowait.1000` in inetd.conf; and ask rarely.
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

deb xinetd=1:2.3.15.3-1+b1
deb openbsd-inetd=0.20221205-2~deb12u1
read -r X I <<<"$(ports 2)"
cat >"$T/xinetd" <<EOF
defaults
{
}
service state
{
 type = UNLISTED
 bind = 127.0.0.1
 port = $X
 socket_type = stream
 protocol = tcp
 wait = no
 cps = 10 10
 user = $(id -un)
 server = /bin/echo
 server_args = up
}
EOF
echo "127.0.0.1:$I stream tcp nowait $(id -un) /bin/echo echo up" >"$T/inetd"
export LD_LIBRARY_PATH=$LIBS
"$T/r/usr/sbin/xinetd" -dontfork -stayalive -f "$T/xinetd" -filelog "$T/log" 2>"$T/errors" & PIDS+=($!)
"$T/r/usr/sbin/inetd" -i "$T/inetd" 2>>"$T/errors" & PIDS+=($!)
python3 - "$X" "$I" <<'EOF'
import collections, socket, sys, time
xinetd, inetd = map(int, sys.argv[1:])
def ask(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as s: return "served" if s.recv(9) else "empty"
    except ConnectionRefusedError: return "refused"
    except ConnectionResetError: return "empty"
for port in (xinetd, inetd):
    for _ in range(100):
        if ask(port) == "served": break
        time.sleep(0.1)
time.sleep(2)
crowd = collections.Counter(ask(xinetd) for _ in range(40))
time.sleep(3); soon = ask(xinetd)
time.sleep(9); later = ask(xinetd)
print("xinetd", dict(crowd), "then", soon, "then", later)
minute = collections.Counter(ask(inetd) for _ in range(300))
print("inetd ", dict(minute))
sys.exit(not (crowd["served"] < 40 and crowd["refused"] > 0 and (soon, later) == ("refused", "served")
              and 250 <= minute["served"] <= 257 and minute["refused"] == 0))
EOF
