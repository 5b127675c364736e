#!/usr/bin/env bash
# exabgp's healthcheck goes on announcing a service that is down, and announces one that never was up.
#
# Program:  exabgp 4.2.21-1.1 (Debian), python3 -m exabgp healthcheck, which prints what exabgp is told.
# Guess:    when the check has failed `--fall` times the route is withdrawn; before the first success
#           there is none.
# Seen:     the route stays, with MED 1000 in place of 100, and a service whose check has never passed
#           is announced so as well. Only the program's end withdraws it, or --withdraw-on-down.
# Output:   comes up, goes down, ends     med 100, med 1000, withdraw
#           never up, ends                med 1000, withdraw
#           the same two with --withdraw-on-down
#                                         med 100, withdraw
#                                         withdraw
# Means:    two balancers that announce one address: while either is up its MED wins, if both routes
#           come from the same neighbouring AS (or MEDs are compared always). Anycast from several
#           places, a shorter AS path, or the last one standing: clients are sent to a dead balancer.
set -euo pipefail

T=$(mktemp -d); PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
mkdir -p "$T/debs/partial"
apt-get install -qq -y --no-install-recommends --reinstall --download-only -o Dir::Cache::archives="$T/debs" \
  -o Debug::NoLocking=1 -o APT::Sandbox::User=root exabgp=4.2.21-1.1 python3-exabgp=4.2.21-1.1 >/dev/null
dpkg -x "$T"/debs/exabgp_*.deb "$T/r"; dpkg -x "$T"/debs/python3-exabgp_*.deb "$T/r"
export PYTHONPATH=$T/r/usr/lib/python3/dist-packages
check() { # what is announced, repetitions left out, while $T/up appears (if $1 says so) and goes again
  local how=$1 out=$T/out p _; shift; : >"$out"; rm -f "$T/up"; [ "$how" = never ] || touch "$T/up"
  python3 -m exabgp healthcheck --no-syslog --cmd "test -e $T/up" --ip 127.0.0.1/32 --no-ip-setup \
    --interval 1 --fast-interval 0.2 --rise 2 --fall 2 "$@" >"$out" 2>"$T/log" & p=$!; PIDS+=("$p")
  if [ "$how" = once ]; then
    for _ in {1..100}; do ! grep -q 'med 100$' "$out" || break; sleep 0.1; done; rm "$T/up"
  fi
  sleep 4; kill "$p"; wait "$p" || :
  sed -E 's/.* (med [0-9]+)$/\1/; s/^withdraw .*/withdraw/' "$out" | uniq | paste -sd, | sed 's/,/, /g'
}
show() { printf '%-30s%s\n' "$1" "$2"; }
a=$(check once) b=$(check never) c=$(check once --withdraw-on-down) d=$(check never --withdraw-on-down)
show "comes up, goes down, ends" "$a"; show "never up, ends" "$b"
echo "the same two with --withdraw-on-down"; show "" "$c"; show "" "$d"
[ "$a" = "med 100, med 1000, withdraw" ] && [ "$b" = "med 1000, withdraw" ] &&
  [ "$c" = "med 100, withdraw" ] && [ "$d" = "withdraw" ]
