#!/usr/bin/env bash
# An agent's plain percentage never ends what its "down" or "drain" began, and a last line has to end.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), one server with weight 100, agent-check every 200 ms; what
#           its status line says 1.2 s after the agent has changed its answer. Other checks: none.
# Guess:    the latest answer counts: "100%" after "down" or "drain" is a server in full service; an
#           answer that ends with the connection needs no newline; an agent that is gone is forgotten.
# Seen:     "100%" sets the weight and leaves the rest: the server stays down. Only "up" ends "down" and
#           only "ready" ends "drain", neither the other's. "30%" without a newline is ignored, and
#           when the agent stops listening its last word stays.
# Output:   down         DOWN (agent)     drain        DRAIN (agent)    50% and newline   weight 50
#           then 100%    DOWN (agent)     then 100%    DRAIN (agent)    30%, no newline   weight 50
#           then ready   DOWN (agent)     then up      DRAIN (agent)    agent is gone     weight 50
#           then up      weight 100       then ready   weight 100
# Means:    an agent that answers with a number while all is well and "down" while it is not takes its
#           server out once and for all. Say everything each time: "up ready 100%", and a newline.
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

deb haproxy=2.6.12-1+deb12u4
read -r A B F <<<"$(ports 3)"; export LD_LIBRARY_PATH=$LIBS
cat >"$T/haproxy" <<EOF
global
 nbthread 1
 stats socket $T/stats mode 600
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen all
 bind 127.0.0.1:$F
 server one 127.0.0.1:$B weight 100 agent-check agent-port $A agent-inter 200ms
EOF
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$A" "$T/stats" <<'EOF'
import csv, io, socket, sys, threading, time
port, path = int(sys.argv[1]), sys.argv[2]
answer = b"up ready 100%\n"
listener = socket.create_server(("127.0.0.1", port))
def agent():
    while True:
        try: connection, _ = listener.accept()
        except OSError: return
        if answer:
            try: connection.sendall(answer)
            except OSError: pass
        connection.close()
        if not answer: listener.close()
threading.Thread(target=agent, daemon=True).start()
def status():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path); s.sendall(b"show stat\n")
        text = s.makefile().read()
    row = next(r for r in csv.DictReader(io.StringIO(text.lstrip("# "))) if r["svname"] == "one")
    return row["status"] if "agent" in row["status"] else f"weight {row['weight']}"
for _ in range(100):
    try: status(); break
    except OSError: time.sleep(0.1)
def say(text):
    global answer
    answer = text
    time.sleep(1.2)
    return status()
steps = [("up ready 100%\n", "weight 100"), ("down\n", "DOWN (agent)"), ("100%\n", "DOWN (agent)"), ("ready\n", "DOWN (agent)"),
         ("up\n", "weight 100"), ("drain\n", "DRAIN (agent)"), ("100%\n", "DRAIN (agent)"), ("up\n", "DRAIN (agent)"),
         ("ready\n", "weight 100"), ("50%\n", "weight 50"), ("30%", "weight 50"), ("", "weight 50")]
held = True
for text, wanted in steps:
    found = say(text.encode())
    print(f"{text!r:22}{found}")
    held = held and found == wanted
sys.exit(not held)
EOF
