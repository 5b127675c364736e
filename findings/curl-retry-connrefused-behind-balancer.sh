#!/usr/bin/env bash
# curl --retry-connrefused does not wait for a service behind a TCP balancer, nor does --retry.
#
# Program:  curl and libcurl4 7.88.1-10+deb12u15 (Debian).
# Guess:    with --retry 2 --retry-connrefused curl asks again while the service is down.
# Seen:     asked directly, yes. Behind a balancer the handshake succeeds, and a reset or an end comes
#           after it: exit 56 or 52 after one connection, which curl takes for no passing failure.
#           Only --retry-all-errors asks again.
# Output:   nobody listens                     exit 7  after 2 s
#           accepted, then reset               exit 56, 1 connection
#           accepted, request read, then FIN   exit 52, 1 connection
#           reset, with --retry-all-errors     exit 56, 3 connections
# Means:    start-up scripts that wait with --retry-connrefused work on the host itself and fail
#           through the balancer, at the moment when all backends are down or starting.
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
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

deb curl=7.88.1-10+deb12u15 libcurl4=7.88.1-10+deb12u15
LD_LIBRARY_PATH=$LIBS python3 - "$T/r/usr/bin/curl" "$(port)" <<'EOF'
import socket, struct, subprocess, sys, threading, time
program, nobody = sys.argv[1], int(sys.argv[2])
def balancer(reset):
    listener, count = socket.create_server(("127.0.0.1", 0)), []
    def serve():
        while True:
            connection, _ = listener.accept()
            count.append(1)
            if reset: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else: connection.recv(4096)
            connection.close()
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], count
def run(port, *more):
    start = time.monotonic()
    done = subprocess.run([program, "-q", "-sS", "--noproxy", "*", "--retry", "2", "--retry-delay", "1",
                           "--retry-connrefused", *more, f"http://127.0.0.1:{port}/"], capture_output=True, timeout=30)
    return done.returncode, time.monotonic() - start
code, seconds = run(nobody)
print(f"nobody listens                     exit {code}  after {seconds:.0f} s")
seen = [(code, round(seconds))]
for what, reset, more in (("accepted, then reset", True, []), ("accepted, request read, then FIN", False, []),
                          ("reset, with --retry-all-errors", True, ["--retry-all-errors"])):
    port, count = balancer(reset)
    code, _ = run(port, *more)
    print(f"{what:35}exit {code}, {len(count)} connection" + "s" * (len(count) > 1))
    seen.append((code, len(count)))
sys.exit(seen != [(7, 2), (56, 1), (52, 1), (56, 3)])
EOF
