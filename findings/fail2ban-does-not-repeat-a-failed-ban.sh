#!/usr/bin/env bash
# A ban that fail2ban could not set counts as set: the client is "already banned" and goes on.
#
# Program:  fail2ban 1.0.2 (Debian), a jail whose action fails while the program that it speaks to is away, as at a
#           balancer's restart; then that is back, and the client fails to log in again and again.
# Guess:    a ban whose command has failed is not listed, or is tried again with the client's next failure.
# Seen:     the command runs twice within the same second. After that the client is listed as banned for the whole
#           bantime, each further failure is "already banned", and no command runs; banip by hand does not either.
# Output:   action fails             commands 2, listed as banned 1
#           works again              commands 2, listed as banned 1
#           banip by hand            commands 2, listed as banned 1
#           fail2ban restarted       commands 3, listed as banned 1
# Means:    with bantime = 1w one restart at the wrong moment lets a client in for a week, and fail2ban's list says
#           otherwise. Let the action itself try until the balancer is back, or restart fail2ban: it then sets all
#           bans that it has in its list.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"; PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb fail2ban=1.0.2-2
cp -r "$T/r/etc/fail2ban" "$T/etc"; rm -f "$T"/etc/jail.d/*; mkdir "$T/run"
cat >"$T/etc/action.d/balancer.conf" <<EOF
[Definition]
actionban = echo <ip> >>$T/commands; test -e $T/there
actionunban = true
EOF
cat >"$T/etc/filter.d/service.conf" <<'EOF'
[Definition]
failregex = ^ login failed from <HOST>$
datepattern = ^{EPOCH}
EOF
cat >"$T/etc/jail.local" <<EOF
[service]
enabled = true
filter = service
logpath = $T/log
backend = polling
action = balancer
maxretry = 2
findtime = 10m
bantime = 10m
EOF
touch "$T/log" "$T/commands"
export PYTHONPATH=$T/r/usr/lib/python3/dist-packages
printf '[Definition]\ndbfile = %s/db\n' "$T" >"$T/etc/fail2ban.local"
PLACE=(-c "$T/etc" -s "$T/run/socket" -p "$T/run/pid")
client() { /usr/bin/python3 "$T/r/usr/bin/fail2ban-client" "${PLACE[@]}" "$@"; }
times() { grep -c "$1" "$T/messages" || :; }
begin() {
  local before; before=$(touch "$T/messages"; times "Jail 'service' started")
  /usr/bin/python3 "$T/r/usr/bin/fail2ban-server" "${PLACE[@]}" --logtarget "$T/messages" -x -f >"$T/out" 2>&1 & PIDS=($!)
  for _ in $(seq 100); do if [ "$(times "Jail 'service' started")" -gt "$before" ]; then return; fi; sleep 0.1; done
}
fail_until() { # the client fails until this is in the log once more
  local before; before=$(times "$1")
  for round in $(seq 200); do
    if [ $((round % 20)) = 1 ]; then for _ in 1 2; do echo "$(date +%s) login failed from 192.0.2.7"; done >>"$T/log"; fi
    if [ "$(times "$1")" -gt "$before" ]; then return; fi
    sleep 0.1
  done
}
commands() { for _ in $(seq 50); do if [ "$(wc -l <"$T/commands")" -ge "$1" ]; then break; fi; sleep 0.1; done; wc -l <"$T/commands"; } # so many are expected
HELD=0
show() { # what, how many commands are right
  local seen listed
  seen=$(commands "$2"); listed=$(client status service | sed -n 's/.*Currently banned:\t//p')
  printf '%-25scommands %s, listed as banned %s\n' "$1" "$seen" "$listed"
  if [ "$seen $listed" != "$2 1" ]; then HELD=1; fi
}
begin
fail_until "Failed to execute ban"; show "action fails" 2
touch "$T/there"
fail_until "already banned"; fail_until "already banned"; show "works again" 2
client set service banip 192.0.2.7 >/dev/null; sleep 2; show "banip by hand" 2
kill "${PIDS[0]}"; wait "${PIDS[0]}" || :; begin; show "fail2ban restarted" 3
exit $HELD
