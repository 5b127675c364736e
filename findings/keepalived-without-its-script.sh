#!/usr/bin/env bash
# keepalived without its health script is a healthy keepalived: it takes the address.
#
# Program:  keepalived 2.2.7 (Debian) in a network namespace, a track_script without a weight, so that its failure
#           should mean FAULT. The script says no, or is missing, or is not executable, or is in a folder that others
#           may write to (with enable_script_security).
# Guess:    a check that cannot be made is not a passed one: the configuration is refused, or the state is FAULT.
# Seen:     only the script that says no counts. In the other cases keepalived logs that it disables the script and goes
#           on without it, as MASTER. keepalived --config-test ends with 5 in two of the three.
# Output:   says no                      FAULT      address not taken; test: 0
#           says yes                     MASTER     address taken; test: 0
#           missing                      MASTER     address taken; test: 5
#           not executable               MASTER     address taken; test: 0
#           in a folder of mode 777      MASTER     address taken; test: 5
# Means:    a balancer whose check was mistyped, moved by an update or lost its mode keeps the address while it is down,
#           and nothing shows it before that. Look for "disabling" in the log after each start, and see once
#           that a check that fails gives FAULT.
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

deb keepalived=1:2.2.7-1+b2
mkdir -m 755 "$T/safe"; mkdir -m 777 "$T/open"; chmod 777 "$T/open"
printf '#!/bin/sh\nexit 1\n' >"$T/safe/no"; printf '#!/bin/sh\nexit 0\n' >"$T/safe/yes"; chmod 755 "$T/safe/no" "$T/safe/yes"
cp "$T/safe/no" "$T/open/no"; cp "$T/safe/no" "$T/safe/plain"; chmod 644 "$T/safe/plain"
cat >"$T/run" <<'EOF'
#!/usr/bin/env bash
set -euo pipefail
T=$1 held=0
ip link set lo up
ip link add front type veth peer name back
ip link set back up; ip link set front up; ip address add 192.0.2.2/24 dev front
try() { # what is tried, its script, FAULT or MASTER, address taken (1) or not (0), code of the test
  cat >"$T/conf" <<EOC
global_defs {
  script_user root
  enable_script_security
}
vrrp_script check {
  script "$2"
  interval 1
  fall 1
  rise 1
}
vrrp_instance one {
  state BACKUP
  interface front
  virtual_router_id 5
  priority 100
  advert_int 1
  virtual_ipaddress {
    192.0.2.9/24
  }
  track_script {
    check
  }
}
EOC
  local code=0 taken=0 state=FAULT p
  "$T/r/usr/sbin/keepalived" -t -f "$T/conf" >/dev/null 2>&1 || code=$?
  "$T/r/usr/sbin/keepalived" -n -l -D -f "$T/conf" -p "$T/pid" -r "$T/vrrp" >"$T/log" 2>&1 & p=$!
  for _ in $(seq 100); do # MASTER comes after 4 s
    if ip -o address show dev front | grep -q 192.0.2.9; then taken=1; break; fi
    sleep 0.1
  done
  kill "$p"; wait "$p" || :
  if grep -q 'Entering MASTER' "$T/log"; then state=MASTER; fi
  printf '%-28s %-10s %s; test: %s\n' "$1" "$state" "$([ $taken = 1 ] && echo address taken || echo address not taken)" "$code"
  if [ "$state $taken $code" != "$3 $4 $5" ]; then held=1; cat "$T/log"; fi
}
try 'says no' "$T/safe/no" FAULT 0 0
try 'says yes' "$T/safe/yes" MASTER 1 0
try 'missing' "$T/safe/nothing" MASTER 1 5
try 'not executable' "$T/safe/plain" MASTER 1 0
try 'in a folder of mode 777' "$T/open/no" MASTER 1 5
exit $held
EOF
LD_LIBRARY_PATH=$LIBS:${LIBS/usr\/} unshare -n bash "$T/run" "$T"
