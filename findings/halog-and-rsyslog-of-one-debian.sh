#!/usr/bin/env bash
# halog of Debian 12 cannot read the log that rsyslog of Debian 12 writes, nor the one of mode tcp.
#
# Programs: haproxy 2.6.12 (halog, and haproxy itself as the writer), rsyslog 8.2302.0 (Debian).
# Guess:    both are made for each other: halog reads what HAProxy sends to rsyslog with the formats that each has
#           by default, for mode http and mode tcp.
# Seen:     since Debian 12 rsyslog writes the time as one field (RFC 3339) in place of three or so, and halog
#           counts fields from the left: no line is read. "-s -1" reads them; it is not in the manual that the
#           number may be negative. Lines of mode tcp are not read with either; -st takes their bytes for a status.
# Output:   http, as rsyslog writes                0 lines out, 3 parsing errors
#           http, as rsyslog writes, -s -1         1 lines out, 0 parsing errors
#           http, traditional time                 1 lines out, 0 parsing errors
#           tcp, traditional time                  1 lines out, 3 parsing errors
# Means:    after an upgrade of the host statistics by halog are empty: add -s -1, or write the log with
#           RSYSLOG_TraditionalFileFormat. For mode tcp use something else than halog.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb haproxy=2.6.12-1+deb12u4 rsyslog=8.2302.0-1+deb12u2
export LD_LIBRARY_PATH=$LIBS
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
L=$(port) H=$(port) C=$(port) S=$(port)
cat >"$T/rsyslog" <<END
module(load="imudp")
input(type="imudp" address="127.0.0.1" port="$L")
:msg, contains, "web/" $T/http.log
:msg, contains, "raw/" $T/tcp.log
:msg, contains, "web/" $T/http.old;RSYSLOG_TraditionalFileFormat
:msg, contains, "raw/" $T/tcp.old;RSYSLOG_TraditionalFileFormat
END
cat >"$T/haproxy" <<END
global
  log 127.0.0.1:$L local0
defaults
  timeout client 5s
  timeout server 5s
  timeout connect 5s
  log global
listen web
  mode http
  option httplog
  bind 127.0.0.1:$H
  server one 127.0.0.1:$S
listen raw
  mode tcp
  option tcplog
  bind 127.0.0.1:$C
  server one 127.0.0.1:$S
END
mkdir "$T/www"; echo hello >"$T/www/index.html"
python3 -m http.server --bind 127.0.0.1 --directory "$T/www" "$S" >"$T/web.out" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/rsyslogd" -n -i NONE -M "$LIBS/rsyslog" -f "$T/rsyslog" >"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/haproxy.out" 2>&1 & PIDS+=($!)
fetch() { curl -s -m 5 -o "$T/body" "http://127.0.0.1:$1/"; }
for port in "$S" "$H" "$C"; do for _ in {1..100}; do ! fetch "$port" || break; sleep 0.1; done; done
lines() { if [ -e "$1" ]; then wc -l <"$1"; else echo 0; fi; }
for log in http tcp; do
  for _ in {1..100}; do [ "$(lines "$T/$log.old")" -lt 3 ] || break; fetch "$H"; fetch "$C"; sleep 0.1; done
  for form in log old; do head -3 "$T/$log.$form" >"$T/$log.$form.3"; done
done
sum() { # what halog says of three lines
  local result; result=$("$T/r/usr/bin/halog" "${@:2}" -srv <"$T/$1" 2>&1 | grep -oE '[0-9]+ lines out, [0-9]+ parsing errors'); echo "$result"
}
head -1 "$T/http.log.3"; head -1 "$T/tcp.old.3"
a=$(sum http.log.3) b=$(sum http.log.3 -s -1) c=$(sum http.old.3) d=$(sum tcp.old.3)
printf '%-40s%s\n' "http, as rsyslog writes" "$a" "http, as rsyslog writes, -s -1" "$b" "http, traditional time" "$c" "tcp, traditional time" "$d"
well="1 lines out, 0 parsing errors"
[ "$a" = "0 lines out, 3 parsing errors" ] && [ "$b" = "$well" ] && [ "$c" = "$well" ] && [ "$d" = "1 lines out, 3 parsing errors" ]
