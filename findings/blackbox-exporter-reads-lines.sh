#!/usr/bin/env bash
# blackbox_exporter does not see a greeting that has no end of line, and gives no reason.
#
# Program:  prometheus-blackbox-exporter 0.23.0 (Debian), prober tcp with query_response, and servers that keep the
#           connection open after their greeting.
# Guess:    expect is a pattern that is looked for in what has come, as with HAProxy's tcp-check or check_tcp.
# Seen:     it reads lines. A greeting without a line feed is not looked at before the server closes: the probe fails
#           at its time limit, and probe_failed_due_to_regex stays 0, as if nothing had come. The text of send gets a line
#           feed of its own.
# Output:   "220 ready", line feed              success 1   due to regex 0   at once
#           "220 ready"                         success 0   due to regex 0   after 3 s
#           "220 ready", then closed            success 1   due to regex 0   at once
#           send: PING, answer "PONG"           success 0   due to regex 0   after 3 s
# Means:    binary protocols and servers that greet without a line cannot be watched so, though the balancer's own
#           probe passes: the two disagree about a healthy server. Use a plain connect there.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
PIDS=()
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

deb prometheus-blackbox-exporter=0.23.0-4+b4
cat >"$T/config" <<'END'
modules:
  greeting: { prober: tcp, timeout: 3s, tcp: { query_response: [{ expect: "^220" }] } }
  pong: { prober: tcp, timeout: 3s, tcp: { query_response: [{ send: "PING" }, { expect: "PONG" }] } }
END
P=$(port)
"$T/r/usr/bin/prometheus-blackbox-exporter" --config.file="$T/config" --web.listen-address="127.0.0.1:$P" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$P" <<'EOP'
import socket, sys, threading, time, urllib.request
kept, exporter = [], f"127.0.0.1:{sys.argv[1]}"
def server(text, asked=False, closes=False):
    listener = socket.create_server(("127.0.0.1", 0))
    def serve():
        while True:
            connection, _ = listener.accept()
            kept.append(connection)
            if asked: connection.recv(100)
            connection.sendall(text)
            if closes: connection.close()
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]
def probe(module, port):
    begun = time.monotonic()
    url = f"http://{exporter}/probe?module={module}&target=127.0.0.1:{port}"
    with urllib.request.urlopen(url, timeout=20) as answer: lines = answer.read().decode().splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    took = time.monotonic() - begun
    return int(values["probe_success"]), int(values["probe_failed_due_to_regex"]), "at once" if took < 2 else f"after {took:.0f} s"
for _ in range(100):
    try: socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close(); break
    except ConnectionRefusedError: time.sleep(0.1)
seen = {
    '"220 ready", line feed': probe("greeting", server(b"220 ready\n")),
    '"220 ready"': probe("greeting", server(b"220 ready")),
    '"220 ready", then closed': probe("greeting", server(b"220 ready", closes=True)),
    'send: PING, answer "PONG"': probe("pong", server(b"PONG", asked=True)),
}
for what, (success, regex, took) in seen.items(): print(f"{what:36}success {success}   due to regex {regex}   {took}")
late = (0, 0, "after 3 s")
sys.exit(list(seen.values()) != [(1, 0, "at once"), late, (1, 0, "at once"), late])
EOP
