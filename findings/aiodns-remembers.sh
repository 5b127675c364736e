#!/usr/bin/env bash
# aiodns answers from a cache of its own: one order for a minute, and no such name although it is there by now.
#
# Program:  aiodns 4.0.4 with pycares 5.2.1 (PyPI); a name server on loopback that turns its three addresses round in
#           every answer, and learns a name one second after it was first asked for it.
# Guess:    a resolver library asks each time; caching is what the name server does. So the server's turning shows.
# Seen:     answers are kept for their time to live, with their order, and "no such name" for the minimum of the SOA
#           record. Only a time to live of 0 is asked anew.
# Output:   time to live 60     asked 1 of 30, first addresses: 1
#           time to live 0      asked 30 of 30, first addresses: 3
#           a new name          asked 1 of 2, not found, not found
# Means:    one process connects to one balancer for the time to live, as with cacheable-lookup, and a name that is
#           made after somebody has asked for it is missing for the minimum of its zone. Keep both short, or make a
#           new DNSResolver to forget.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" aiodns==4.0.4 pycares==5.2.1 dnspython==2.9.2
PYTHONPATH=$T/py python3 - <<'EOF'
import asyncio, collections, socket, sys, threading
import aiodns, dns.flags, dns.message, dns.rcode, dns.rrset
names, asked, known = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), collections.Counter(), set()
names.bind(("127.0.0.1", 0))
addresses = collections.deque(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
def serve():
    while True:
        packet, client = names.recvfrom(4096)
        query = dns.message.from_wire(packet)
        answer, name = dns.message.make_response(query), query.question[0].name
        text = name.to_text().lower()  # its capitals are random
        asked[text] += 1
        answer.flags |= dns.flags.AA | dns.flags.RA
        if text == "new.test." and text not in known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            answer.authority = [dns.rrset.from_text("test.", 60, "IN", "SOA", "a. b. 1 60 60 60 60")]
        else:
            addresses.rotate()
            answer.answer = [dns.rrset.from_text(name, 0 if text == "zero.test." else 60, "IN", "A", *addresses)]
        names.sendto(answer.to_wire(), client)
threading.Thread(target=serve, daemon=True).start()
async def main():
    resolver = aiodns.DNSResolver(nameservers=[f"127.0.0.1:{names.getsockname()[1]}"])
    async def first(name):
        try: return (await resolver.getaddrinfo(name, port=80, family=socket.AF_INET)).nodes[0].addr[0]
        except aiodns.error.DNSError: return None
    seen = {}
    for what, name in (("time to live 60", "sixty.test"), ("time to live 0", "zero.test")):
        firsts = {await first(name) for _ in range(30)}
        print(f"{what:20}asked {asked[name + '.']} of 30, first addresses: {len(firsts)}")
        seen[name] = asked[name + "."], len(firsts)
    before = await first("new.test")
    known.add("new.test.")
    await asyncio.sleep(1)
    after = await first("new.test")
    print(f"{'a new name':20}asked {asked['new.test.']} of 2,", ", ".join("found" if found else "not found" for found in (before, after)))
    return seen == {"sixty.test": (1, 1), "zero.test": (30, 3)} and (before, after, asked["new.test."]) == (None, None, 1)
sys.exit(not asyncio.run(main()))
EOF
