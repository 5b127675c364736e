#!/usr/bin/env bash
# Redis refuses PING when its last snapshot has failed, and a replica does without its master.
#
# Program:  redis-server 7.0.15 (Debian). One whose folder is gone when the first snapshot is due; a replica with
#           replica-serve-stale-data no whose master cannot be reached; beside it one with yes, the default.
# Guess:    PING asks whether the server answers, so it gets +PONG in each case; what cannot be written or read is told
#           to those who try it.
# Seen:     after a failed snapshot PING is treated as a write: -MISCONF, while reads are served. The replica answers
#           -MASTERDOWN to PING; INFO works in all cases.
# Output:   snapshot failed            PING -MISCONF       GET served        INFO served
#           replica, stale data: no    PING -MASTERDOWN    GET -MASTERDOWN   INFO served
#           replica, stale data: yes   PING +PONG          GET served        INFO served
# Means:    probes that expect +PONG take a server with a full disk out, and a cache that serves reads well goes
#           down. That may be wanted; where reading is enough expect PONG or MISCONF, or ask INFO.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"; PIDS=()
stop() { for p in "${PIDS[@]}"; do kill -9 "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; } # redis does not end without its snapshot
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

deb redis-server=5:7.0.15-1~deb12u10 redis-tools=5:7.0.15-1~deb12u10
read -r A B C NOBODY <<<"$(ports 4)"; mkdir "$T/a" "$T/b" "$T/c"
redis() { LD_LIBRARY_PATH=$LIBS "$T/r/usr/bin/redis-server" --bind 127.0.0.1 --logfile "$T/log" "$@" >/dev/null & PIDS+=($!); }
redis --port "$A" --dir "$T/a" --save "1 1"
redis --port "$B" --dir "$T/b" --save "" --replicaof "127.0.0.1 $NOBODY" --replica-serve-stale-data no
redis --port "$C" --dir "$T/c" --save "" --replicaof "127.0.0.1 $NOBODY"
python3 - "$A" "$B" "$C" "$T/a" <<'EOF'
import os, socket, sys, time
def ask(port, command):  # the first word of the answer
    for _ in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                client.sendall(command + b"\r\n")
                return client.recv(4096).split()[0].decode()
        except ConnectionRefusedError: time.sleep(0.1)
a, b, c = map(int, sys.argv[1:4])
held = ask(a, b"PING") == "+PONG"
os.rmdir(sys.argv[4])
held = held and ask(a, b"SET a 1") == "+OK"
for _ in range(150):
    if ask(a, b"PING") != "+PONG": break
    time.sleep(0.1)
wanted = {"snapshot failed": (a, "-MISCONF", "$1"), "replica, stale data: no": (b, "-MASTERDOWN", "-MASTERDOWN"),
          "replica, stale data: yes": (c, "+PONG", "$-1")}
for what, (port, ping, get) in wanted.items():
    seen = ask(port, b"PING"), ask(port, b"GET a"), ask(port, b"INFO replication")
    print(f"{what:27}PING {seen[0]:15}GET {seen[1] if seen[1][0] == '-' else 'served':14}INFO {seen[2] if seen[2][0] == '-' else 'served'}")
    held = held and seen[:2] == (ping, get) and seen[2][0] == "$"
sys.exit(not held)
EOF
