#!/usr/bin/env bash
# Two clients with a list of two hosts do not get past a first one that accepts and closes.
#
# Programs: ldap3 2.9.1 (ServerPool), stomp-py 9.0.0, and beside them pika 1.4.4, asyncpg 0.32.0 (PyPI). The first
#           host refuses, resets or closes with FIN, the second is well.
# Guess:    lists of hosts are there for this: whatever is wrong with the first, the second is asked within a
#           few seconds.
# Seen:     ldap3 and stomp-py go on only when nothing listens. ldap3's pool looks before it chooses (active=True
#           is the default), but by a connect, which a balancer without servers accepts.
# Output:                       nothing listens    resets         closes
#           ldap3               second             failed         failed
#           stomp-py            second             failed         failed
#           pika                second             second         second
#           asyncpg             second             second         second
# Means:    two balancers in such a list are no spare for each other while the first one runs without servers: it
#           has to stop listening, or its address has to move. The same holds for libpq.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

pip() { python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" "$@"; }
pip ldap3==2.9.1 stomp-py==9.0.0 pika==1.4.4 asyncpg==0.32.0
cd "$T" && PYTHONPATH=$T/py python3 - <<'EOF'
import asyncio, logging, socket, struct, sys, threading, time
import asyncpg, ldap3, pika, stomp
logging.disable(logging.CRITICAL)
HOST, LONGEST, kept = "127.0.0.1", 10, []
def read(connection):  # what the client says first, if anything: with unread bytes the close would be a reset
    connection.settimeout(0.3)
    try: connection.recv(1000)
    except OSError: pass
def server(way, asked=None):
    listener = socket.socket()
    listener.bind((HOST, 0))
    kept.append(listener)  # bound without listening, nothing else gets the port
    def serve():
        while True:
            connection, _ = listener.accept()
            if way == "well": asked.set(); kept.append(connection)  # to be asked is enough
            else: threading.Thread(target=refuse, args=(connection,), daemon=True).start()
    def refuse(connection):
        read(connection)
        if way == "resets": connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    if way != "nothing listens":
        listener.listen(100)
        threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]
def ldap(ports):
    servers = [ldap3.Server(HOST, port, connect_timeout=5) for port in ports]
    ldap3.Connection(ldap3.ServerPool(servers, ldap3.FIRST), receive_timeout=5).bind()
def stomp_(ports): stomp.Connection([(HOST, port) for port in ports]).connect("user", "password", wait=True)
def pika_(ports): pika.BlockingConnection([pika.ConnectionParameters(HOST, port) for port in ports])
def pg(ports): asyncio.run(asyncpg.connect(host=[HOST] * 2, port=ports, user="u", timeout=LONGEST))
def attempt(client, ports, ended):
    try: client(ports)
    except (ldap3.core.exceptions.LDAPException, stomp.exception.StompException, pika.exceptions.AMQPError, OSError): pass
    ended.set()
WAYS = ("nothing listens", "resets", "closes")
CLIENTS = {"ldap3": ldap, "stomp-py": stomp_, "pika": pika_, "asyncpg": pg}
def run(client, way):
    asked, ended = threading.Event(), threading.Event()
    ports, begun = [server(way), server("well", asked)], time.monotonic()
    threading.Thread(target=attempt, args=(client, ports, ended), daemon=True).start()
    while not asked.is_set() and not ended.is_set() and time.monotonic() < begun + LONGEST: time.sleep(0.05)
    return "second" if asked.wait(1) else "failed"
seen = {}
print(f"{'':20}" + "".join(f"{way:19}" for way in WAYS))
for name, client in CLIENTS.items():
    seen[name] = [run(client, way) for way in WAYS]
    print(f"{name:20}" + "".join(f"{result:19}" for result in seen[name]))
yes, no = "second", "failed"
wanted = {"ldap3": [yes, no, no], "stomp-py": [yes, no, no], "pika": [yes] * 3, "asyncpg": [yes] * 3}
sys.exit(seen != wanted)
EOF
