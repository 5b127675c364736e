#!/usr/bin/env bash
# srvlookup puts the same server first each time: the heaviest, and of equal ones the first of the answer.
#
# Program:  srvlookup 3.0.0 (PyPI), dnspython 2.9.2 beside it; a name server on loopback that gives two SRV
#           records of one priority, always in the same order.
# Guess:    RFC 2782: the first is drawn by weight, so that weights 9 and 1 give 90 and 10 %.
# Seen:     records are sorted by priority and weight, without a draw: 100 % and 0 % in each case. dnspython's own
#           rrset.processing_order() draws as the RFC has it.
# Output:   weights     srvlookup     dnspython      (share of the first record)
#           9 and 1        100 %     about 90 %
#           1 and 9          0 %     about 10 %
#           0 and 0        100 %     about 50 %
# Means:    weights in Consul or DNS do not spread clients that take the first; all of them reach one server, and
#           the next only gets those that failed there. Draw from the result, or use dnspython directly.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" srvlookup==3.0.0 dnspython==2.9.2
PYTHONPATH=$T/py python3 - <<'EOF'
import socket, sys, threading
import dns.flags, dns.message, dns.rdatatype, dns.resolver, dns.rrset, srvlookup
names, records = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), []
names.bind(("127.0.0.1", 0))
def serve():
    while True:
        packet, client = names.recvfrom(4096)
        query = dns.message.from_wire(packet)
        answer, asked = dns.message.make_response(query), query.question[0]
        answer.flags |= dns.flags.AA | dns.flags.RA
        if asked.rdtype == dns.rdatatype.SRV: answer.answer = [dns.rrset.from_text(asked.name, 0, "IN", "SRV", *records)]
        if asked.rdtype == dns.rdatatype.A: answer.answer = [dns.rrset.from_text(asked.name, 0, "IN", "A", "127.0.0.1")]
        names.sendto(answer.to_wire(), client)
threading.Thread(target=serve, daemon=True).start()
resolver = dns.resolver.default_resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = ["127.0.0.1"], names.getsockname()[1]
def by_srvlookup(): return srvlookup.lookup("http", "tcp", "test")[0].port
def by_dnspython(): return next(iter(resolver.resolve("_http._tcp.test", "SRV").rrset.processing_order())).port
def share(first): return sum(first() == 1001 for _ in range(300)) / 3
print("weights     srvlookup     dnspython")
held = True
for (a, b), wanted, drawn in (((9, 1), 100, 90), ((1, 9), 0, 10), ((0, 0), 100, 50)):
    records[:] = [f"1 {a} 1001 one.test.", f"1 {b} 1002 two.test."]
    seen, other = share(by_srvlookup), share(by_dnspython)
    print(f"{a} and {b}{seen:11.0f} %{other:12.0f} %")
    held = held and seen == wanted and abs(other - drawn) < 12
sys.exit(not held)
EOF
