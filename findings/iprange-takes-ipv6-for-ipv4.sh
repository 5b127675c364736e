#!/usr/bin/env bash
# iprange takes IPv6 addresses for IPv4 addresses or host names, and exits with 0.
#
# Program:  iprange 1.0.4 (Debian), a list with addresses of both families.
# Guess:    what it cannot do (IPv6) it refuses, or leaves out.
# Seen:     the text before the first colon is taken as an address or as a name: 2001:db8::/32 becomes 0.0.7.209,
#           the number 2001, and 2a02:... is looked up in DNS. Each is told on stderr, the exit code is 0.
# Output:   198.51.100.7 and 2001:db8::/32      0.0.7.209 198.51.100.7      exit 0
#           2600:1f18::1                        0.0.10.40                   exit 0
# Means:    lists with both families have to be split before (grep -v :). A ban list of a balancer that was made
#           by it from such a file has entries below 1.0.0.0/8 instead of its IPv6 networks.
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

deb iprange=1.0.4+ds-2
export LD_LIBRARY_PATH=$LIBS
take() { # what becomes of a list, on one line
  local out code=0; out=$(printf '%s\n' "$@" | "$T/r/usr/bin/iprange" 2>"$T/log") || code=$?
  echo "$(paste -sd' ' <<<"$out") exit $code"
}
a=$(take 198.51.100.7 2001:db8::/32) b=$(take 2600:1f18::1)
echo "198.51.100.7 and 2001:db8::/32      $a"; echo "2600:1f18::1                        $b"
[ "$a" = "0.0.7.209 198.51.100.7 exit 0" ] && [ "$b" = "0.0.10.40 exit 0" ]
