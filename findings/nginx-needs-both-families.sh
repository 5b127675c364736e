#!/usr/bin/env bash
# nginx does not use a name's IPv4 address when the question for an IPv6 one gets an error.
#
# Program:  nginx and libnginx-mod-stream 1.22.1 (Debian), proxy_pass to a name in a variable, resolver_timeout 3s; a
#           name server on loopback that has an A record, and answers AAAA in six ways. Beside it HAProxy 2.6.12 with
#           server-template and a resolvers section.
# Guess:    an address that was found is used: at once, or after the time limit where the other answer does not come.
# Seen:     nginx asks for both and takes the A record only if AAAA has an answer without an error. Else it closes the
#           client, at once, or after resolver_timeout. HAProxy goes on to A after an error; where nothing comes it
#           still has no address after eight seconds, unless it has resolve-prefer ipv4.
# Output:   AAAA             nginx                nginx, ipv6=off    HAProxy
#           no records       served               served             served
#           no answer        closed after 3 s     served             closed
#           SERVFAIL         closed               served             served
#           NXDOMAIN         closed               served             served
#           REFUSED          closed               served             served
#           NOTIMP           closed               served             served
#           no answer, resolve-prefer ipv4                          served
# Means:    a name server or firewall that is bad at AAAA takes an IPv4 service down as soon as its name is looked up
#           again. Write "resolver ... ipv6=off", and resolve-prefer ipv4, where backends have IPv4 addresses only.
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

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 haproxy=2.6.12-1+deb12u4
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" dnspython==2.9.2
mkdir "$T/logs"
PYTHONPATH=$T/py LD_LIBRARY_PATH=$LIBS python3 - "$T" <<'EOF'
import socket, subprocess, sys, threading, time
import dns.flags, dns.message, dns.rcode, dns.rdatatype, dns.rrset
T, HOST = sys.argv[1], "127.0.0.1"
WAYS = {"no records": dns.rcode.NOERROR, "no answer": None, "SERVFAIL": dns.rcode.SERVFAIL, "NXDOMAIN": dns.rcode.NXDOMAIN,
        "REFUSED": dns.rcode.REFUSED, "NOTIMP": dns.rcode.NOTIMP}
names, way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "no records"
names.bind((HOST, 0))
def resolve():
    while True:
        packet, client = names.recvfrom(4096)
        query = dns.message.from_wire(packet)
        answer, asked = dns.message.make_response(query), query.question[0]
        answer.flags |= dns.flags.AA | dns.flags.RA
        if asked.rdtype == dns.rdatatype.A: answer.answer = [dns.rrset.from_text(asked.name, 60, "IN", "A", HOST)]
        elif WAYS[way] is None: continue
        else: answer.set_rcode(WAYS[way])
        names.sendto(answer.to_wire(), client)
backend = socket.create_server((HOST, 0))
def serve():
    while True:
        connection, _ = backend.accept()
        with connection: connection.sendall(b"here")
for target in (resolve, serve): threading.Thread(target=target, daemon=True).start()
DNS, SERVER = names.getsockname()[1], backend.getsockname()[1]
def free():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
def ask(port):  # "served", "closed", and after how many seconds
    for _ in range(100):
        try: client = socket.create_connection((HOST, port), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    begun = time.monotonic()
    with client:
        try: data = client.recv(10)
        except ConnectionResetError: data = b""
    return "served" if data == b"here" else "closed", time.monotonic() - begun
def run(command, port, patience=0):  # seconds in which a first answer may come
    proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + patience
        while True:
            seen = ask(port)
            if seen[0] == "served" or time.monotonic() >= until: return seen
            time.sleep(0.2)
    finally: proxy.terminate(); proxy.wait()
def nginx(more):
    port = free()
    with open(f"{T}/nginx", "w") as conf: conf.write(f"""load_module {T}/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {T}/pid; error_log {T}/logs/error;
events {{}}
stream {{
  resolver {HOST}:{DNS} {more}; resolver_timeout 3s;
  map $server_port $name {{ default one.test; }}
  server {{ listen {HOST}:{port}; proxy_pass $name:{SERVER}; }}
}}
""")
    return run([f"{T}/r/usr/sbin/nginx", "-c", f"{T}/nginx", "-p", T], port)
def haproxy(more=""):
    port = free()
    with open(f"{T}/haproxy", "w") as conf: conf.write(f"""defaults
 timeout client 10s
 timeout server 10s
 timeout connect 1s
resolvers names
 nameserver one {HOST}:{DNS}
 timeout retry 200ms
 timeout resolve 200ms
listen l
 bind {HOST}:{port}
 server-template s 1 one.test:{SERVER} resolvers names init-addr none {more}
""")
    return run([f"{T}/r/usr/sbin/haproxy", "-db", "-f", f"{T}/haproxy"], port, 8)
print(f"{'AAAA':17}{'nginx':21}{'nginx, ipv6=off':19}HAProxy")
held = True
for way in WAYS:
    (both, seconds), (four, _), (other, _) = nginx(""), nginx("ipv6=off"), haproxy()
    late = " after 3 s" if 2 < seconds < 6 else ""
    print(f"{way:17}{both + late:21}{four:19}{other}")
    wanted = {"no records": "served", "no answer": "closed after 3 s"}.get(way, "closed")
    held = held and (both + late, four, other) == (wanted, "served", "closed" if way == "no answer" else "served")
way = "no answer"
preferred, _ = haproxy("resolve-prefer ipv4")
print(f"{way + ', resolve-prefer ipv4':57}{preferred}")
sys.exit(not (held and preferred == "served"))
EOF
