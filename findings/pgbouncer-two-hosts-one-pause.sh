#!/usr/bin/env bash
# PgBouncer with two hosts lets a client wait 15 s before it asks the second.
#
# Program:  pgbouncer 1.18.0 (Debian), host=127.0.0.21,127.0.0.22 in [databases], psycopg2-binary 2.9.10 (PyPI) as the
#           client. The first host refuses, closes or is silent; the second is well, and only speaks as a server would.
# Guess:    hosts in a list are asked one after the other: a refused connect costs no time (a silent host
#           server_connect_timeout, 15 s).
# Seen:     a connect that has failed keeps the whole pool from trying again for server_login_retry, 15 s, the other
#           host too. With 1 in place of 15 it is a second.
# Output:                      first query     the next
#           refuses            15 s            at once
#           closes             15 s            at once
#           refuses, retry 1   1 s             at once
# Means:    two balancers or servers in PgBouncer's list: while one is down every new server connection may stand for
#           15 s, longer than most clients wait. Set server_login_retry to 1, and put one balanced address there.
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

deb pgbouncer=1.18.0-1+deb12u1
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" psycopg2-binary==2.9.10
mkdir -m 777 "$T/run"
PYTHONPATH=$T/py python3 - "$T" "$LIBS" <<'EOP'
import os, socket, struct, subprocess, sys, threading, time
import psycopg2
T, libs = sys.argv[1:]
BAD, WELL, USER = "127.0.0.21", "127.0.0.22", 65534
def message(kind, body): return kind + struct.pack("!I", len(body) + 4) + body
SETTINGS = (b"server_version\x0015.0\0", b"client_encoding\0UTF8\0", b"DateStyle\0ISO\0", b"TimeZone\0UTC\0",
            b"standard_conforming_strings\0on\0", b"application_name\0\0")
READY = message(b"Z", b"I")
GREETING = message(b"R", bytes(4)) + b"".join(message(b"S", pair) for pair in SETTINGS) + message(b"K", bytes(8)) + READY
def postgres(connection):  # any query is answered with "SET"
    with connection:
        connection.recv(1000)
        connection.sendall(GREETING)
        try:
            while connection.recv(1000): connection.sendall(message(b"C", b"SET\0") + READY)
        except ConnectionResetError: pass  # the end of pgbouncer
def closing(connection):
    with connection: connection.recv(1000)
def server(address, behaviour):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    def serve():
        while True: threading.Thread(target=behaviour, args=(listener.accept()[0],), daemon=True).start()
    if behaviour:
        listener.listen(50)
        threading.Thread(target=serve, daemon=True).start()
    return listener
def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
def ask(port):
    begun = time.monotonic()
    with psycopg2.connect(f"host=127.0.0.1 port={port} user=u dbname=d sslmode=disable gssencmode=disable") as client: client.autocommit = True
    client.cursor().execute("SET a = 1")
    client.close()
    return time.monotonic() - begun
def run(behaviour, more=""):
    bad = server((BAD, 0), behaviour)
    well = server((WELL, bad.getsockname()[1]), postgres)
    port = free()
    with open(f"{T}/run/conf", "w") as conf: conf.write(f"""[databases]
d = host={BAD},{WELL} port={bad.getsockname()[1]} user=u
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
{more}
""")
    bouncer = subprocess.Popen([f"{T}/r/usr/sbin/pgbouncer", f"{T}/run/conf"], user=USER, group=USER, extra_groups=[],
                               env={**os.environ, "LD_LIBRARY_PATH": libs}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try: socket.create_connection(("127.0.0.1", port), timeout=5).close(); break
            except ConnectionRefusedError: time.sleep(0.1)
        return ask(port), ask(port)
    finally:
        bouncer.terminate(); bouncer.wait(); bad.close(); well.close()
def words(seconds): return "at once" if seconds < 0.8 else f"{seconds:.0f} s"
seen = {"refuses": run(None), "closes": run(closing), "refuses, retry 1": run(None, "server_login_retry = 1")}
print(f"{'':19}first query     the next")
for what, (first, following) in seen.items(): print(f"{what:19}{words(first):16}{words(following)}")
long, short = [seen[what][0] for what in ("refuses", "closes")], seen["refuses, retry 1"][0]
sys.exit(not (all(13 < first < 20 for first in long) and 0.5 < short < 4 and all(words(following) == "at once" for _, following in seen.values())))
EOP
