#!/usr/bin/env bash
# nginx's $proxy_protocol_addr is the sender's text in version 1, and one spelling in version 2.
#
# Program:  nginx and libnginx-mod-stream 1.22.1-9+deb12u11 (Debian), listen ... proxy_protocol.
# Guess:    the variable is an address, printed as nginx prints addresses, as $remote_addr is.
# Seen:     of a version 1 header it is the very text: "2001:DB8:0:0:0:0:0:9" and "2001:db8::9" are
#           two values, and two keys of a hash. With set_real_ip_from $remote_addr is the same for
#           both, and so is the variable with version 2. An IPv4 client in a TCP6 header stays
#           "::ffff:192.0.2.9" in all of them.
# Output:   v1 2001:DB8:0:0:0:0:0:9   proxy_protocol_addr 2001:DB8:0:0:0:0:0:9  remote_addr 2001:db8::9
#           v1 2001:db8::9            proxy_protocol_addr 2001:db8::9           remote_addr 2001:db8::9
#           v2 2001:db8::9            proxy_protocol_addr 2001:db8::9           remote_addr 2001:db8::9
#           v1 TCP6 ::ffff:192.0.2.9  proxy_protocol_addr ::ffff:192.0.2.9      remote_addr ::ffff:192.0.2.9
# Means:    behind two balancers that write addresses in two ways, "hash $proxy_protocol_addr
#           consistent", limit_conn and maps keyed by it see two clients. A balancer should write the
#           canonical form; on the nginx side use $binary_remote_addr or $remote_addr.
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
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
up() { local _; for _ in {1..100}; do (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null && return; sleep 0.1; done; return 1; }

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11
S=$(port)
cat >"$T/conf" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid $T/pid; error_log $T/log; events { worker_connections 64; }
stream { server { listen 127.0.0.1:$S proxy_protocol; set_real_ip_from 127.0.0.0/8;
  return "\$proxy_protocol_addr \$remote_addr"; } }
EOF
LD_LIBRARY_PATH=$LIBS "$T/r/usr/sbin/nginx" -e "$T/log" -c "$T/conf" & PIDS+=($!)
up "$S"
python3 - "$S" <<'EOF'
import socket, sys
def ask(header):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5)
    s.sendall(header)
    answer = b""
    while more := s.recv(1000): answer += more
    s.close()
    return tuple(answer.decode().split())
def v1(address): return ask(f"PROXY TCP6 {address} 2001:db8::1 1111 80\r\n".encode())
nine = socket.inet_pton(socket.AF_INET6, "2001:db8::9")
seen = {
    "v1 2001:DB8:0:0:0:0:0:9": v1("2001:DB8:0:0:0:0:0:9"),
    "v1 2001:db8::9": v1("2001:db8::9"),
    "v2 2001:db8::9": ask(b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + nine + nine + b"\4\1\0\x50"),
    "v1 TCP6 ::ffff:192.0.2.9": v1("::ffff:192.0.2.9"),
}
for what, (raw, real) in seen.items(): print(f"{what:26}proxy_protocol_addr {raw:22}remote_addr {real}")
plain, mapped = "2001:db8::9", "::ffff:192.0.2.9"
sys.exit(list(seen.values()) != [("2001:DB8:0:0:0:0:0:9", plain), (plain, plain), (plain, plain), (mapped, mapped)])
EOF
