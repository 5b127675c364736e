#!/usr/bin/env bash
# HAProxy's consistent hash goes by a server's place in the file, not by its name or address.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), balance hdr(x), hash-type consistent.
# Guess:    "consistent": of three servers take out any one, and a third of the clients move; the
#           order of the lines means nothing.
# Seen:     points on the circle come from the server's id, and ids are given by position. Taking
#           out the last line moves a third; taking out the first moves three quarters, because b
#           becomes the first and c the second. Two lines exchanged exchange all of their clients.
#           Names and addresses can change freely. With "id N" on each server it is as guessed.
# Output:   a b c -> a b    141 of 400 moved
#           a b c -> b c    293 of 400 moved
#           a b c -> c b a  277 of 400 moved
#           a b c -> b c    116 of 400 moved, with ids
# Means:    two balancers whose files list the same servers in another order disagree, and a server
#           taken out of the file for good costs most caches. Give servers an id, or set weight 0 or
#           "disabled" and leave the line. A table by name (evenkeel's, Envoy's, nginx's) has none
#           of this: there the name, or address, has to stay.
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

deb haproxy=2.6.12-1+deb12u4
python3 - "$T/r/usr/sbin/haproxy" "$LIBS" "$T" <<'EOF'
import http.client, os, socket, subprocess, sys, time
program, libs, folder = sys.argv[1:]
def free():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); return s.getsockname()[1]
at = {name: free() for name in "abc"}
def who(order, ids=False):
    front = free()
    with open(folder + "/cfg", "w") as f:
        f.write("defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n")
        for name, port in at.items():
            f.write(f"frontend {name}\n bind 127.0.0.1:{port}\n http-request return content-type a/b string {name}\n")
        f.write(f"frontend f\n bind 127.0.0.1:{front}\n default_backend p\n")
        f.write("backend p\n balance hdr(x)\n hash-type consistent\n")
        for name in order:
            f.write(f" server {name} 127.0.0.1:{at[name]}" + (f" id {ord(name)}" if ids else "") + "\n")
    proxy = subprocess.Popen([program, "-db", "-f", folder + "/cfg"], env=dict(os.environ, LD_LIBRARY_PATH=libs),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try: socket.create_connection(("127.0.0.1", front)).close(); break
            except ConnectionRefusedError: time.sleep(0.1)
        c = http.client.HTTPConnection("127.0.0.1", front, timeout=10)
        chosen = []
        for n in range(400):
            c.request("GET", "/", headers={"x": f"client{n}"}); chosen.append(c.getresponse().read())
        c.close()
        return chosen
    finally: proxy.terminate(); proxy.wait()
def moved(one, other): return sum(a != b for a, b in zip(one, other))
base = who("abc")
seen = [moved(base, who("ab")), moved(base, who("bc")), moved(base, who("cba")), moved(who("abc", True), who("bc", True))]
for what, n in zip(("a b", "b c", "c b a", "b c, with ids"), seen): print(f"a b c -> {what}: {n} of 400 moved")
sys.exit(not (100 < seen[0] < 180 and seen[1] > 250 and seen[2] > 230 and 90 < seen[3] < 180))
EOF
