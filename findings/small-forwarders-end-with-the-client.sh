#!/usr/bin/env bash
# Four small TCP forwarders drop the answer of a server whose client has sent FIN.
#
# Programs: rinetd 0.73, pen 0.34.1, redir 3.3, simpleproxy 3.5 (Debian), a server that reads to the end and
#           answers half a second later.
# Guess:    a forwarder passes the end of one direction on and goes on with the other; that is all it has to do.
# Seen:     each closes both sides when the client's side has ended. With a client that keeps its side open the answer
#           comes through.
# Output:                 side open     side ended
#           rinetd        answer        nothing
#           pen           answer        nothing
#           redir         answer        nothing
#           simpleproxy   answer        nothing
# Means:    "nc -N", "ssh host cat", finger, whois, gopher, backups over netcat and "printf | nc" in health checks
#           work directly and fail through them: in front of or behind a balancer that does pass a FIN on, they are the
#           place to look.
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

deb rinetd=0.73-1 pen=0.34.1-2+b1 redir=3.3-1 simpleproxy=3.5-1+b2
cd "$T" && LD_LIBRARY_PATH=$LIBS python3 - "$T/r" <<'EOP'
import socket, subprocess, sys, threading, time
root, HOST = sys.argv[1], "127.0.0.1"
def free():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
def answer(connection):  # to the end of a line or of the stream
    with connection:
        got = b""
        while not got.endswith(b"\n"):
            part = connection.recv(1000)
            if not part: break
            got += part
        time.sleep(0.5)
        try: connection.sendall(b"answer")
        except OSError: pass  # the forwarder has gone
listener = socket.create_server((HOST, 0))
def serve():
    while True: threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
back = listener.getsockname()[1]
def ask(port, ends):
    for _ in range(100):
        try: client = socket.create_connection((HOST, port), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    with client:
        client.sendall(b"question" if ends else b"question\n")
        if ends: client.shutdown(socket.SHUT_WR)
        try: return "answer" if client.recv(100) == b"answer" else "nothing"
        except ConnectionResetError: return "nothing"
def commands(port):
    with open("rinetd.conf", "w") as conf: conf.write(f"{HOST} {port} {HOST} {back}\n")
    return {"rinetd": ["usr/sbin/rinetd", "-f", "-c", "rinetd.conf"], "pen": ["usr/bin/pen", "-f", f"{HOST}:{port}", f"{HOST}:{back}"],
            "redir": ["usr/bin/redir", "-n", f"{HOST}:{port}", f"{HOST}:{back}"],
            "simpleproxy": ["usr/bin/simpleproxy", "-L", f"{HOST}:{port}", "-R", f"{HOST}:{back}"]}
direct = [ask(back, ends) for ends in (False, True)]
print(f"{'':14}side open     side ended\n{'directly':14}{direct[0]:14}{direct[1]}")
held = direct == ["answer", "answer"]
for name in ("rinetd", "pen", "redir", "simpleproxy"):
    port = free()
    program, *rest = commands(port)[name]
    forwarder = subprocess.Popen([f"{root}/{program}", *rest], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try: seen = [ask(port, ends) for ends in (False, True)]
    finally: forwarder.terminate(); forwarder.wait()
    print(f"{name:14}{seen[0]:14}{seen[1]}")
    held = held and seen == ["answer", "nothing"]
sys.exit(not held)
EOP
