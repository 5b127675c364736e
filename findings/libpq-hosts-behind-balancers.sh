#!/usr/bin/env bash
# libpq with two hosts does not go on to the second when the first accepts and then closes.
#
# Programs: psycopg2-binary 2.9.10 (PyPI; libpq connects) and psycopg 3.2.3 (PyPI; tries each host
#           by itself), host=127.0.0.1,127.0.0.1 with two ports, of which the second is well.
# Guess:    a list of hosts is gone through until one serves, whatever is wrong with the first.
# Seen:     psycopg2 goes on when nobody listens and when the server says 57P03 ("cannot connect
#           now"); not after a reset or an end, and not after 53300 ("too many connections").
#           psycopg 3 goes on in each of these cases, after a wrong password too.
# Output:   first host      psycopg2    psycopg 3       (second: that host was asked)
#           nobody listens  second      second
#           resets          failed      second
#           closes          failed      second
#           says 57P03      second      second
#           says 53300      failed      second
#           says 28P01      failed      second
# Means:    two balancers in libpq's host list are no spare for each other while the first runs: with
#           its backends down it accepts and resets, and libpq stops there. It has to stop listening
#           (or its address has to move) for clients to go on.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

pip() { python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" "$@"; }
pip psycopg2-binary==2.9.10 'psycopg[binary]==3.2.3'
PYTHONPATH=$T/py python3 - "$(port)" <<'EOF'
import socket, struct, sys, threading
import psycopg, psycopg2
def message(kind, body): return kind + struct.pack("!I", len(body) + 4) + body
WELL = message(b"R", bytes(4)) + b"".join(message(b"S", pair) for pair in (b"server_version\x0015.0\0", b"client_encoding\0UTF8\0")) \
    + message(b"K", bytes(8)) + message(b"Z", b"I")
def server(answer):
    listener = socket.create_server(("127.0.0.1", 0))
    def serve(connection):
        try:
            connection.recv(1000)
            if answer == WELL: reached.append(1)
            if answer is None: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else: connection.sendall(answer)
            if answer == WELL: connection.recv(1000)
        except OSError: pass
        connection.close()
    def accept():
        while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]
def says(code): return message(b"E", b"SFATAL\0VFATAL\0C" + code + b"\0Mno\0\0")
reached = []
well = server(WELL)
def attempt(driver, port):
    hosts = f"host=127.0.0.1,127.0.0.1 port={port},{well} user=x dbname=x sslmode=disable gssencmode=disable connect_timeout=10"
    reached.clear()
    try: driver.connect(hosts).close()
    except (psycopg2.OperationalError, psycopg.OperationalError): pass  # ours knows no queries
    return "second" if reached else "failed"
firsts = {"nobody listens": int(sys.argv[1]), "resets": server(None), "closes": server(b""), "says 57P03": server(says(b"57P03")),
          "says 53300": server(says(b"53300")), "says 28P01": server(says(b"28P01"))}
print(f"{'first host':16}{'psycopg2':12}psycopg 3")
seen = [(attempt(psycopg2, port), attempt(psycopg, port)) for port in firsts.values()]
for what, (two, three) in zip(firsts, seen): print(f"{what:16}{two:12}{three}")
yes, no = "second", "failed"
sys.exit(seen != [(yes, yes), (no, yes), (no, yes), (yes, yes), (no, yes), (no, yes)])
EOF
