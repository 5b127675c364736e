#!/usr/bin/env bash
# A mosquitto bridge leaves a broker that works, again and again, for one that only accepts.
#
# Program:  mosquitto 2.0.11 (Debian), a bridge with "addresses" of two brokers; the first accepts and closes, as a
#           balancer without servers does, the second is well.
# Guess:    the bridge settles at the second, and comes back when the first has taken it as a client again.
# Seen:     it goes to the second, and while there tries the first by a bare connect. That is accepted, so it leaves the
#           second, is closed by the first, and begins anew. With a first one that does not listen it stays. With one
#           that accepts and says nothing it never gets to the second.
# Output:                       connects to the second in 45 s    connected there at the end of it
#           does not listen     1                                 stays
#           accepts and closes  2 or more                         comes and goes
#           accepts, is silent  0                                 never there
# Means:    messages of a bridge stop and go while the second broker is well. Balancers in such a list have to stop
#           listening when they have no server; round_robin true keeps the bridge from looking back.
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

deb mosquitto=2.0.11-1.2+deb12u2
cd "$T" && LD_LIBRARY_PATH=$LIBS python3 - "$T/r/usr/sbin/mosquitto" <<'EOP'
import socket, subprocess, sys, threading, time
HOST, SECONDS, kept = "127.0.0.1", 45, []
def server(way, connects):
    listener = socket.socket()
    listener.bind((HOST, 0))
    kept.append(listener)  # bound without listening, nothing else gets the port
    def broker(connection):
        with connection:
            try:
                while packet := connection.recv(1000):
                    if packet[0] == 0x10:  # CONNECT
                        connects.append(time.monotonic())
                        connection.sendall(b"\x20\x02\0\0")
                    if packet[0] == 0xC0: connection.sendall(b"\xd0\0")  # PINGREQ
            except ConnectionResetError: pass
    def serve():
        while True:
            connection, _ = listener.accept()
            if way == "well": threading.Thread(target=broker, args=(connection,), daemon=True).start(); continue
            connects.append(time.monotonic())
            if way == "accepts, is silent": kept.append(connection)
            else: connection.close()
    if way != "does not listen":
        listener.listen(50)
        threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]
def free():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
WAYS = ("does not listen", "accepts and closes", "accepts, is silent")
seen, bridges = {}, []
try:
    for number, way in enumerate(WAYS):
        first, second = seen[way] = [], []
        ports = server(way, first), server("well", second)
        with open(f"conf{number}", "w") as conf:
            conf.write(f"listener {free()} {HOST}\nallow_anonymous true\nconnection bridge\n")
            conf.write(f"addresses {HOST}:{ports[0]} {HOST}:{ports[1]}\ntopic # out 0\n")
        bridges.append(subprocess.Popen([sys.argv[1], "-c", f"conf{number}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    time.sleep(SECONDS)
    alive = all(bridge.poll() is None for bridge in bridges)
finally:
    for bridge in bridges: bridge.terminate(); bridge.wait()
print(f"{'':20}connects to the first    to the second")
for way, (first, second) in seen.items(): print(f"{way:20}{len(first):<25}{len(second)}")
ends, closes, silent = (len(seen[way][1]) for way in WAYS)
sys.exit(not (alive and ends == 1 and closes >= 2 and len(seen[WAYS[1]][0]) >= 3 and silent == 0))
EOP
