#!/usr/bin/env bash
# In an nftables set with auto-merge a ban takes over its neighbours' time, and cannot be lifted alone.
#
# Program:  nftables 1.0.6-2 (Debian), in a network namespace of its own.
# Guess:    auto-merge is a matter of storage: neighbours become one range where they end at the same time, and
#           what was added can be deleted again.
# Seen:     neighbours and what lies within another become one element, with the time limit of the one that was
#           added last (or of the wider one). A ban for ever ends with its neighbour's ten seconds. Deleting an
#           address or prefix that was added, but has been merged, fails.
# Output:   10.0.0.5 2h, then 10.0.0.6 10s        10.0.0.5-10.0.0.6 for 10s
#           10.0.0.5, then 10.0.0.6 10s           10.0.0.5-10.0.0.6 for 10s
#           10.0.0.5 10s, then 10.0.0.6 2h        10.0.0.5-10.0.0.6 for 2h
#           10.0.0.0/24 10s, then 10.0.0.5 2h     10.0.0.0/24 for 10s
#           10.0.0.5 2h, then 10.0.0.0/24 10s     10.0.0.0/24 for 10s
#           10.0.0.5 and 10.0.0.6, then 10.0.0.6 deleted     element does not exist
# Means:    ban lists in front of a balancer that take single addresses with times of their own want a set without
#           auto-merge, and another set for prefixes: networks full of offenders are where bans end early.
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

deb nftables=1.0.6-2+deb12u2
export LD_LIBRARY_PATH=$LIBS
cat >"$T/try" <<'END'
nft() { "$T/r/usr/sbin/nft" "$@"; }
nft add table inet t
nft add set inet t bans '{ type ipv4_addr; flags interval, timeout; auto-merge; }'
for pair in "10.0.0.5 timeout 2h/10.0.0.6 timeout 10s" "10.0.0.5/10.0.0.6 timeout 10s" "10.0.0.5 timeout 10s/10.0.0.6 timeout 2h" \
  "10.0.0.0-10.0.0.255 timeout 10s/10.0.0.5 timeout 2h" "10.0.0.5 timeout 2h/10.0.0.0-10.0.0.255 timeout 10s"; do
  nft flush set inet t bans
  nft add element inet t bans "{ ${pair%%/*} }"
  nft add element inet t bans "{ ${pair##*/} }"
  echo "${pair%%/*}, then ${pair##*/} = $(nft list set inet t bans | grep -oE '10\.[0-9./-]+ timeout [0-9]+[hms]')"
done
nft flush set inet t bans
nft add element inet t bans '{ 10.0.0.5 }'
nft add element inet t bans '{ 10.0.0.6 }'
if nft delete element inet t bans '{ 10.0.0.6 }' 2>"$T/error"; then echo "10.0.0.6 deleted"; else head -1 "$T/error"; fi
END
T=$T unshare -n bash "$T/try" | tee "$T/out"
sed 's/.* = //' "$T/out" | diff - <(printf '%s\n' "10.0.0.5-10.0.0.6 timeout 10s" "10.0.0.5-10.0.0.6 timeout 10s" \
  "10.0.0.5-10.0.0.6 timeout 2h" "10.0.0.0/24 timeout 10s" "10.0.0.0/24 timeout 10s" "Error: element does not exist")
