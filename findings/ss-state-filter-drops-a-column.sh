#!/usr/bin/env bash
# ss leaves the State column out when the filter names one state: all columns move to the left.
#
# Program:  iproute2 6.1.0-3 (Debian), ss -Htn.
# Guess:    a filter chooses lines; "state established" shows what grep ESTAB would show.
# Seen:     with one state named the column is gone and the peer is the fourth field instead of the
#           fifth. With "state connected", which stands for several, it is there.
# Output:   ss -Htn                      peer is field 5
#           ss -Htn state established    peer is field 4
#           ss -Htn state connected      peer is field 5
# Means:    a script that counts a balancer's clients by peer (awk '{print $5}') counts empty text
#           once somebody makes it faster with a filter, as advised for hosts with many sockets. The
#           sum still looks right: it has one line, with the number of all sessions.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb iproute2=6.1.0-3
LD_LIBRARY_PATH=$LIBS python3 - "$T/r/bin/ss" <<'EOF'
import socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, peer = listener.accept()
def field(*words):
    command = [sys.argv[1], "-Htn", *words, f"sport = :{listener.getsockname()[1]}"]
    line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()
    return line.index(f"127.0.0.1:{peer[1]}") + 1
seen = {words: field(*words.split()) for words in ("", "state established", "state connected")}
for words, number in seen.items(): print(f"ss -Htn {words:21}peer is field {number}")
sys.exit(list(seen.values()) != [5, 4, 5])
EOF
