#!/usr/bin/env bash
# fail2ban matches a line without its date: an anchored pattern that looks like the line misses.
#
# Program:  fail2ban 1.0.2-2 (Debian), fail2ban-regex on lines of key=value and of JSON.
# Guess:    failregex is matched against the line, so "^time=\S+ event=session .*client=<HOST>:\d+"
#           finds "time=2026-11-30T07:00:00.123Z event=session ... client=192.0.2.7:5555".
# Seen:     the date is found first, wherever it stands, and cut out: what is matched begins with
#           "time= event=session", and \S+ finds nothing there. \S* does; so does "time":"[^"]*" in
#           JSON. A bracketed IPv6 address is found by <HOST>:\d+, a client without an address
#           ("unix") by nothing.
# Output:   ^time=\S+ ...       missed
#           ^time= event ...    matched
#           ^time=\S* ...       matched
#           JSON, "[^"]+"       missed
#           JSON, "[^"]*"       matched
#           [2001:db8::7]:5555  matched
# Means:    a ban list made from a balancer's session log, tested with grep, bans nobody, and says
#           nothing. Test with fail2ban-regex, and write \S* where the time stands.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
}

deb fail2ban=1.0.2-2
# The library is in Python; of its configuration only the defaults are needed.
try() { # TITLE LINE PATTERN
  printf '%s\n' "$2" >"$T/line"
  local found
  found=$(cd "$T/r/usr/bin" && PYTHONPATH=$T/r/usr/lib/python3/dist-packages python3 ./fail2ban-regex \
    -c "$T/r/etc/fail2ban" "$T/line" "$3" 2>&1 | sed -n 's/^Lines: 1 lines, 0 ignored, \([01]\) matched.*/\1/p')
  case $found in 1) echo "$1 matched" ;; 0) echo "$1 missed" ;; *) echo "$1 $found?" ;; esac | tee -a "$T/seen"
}
L='time=2026-11-30T07:00:00.123Z event=session client=192.0.2.7:5555 reason="over its rate"'
J='{"time":"2026-11-30T07:00:00.123Z","event":"session","client":"192.0.2.7:5555"}'
try '^time=\S+ ...      ' "$L" '^time=\S+ event=session client=<HOST>:\d+ '
try '^time= event ...   ' "$L" '^time= event=session client=<HOST>:\d+ '
try '^time=\S* ...      ' "$L" '^time=\S* event=session client=<HOST>:\d+ '
try 'JSON, "[^"]+"      ' "$J" '^\{"time":"[^"]+","event":"session","client":"<HOST>:\d+"'
try 'JSON, "[^"]*"      ' "$J" '^\{"time":"[^"]*","event":"session","client":"<HOST>:\d+"'
try '[2001:db8::7]:5555 ' "${L/192.0.2.7/[2001:db8::7]}" '^time=\S* event=session client=<HOST>:\d+ '
test "$(grep -o '[a-z?]*$' "$T/seen" | tr '\n' ' ')" = "missed matched matched missed matched matched "
