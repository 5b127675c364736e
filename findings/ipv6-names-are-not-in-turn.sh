#!/usr/bin/env bash
# A name server turns two IPv6 addresses round, and getaddrinfo turns them back: one of them gets all clients.
#
# Program:  getaddrinfo of the host's C library (seen with glibc 2.36) by Python, in network and mount namespaces; a
#           name server on loopback that turns two addresses round in every answer. None is in the client's network.
# Guess:    clients that take the first address are spread over both balancers, for A and for AAAA.
# Seen:     for A they are. AAAA answers are sorted by how many leading bits they share with the client's own address
#           (rule 9 of RFC 6724), so that each client in the same network takes the same one each time. With A that is
#           so only for an address in the client's own network.
# Output:   A, elsewhere              first addresses: 2
#           A, one of them near       first addresses: 1
#           AAAA, elsewhere           first addresses: 1
#           AAAA, equally far         first addresses: 2
# Means:    two balancers behind one name share IPv4 clients and do not share IPv6 clients. Which one is idle depends
#           on where clients live. Addresses that differ only after the bit in which both differ from the clients' (as
#           two of one /64) are in turn; else share one address (VRRP, ECMP).
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" dnspython==2.9.2
echo "nameserver 127.0.0.1" >"$T/resolv.conf"
echo "hosts: files dns" >"$T/nsswitch.conf"
cat >"$T/names" <<'EOF'
import collections, socket, sys, threading
import dns.flags, dns.message, dns.rdatatype, dns.rrset
ZONE = {"A, elsewhere": ("a.test.", "A", "10.2.0.1", "192.0.2.1"), "A, one of them near": ("b.test.", "A", "10.1.0.1", "10.2.0.1"),
        "AAAA, elsewhere": ("c.test.", "AAAA", "2001:db8:4000::1", "2001:db8:8000::1"),
        "AAAA, equally far": ("d.test.", "AAAA", "2001:db8:8000::1", "2001:db8:8000::2")}
records = {name: (kind, collections.deque(addresses)) for name, kind, *addresses in ZONE.values()}
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
def serve():
    while True:
        packet, client = names.recvfrom(4096)
        query = dns.message.from_wire(packet)
        answer, asked = dns.message.make_response(query), query.question[0]
        answer.flags |= dns.flags.AA | dns.flags.RA
        kind, addresses = records[asked.name.to_text().lower()]
        if dns.rdatatype.to_text(asked.rdtype) == kind:
            addresses.rotate()
            answer.answer = [dns.rrset.from_text(asked.name, 0, "IN", kind, *addresses)]
        names.sendto(answer.to_wire(), client)
threading.Thread(target=serve, daemon=True).start()
seen = []
for what, (name, kind, *_) in ZONE.items():
    family = socket.AF_INET if kind == "A" else socket.AF_INET6
    seen.append(len({socket.getaddrinfo(name[:-1], 80, family, socket.SOCK_STREAM)[0][4][0] for _ in range(40)}))
    print(f"{what:26}first addresses: {seen[-1]}")
sys.exit(seen != [2, 1, 1, 2])
EOF
cat >"$T/run" <<'EOF'
set -euo pipefail
ip link set lo up
ip link add front type veth peer name back
ip link set back up; ip link set front up
ip address add 10.1.0.9/24 dev front; ip -6 address add 2001:db8:1::9/64 dev front nodad
ip route add default dev front; ip -6 route add default dev front
mount --bind "$1/resolv.conf" "$(readlink -f /etc/resolv.conf)"
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
PYTHONPATH=$1/py python3 "$1/names"
EOF
timeout 60 unshare -n -m bash "$T/run" "$T"
