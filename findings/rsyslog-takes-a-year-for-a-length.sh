#!/usr/bin/env bash
# rsyslog over TCP: a line that begins with a year takes the rest of the connection with it.
#
# Program:  rsyslog 8.2302.0-1+deb12u2 (Debian), imtcp as it is, bare lines without a syslog header, as a
#           program writes them that knows TCP and no syslog. %msg% and %syslogtag% are looked at.
# Guess:    each line is a message, and %msg% is the whole line.
# Seen:     so it is only for lines that begin with "{" (JSON). Of `time=2026-11-24T05:00:52Z ...` all up to
#           the first colon becomes the tag and is gone from the message. A line that begins with a
#           digit is taken for octet counting: 2026 is a length, the line is lost ("Framing Error"),
#           and what follows on that connection is lost with it.
# Output:   {"time":"2026-11-24T05:00:52Z"}    whole
#           time=2026-11-24T05:00:52Z a=b      tag "time=2026-11-24T05:", message "00:52Z a=b"
#           2026-11-24T05:00:52Z a=b           lost
#           {"after":1}                        lost
# Means:    send logs with a header ("<134>..."), or JSON; for other lines set
#           SupportOctetCountedFraming="off" and use %rawmsg%. A reconnect "repairs" it for a while.
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
ports() { # as many free ones as wanted, all different
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

deb rsyslog=8.2302.0-1+deb12u2
read -r P <<<"$(ports 1)"; export LD_LIBRARY_PATH=$LIBS
cat >"$T/rsyslog" <<EOF
module(load="imtcp")
template(name="seen" type="string" string="tag=%syslogtag% msg=%msg%\\n")
ruleset(name="all") { action(type="omfile" file="$T/out" template="seen") }
input(type="imtcp" address="127.0.0.1" port="$P" ruleset="all")
EOF
"$T/r/usr/sbin/rsyslogd" -n -i NONE -M "$LIBS/rsyslog" -f "$T/rsyslog" >"$T/log" 2>&1 & PIDS+=($!)
python3 - "$P" "$T/out" <<'EOF'
import os, socket, sys, time
port, path = int(sys.argv[1]), sys.argv[2]
def send(*lines):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", port), timeout=10); break
        except ConnectionRefusedError: time.sleep(0.1)
    with s: s.sendall(b"".join(line.encode() + b"\n" for line in lines))
def written(last):
    for _ in range(100):
        text = open(path).read() if os.path.exists(path) else ""
        if last in text: return text.splitlines()
        time.sleep(0.1)
    sys.exit(f"no {last} in {text}")
lines = ['{"time":"2026-11-24T05:00:52Z"}', "time=2026-11-24T05:00:52Z a=b", "2026-11-24T05:00:52Z a=b", '{"after":1}']
send(*lines)
send('{"another":"connection"}')
seen = written("another")
for line in seen: print(line)
sys.exit(seen != ['tag= msg={"time":"2026-11-24T05:00:52Z"}', "tag=time=2026-11-24T05: msg=00:52Z a=b",
                 'tag= msg={"another":"connection"}'])
EOF
