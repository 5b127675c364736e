#!/usr/bin/env bash
# A pytricia tree for IPv6 takes IPv4 prefixes too, and gives them to IPv6 addresses.
#
# Program:  pytricia 1.3.0 (PyPI), PyTricia(128); py-radix 1.1.0 and Python's ipaddress beside it.
# Guess:    a tree that takes both families keeps them apart, or refuses one.
# Seen:     an IPv4 prefix is stored as the first bits of an IPv6 one. 2001:db8::1 begins as 32.1.13.184
#           does, and finds 32.0.0.0/8; storing 32.1.13.184/32 replaces the entry of 2001:db8::/32.
#           IPv4-mapped addresses find no IPv4 prefix.
# Output:   lookup of                  pytricia    py-radix
#           2001:db8::1                32.0.0.0/8  none
#           ::ffff:32.1.2.3            none        none
#           entries after 2001:db8::/32 and 32.1.13.184/32: pytricia 1, py-radix 2
# Means:    logs that are enriched by network (site, customer, AS) name the wrong one for IPv6 clients.
#           One tree for each family.
set -euo pipefail

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" pytricia==1.3.0 py-radix==1.1.0
PYTHONPATH=$T/py python3 - <<'EOF'
import ipaddress, sys
import pytricia, radix
tree, other = pytricia.PyTricia(128), radix.Radix()
for prefix in "32.0.0.0/8", "2001:db9::/32":
    tree[prefix] = prefix
    other.add(prefix)
def by_radix(address):
    node = other.search_best(address)
    return node.prefix if node else "none"
seen = []
for address in "2001:db8::1", "::ffff:32.1.2.3", "32.1.2.3":
    seen.append((tree.get(address, "none"), by_radix(address)))
    print(f"{address:27}{seen[-1][0]:12}{seen[-1][1]}")
assert ipaddress.ip_address("2001:db8::1").packed[:4] == ipaddress.ip_address("32.1.13.184").packed
both, counted = pytricia.PyTricia(128), radix.Radix()
for prefix in "2001:db8::/32", "32.1.13.184/32":
    both[prefix] = prefix
    counted.add(prefix)
entries = len(both), len(counted.prefixes())
print("entries:", *entries)
sys.exit(seen != [("32.0.0.0/8", "none"), ("none", "none"), ("32.0.0.0/8", "32.0.0.0/8")] or entries != (1, 2))
EOF
