#!/usr/bin/env bash
# Twisted spells one IPv6 client in two ways, by the version of the PROXY protocol that names it.
#
# Program:  Twisted 26.10.0 (PyPI), the endpoint "haproxy:tcp:PORT", transport.getPeer().host.
# Guess:    version 1 and 2 give the same text, the one that a direct connection has.
# Seen:     version 1 gives the text of the header, version 2 writes every group out. Equal clients
#           compare as different. (And UNKNOWN is closed, unless addresses follow.)
# Output:   v1 TCP6 2001:db8::1              2001:db8::1
#           v1 TCP6 2001:DB8:0:0:0:0:0:1     2001:DB8:0:0:0:0:0:1
#           v2 TCP6                          2001:db8:0:0:0:0:0:1
#           v1 UNKNOWN                       closed
#           v1 UNKNOWN with addresses        127.0.0.1
# Means:    a balancer that changes from v1 to v2 renames all its IPv6 clients: bans, limits, sessions and
#           logs by text no longer find them. Store ipaddress.ip_address(host), not the text.
set -euo pipefail

T=$(mktemp -d); PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
ports() { # as many free ones as wanted, all different
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" twisted==26.10.0
read -r P <<<"$(ports 1)"; export PYTHONPATH=$T/py
python3 - "$P" 2>"$T/log" <<'EOF' & PIDS+=($!)
import sys
from twisted.internet import endpoints, protocol, reactor
class Name(protocol.Protocol):
    def dataReceived(self, _):
        self.transport.write(self.transport.getPeer().host.encode())
        self.transport.loseConnection()
endpoints.serverFromString(reactor, f"haproxy:tcp:{sys.argv[1]}:interface=127.0.0.1").listen(protocol.Factory.forProtocol(Name))
reactor.run()
EOF
python3 - "$P" <<'EOF'
import socket, struct, sys, time
port = int(sys.argv[1])
V6 = 2 * socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack(">HH", 1111, 80)
def ask(header):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", port), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    with s:
        s.sendall(header + b"hello")
        try: return s.makefile().read() or "closed"
        except ConnectionResetError: return "closed"
def line(text): return f"PROXY {text}\r\n".encode()
cases = [("v1 TCP6 2001:db8::1", line("TCP6 2001:db8::1 2001:db8::1 1111 80"), "2001:db8::1"),
         ("v1 TCP6 2001:DB8:0:0:0:0:0:1", line("TCP6 2001:DB8:0:0:0:0:0:1 2001:db8::1 1111 80"), "2001:DB8:0:0:0:0:0:1"),
         ("v2 TCP6", b"\r\n\r\n\0\r\nQUIT\n\x21\x21" + struct.pack(">H", len(V6)) + V6, "2001:db8:0:0:0:0:0:1"),
         ("v1 UNKNOWN", line("UNKNOWN"), "closed"),
         ("v1 UNKNOWN with addresses", line("UNKNOWN 192.0.2.1 192.0.2.2 1111 80"), "127.0.0.1")]
held = True
for what, header, wanted in cases:
    found = ask(header)
    print(f"{what:33}{found}")
    held = held and found == wanted
sys.exit(not held)
EOF
