#!/usr/bin/env bash
# A Postfix with inet_protocols = ipv4 turns away IPv6 clients of the balancer in front of it.
#
# Program:  postfix 3.7.11-0+deb12u1 (Debian), smtpd_upstream_proxy_protocol = haproxy. Needs root
#           (it runs in namespaces of its own, over which the package is laid).
# Guess:    inet_protocols says on which sockets Postfix listens and connects. The balancer connects
#           by IPv4, so all is well, whoever its client is.
# Seen:     a header that names an IPv6 client is refused, 421 and the end, in version 1 ("bad or
#           missing protocol type") and 2 ("Postfix IPv6 support is disabled"). So are UNKNOWN, and
#           PROXY with UNSPEC. LOCAL is served. With inet_protocols = all IPv6 clients are, too.
# Output:   ipv4: v1 TCP4 220, v1 TCP6 421, v1 UNKNOWN 421, v2 TCP6 421, v2 UNSPEC 421, v2 LOCAL 220
#           all:  v1 TCP4 220, v1 TCP6 220, v1 UNKNOWN 421, v2 TCP6 220, v2 UNSPEC 421, v2 LOCAL 220
# Means:    switch on IPv6 at the balancer and mail from half of the world gets a 421 from servers
#           that never saw an IPv6 packet, while probes pass: set inet_protocols = all first. In
#           version 1 probes have to name somebody: UNKNOWN never passes.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
}
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
up() { local _; for _ in {1..100}; do (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null && return; sleep 0.1; done; return 1; }

deb postfix=3.7.11-0+deb12u1
P=$(port) Q=$(port)
mkdir -p "$T"/{u,e,v}{,.work}
cat >"$T/start" <<EOF
set -e   # in a mount and process namespace of its own, over which the package is laid
mount -t overlay o -o lowerdir=$T/r/usr:/usr,upperdir=$T/u,workdir=$T/u.work /usr
mount -t overlay o -o lowerdir=$T/r/etc:/etc,upperdir=$T/e,workdir=$T/e.work /etc
mount -t overlay o -o lowerdir=$T/r/var:/var,upperdir=$T/v,workdir=$T/v.work /var
mount -t proc proc /proc
groupadd -rf postfix; groupadd -rf postdrop; id postfix >/dev/null 2>&1 || useradd -r -g postfix -d /nonexistent postfix
mkdir -p /var/spool/postfix /var/lib/postfix; chown postfix /var/lib/postfix
printf '%s\n' compatibility_level=3.6 myhostname=mx.example.com mydestination=example.com inet_interfaces=127.0.0.1 \
  maillog_file=/dev/stdout maillog_file_prefixes=/dev alias_maps= alias_database= local_recipient_maps= proxy_read_maps= \
  smtpd_upstream_proxy_protocol=haproxy >/etc/postfix/main.cf
printf '%s\n' "127.0.0.1:$P inet n - n - - smtpd -o inet_protocols=ipv4" "127.0.0.1:$Q inet n - n - - smtpd -o inet_protocols=all" \
  "anvil unix - - n - 1 anvil" "proxymap unix - - n - - proxymap" "postlog unix-dgram n - n - 1 postlogd" \
  "rewrite unix - - n - - trivial-rewrite" >/etc/postfix/master.cf
exec postfix start-fg
EOF
unshare --mount --pid --fork bash "$T/start" >"$T/log" 2>&1 & K=$!
# The first process of the namespace takes all others with it.
trap 'kill -KILL $(cat /proc/"$K"/task/"$K"/children) || :; wait "$K" 2>/dev/null || :; rm -rf "$T"' EXIT
up "$P" && up "$Q" || { tail "$T/log"; exit 1; }
python3 - "$P" "$Q" <<'EOF' || { tail "$T/log"; exit 1; }
import socket, sys
def two(command, family, body): return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x20 | command, family, 0, len(body)]) + body
headers = {
    "v1 TCP4": b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 25\r\n",
    "v1 TCP6": b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 25\r\n",
    "v1 UNKNOWN": b"PROXY UNKNOWN\r\n",
    "v2 TCP6": two(1, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + b"\4\1\0\x19"),
    "v2 UNSPEC": two(1, 0, b""),
    "v2 LOCAL": two(0, 0, b""),
}
def ask(port, header):
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    s.sendall(header)
    try: return s.recv(200)[:3].decode()
    finally: s.close()
seen = [[ask(int(port), header) for header in headers.values()] for port in sys.argv[1:]]
for what, answers in zip(("ipv4:", "all: "), seen):
    print(what, ", ".join(f"{name} {answer}" for name, answer in zip(headers, answers)))
sys.exit(seen != [["220", "421", "421", "421", "421", "220"], ["220", "220", "421", "220", "421", "220"]])
EOF
