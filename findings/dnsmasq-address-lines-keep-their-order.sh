#!/usr/bin/env bash
# dnsmasq turns the addresses of a name round in every answer, but not those of "address" lines.
#
# Program:  dnsmasq 2.90 (Debian), with two addresses for a name from a hosts file, from host-record and from
#           address=/name/, and two of srv-host; a name server behind it.
# Guess:    all names are treated alike: in turn.
# Seen:     hosts files, host-record, srv-host and cached answers come in turn. Two address lines for a name come in
#           one order, the last line first, for ever.
# Output:   hosts file      first addresses: 2
#           host-record     first addresses: 2
#           srv-host        first addresses: 2
#           forwarded       first addresses: 2
#           address=/       first addresses: 1
# Means:    two balancers behind one name that is written as address lines (as one does for wild cards): clients that
#           take the first answer all use the last line's. Use host-record where no wild card is needed.
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

deb dnsmasq-base=2.90-4~deb12u2
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" dnspython==2.9.2
printf '10.0.0.1 file.test\n10.0.0.2 file.test\n' >"$T/hosts"
export LD_LIBRARY_PATH=$LIBS
PYTHONPATH=$T/py python3 - "$T" <<'EOP'
import socket, subprocess, sys, threading, time
import dns.exception, dns.flags, dns.message, dns.query, dns.rrset
T, HOST = sys.argv[1], "127.0.0.1"
def free():  # a port that is free for TCP and UDP
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            try: udp.bind(tcp.getsockname())
            except OSError: continue
            return tcp.getsockname()[1]
upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
upstream.bind((HOST, 0))
port = free()
def serve():  # always the same order, for a minute
    while True:
        packet, client = upstream.recvfrom(4096)
        query = dns.message.from_wire(packet)
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        answer.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "10.0.3.1", "10.0.3.2")]
        upstream.sendto(answer.to_wire(), client)
threading.Thread(target=serve, daemon=True).start()
command = [f"{T}/r/usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-p", str(port), f"--listen-address={HOST}", "--bind-interfaces", "-R", "-h",
           "--pid-file", "--user=root", f"--addn-hosts={T}/hosts", f"--server=/forwarded.test/{HOST}#{upstream.getsockname()[1]}",
           "--host-record=record.test,10.0.1.1", "--host-record=record.test,10.0.1.2",
           "--address=/address.test/10.0.2.1", "--address=/address.test/10.0.2.2",
           "--srv-host=_x._tcp.test,one.test,80", "--srv-host=_x._tcp.test,two.test,80"]
def first(name, kind):
    answer = dns.query.udp(dns.message.make_query(name, kind), HOST, port=port, timeout=5)
    return str(answer.answer[0][0])
server = subprocess.Popen(command)
try:
    for _ in range(100):
        try: first("record.test", "A"); break
        except (OSError, dns.exception.DNSException): time.sleep(0.1)
    names = {"hosts file": ("file.test", "A"), "host-record": ("record.test", "A"), "srv-host": ("_x._tcp.test", "SRV"),
             "forwarded": ("forwarded.test", "A"), "address=/": ("address.test", "A")}
    seen = {what: {first(*asked) for _ in range(40)} for what, asked in names.items()}
finally: server.terminate(); server.wait()
for what, firsts in seen.items(): print(f"{what:16}first addresses: {len(firsts)}")
sys.exit([len(firsts) for firsts in seen.values()] != [2, 2, 2, 2, 1] or seen["address=/"] != {"10.0.2.2"})
EOP
