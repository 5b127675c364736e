#!/usr/bin/env bash
# gunicorn gives an application no REMOTE_ADDR for a balancer's own probe, and refuses the same in v1.
#
# Program:  gunicorn 27.0.1 (PyPI), --proxy-protocol auto, an application that answers its REMOTE_ADDR.
# Guess:    for LOCAL the connection's own address counts, as the protocol says, and for UNKNOWN too.
# Seen:     after LOCAL the key is there and holds None, not a text (PEP 3333 has texts only). UNKNOWN
#           gets status 400, PROXY with family UNSPEC 500 and a stack trace in the log. Without a header
#           (auto takes that) it is the address.
# Output:   no header      200 '127.0.0.1'
#           v2 TCP4        200 '192.0.2.1'
#           v2 LOCAL       200 None
#           v2 UNSPEC      500
#           v1 TCP4        200 '192.0.2.1'
#           v1 UNKNOWN     400
# Means:    an application that reads the address (a log, a limit, ipaddress.ip_address) fails for
#           probes alone: the balancer takes out servers that serve all clients. Treat None in the path
#           that is probed; probe with version 2.
set -euo pipefail

T=$(mktemp -d); PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
ports() { # as many free ones as wanted, all different
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" gunicorn==27.0.1
read -r P <<<"$(ports 1)"; export PYTHONPATH=$T/py:$T
cat >"$T/application.py" <<'EOF'
def application(environ, start):
    body = repr(environ["REMOTE_ADDR"]).encode()
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
EOF
python3 -m gunicorn -b "127.0.0.1:$P" --proxy-protocol auto --no-control-socket application 2>"$T/log" & PIDS+=($!)
python3 - "$P" <<'EOF'
import socket, struct, sys, time
port = int(sys.argv[1])
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 1111, 80)
def v2(command, family, body=b""):
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body
def ask(header):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", port), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    with s:
        s.sendall(header + b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        head, _, body = s.makefile().read().partition("\n\n")
    status = head.split()[1]
    return f"{status} {body}" if status == "200" else status
cases = [("no header", b"", "200 '127.0.0.1'"), ("v2 TCP4", v2(1, 0x11, V4), "200 '192.0.2.1'"),
         ("v2 LOCAL", v2(0, 0), "200 None"), ("v2 UNSPEC", v2(1, 0), "500"), ("v1 TCP4", b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 80\r\n", "200 '192.0.2.1'"),
         ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n", "400")]
held = True
for what, header, wanted in cases:
    found = ask(header)
    print(f"{what:15}{found}")
    held = held and found == wanted
sys.exit(not held)
EOF
