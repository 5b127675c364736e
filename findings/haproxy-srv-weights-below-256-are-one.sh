#!/usr/bin/env bash
# HAProxy divides the weights of SRV records by 256: 10 and 90 are equal, and zeros get no session.
#
# Program:  haproxy 2.6.12-1+deb12u4 (Debian), server-template with SRV records, roundrobin; dnspython 2.9.2
#           (PyPI) answers on loopback.
# Guess:    weights 10 and 90 share as RFC 2782 has it, 10 : 90; without weights, which are zeros in
#           SRV, all serve alike.
# Seen:     a server's weight is the record's weight / 256, at least 1: below 256 all are equal. Zero
#           stays zero: with two records of weight 0 both servers are there and none gets a session,
#           "has no server available".
# Output:   weights 10 and 90          100 : 100
#           weights 1 and 255          100 : 100
#           weights 2560 and 23040      20 : 180
#           weights 0 and 0              0 : 0, 200 refused
# Means:    clients that read the same records obey the weights, the balancer does not. Names for it: use
#           multiples of 256 and no zeros; set the weight in the file where the name server gives zeros.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"; PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}
ports() { # as many free ones as wanted, all different
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

deb haproxy=2.6.12-1+deb12u4
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" dnspython==2.9.2
export PYTHONPATH=$T/py
read -r A B F <<<"$(ports 3)"
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
resolvers here
 nameserver one 127.0.0.1:PORT
 hold valid 1s
 timeout resolve 1s
listen front
 bind 127.0.0.1:$F
 balance roundrobin
 server-template s 2 _http._tcp.service.test resolvers here resolve-prefer ipv4 init-addr none
EOF
python3 - "$A" "$B" "$F" "$T" "$LIBS" <<'EOF'
import collections, os, socket, subprocess, sys, threading, time
import dns.flags, dns.message, dns.rdatatype, dns.rrset
first, second, front = map(int, sys.argv[1:4])
folder, libraries = sys.argv[4:]
weights, asked = (10, 90), collections.Counter()
def serve(port, name):
    listener = socket.create_server(("127.0.0.1", port))
    while True:
        connection, _ = listener.accept()
        try: connection.sendall(name)
        except OSError: pass
        connection.close()
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 0))
def resolve():
    while True:
        data, peer = names.recvfrom(4096)
        query = dns.message.from_wire(data)
        question, answer = query.question[0], dns.message.make_response(query)
        answer.flags |= dns.flags.RA | dns.flags.AA
        if question.rdtype == dns.rdatatype.SRV:
            asked[weights] += 1
            records = [f"1 {weight} {port} {name}.test." for weight, port, name in zip(weights, (first, second), "ab")]
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "SRV", *records))
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", "127.0.0.1"))
        names.sendto(answer.to_wire(), peer)
for target, args in (serve, (first, b"1")), (serve, (second, b"2")), (resolve, ()):
    threading.Thread(target=target, args=args, daemon=True).start()
with open(f"{folder}/haproxy") as file: text = file.read().replace("PORT", str(names.getsockname()[1]))
with open(f"{folder}/haproxy", "w") as file: file.write(text)
def ask():
    try:
        with socket.create_connection(("127.0.0.1", front), timeout=10) as s: return s.recv(1)
    except ConnectionError: return b""
def shares(wanted):
    global weights
    weights = wanted
    for _ in range(200):  # two answers with these weights, so that the first has been taken in
        if asked[wanted] > 2: break
        time.sleep(0.1)
    time.sleep(2)
    seen = collections.Counter(ask() for _ in range(200))
    return seen[b"1"], seen[b"2"]
with open(f"{folder}/log", "w") as log:
    proxy = subprocess.Popen([f"{folder}/r/usr/sbin/haproxy", "-db", "-f", f"{folder}/haproxy"], stderr=log,
                             env={**os.environ, "LD_LIBRARY_PATH": libraries})
held = True
try:
    for wanted in (10, 90), (1, 255), (2560, 23040), (0, 0):
        one, two = shares(wanted)
        print(f"weights {wanted[0]} and {wanted[1]}".ljust(26), f"{one} : {two}")
        expected = {(2560, 23040): 20, (0, 0): 0}.get(wanted, 100)
        held = held and abs(one - expected) <= 4 and one + two == (200 if any(wanted) else 0)
finally:
    proxy.terminate()
    proxy.wait()
sys.exit(not held)
EOF
