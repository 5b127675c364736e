#!/usr/bin/env bash
# nginx's stream proxy drops the answer to a client that has sent FIN, unless told otherwise.
#
# Programs: nginx and libnginx-mod-stream 1.22.1-9+deb12u11, haproxy 2.6.12-1+deb12u4 (Debian).
# Guess:    a TCP proxy hands FIN on and goes on carrying the other direction, as a kernel does.
# Seen:     with its defaults nginx closes both sides at the client's FIN: the answer that the server
#           sends 0.3 s later is lost, and the client reads an end, no error. "proxy_half_close on"
#           carries it. HAProxy and Envoy 1.40 carry it by themselves.
# Output:   nginx                        ""
#           nginx, proxy_half_close on   "answer to question"
#           haproxy                      "answer to question"
# Means:    clients that end their question with FIN (nc -N, an rsync or whois by hand, dumps piped
#           into a socket) get nothing through such a proxy in a chain, and succeed with nothing.
#           Who moves from it to a balancer that carries half-closed sessions will also see more
#           sessions that stay half-closed: their timeout matters then.
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

deb nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 haproxy=2.6.12-1+deb12u4
A=$(port) B=$(port) H=$(port) S=$(port); export LD_LIBRARY_PATH=$LIBS
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; pid $T/pid; error_log $T/log.n; events { worker_connections 64; }
stream { server { listen 127.0.0.1:$A; proxy_pass 127.0.0.1:$S; }
  server { listen 127.0.0.1:$B; proxy_half_close on; proxy_pass 127.0.0.1:$S; } }
EOF
printf 'defaults\n timeout client 5s\n timeout server 5s\n timeout connect 5s\nlisten l\n bind 127.0.0.1:%s\n server s 127.0.0.1:%s\n' "$H" "$S" >"$T/haproxy"
"$T/r/usr/sbin/nginx" -e "$T/log.n" -c "$T/nginx" & PIDS+=($!)
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >"$T/log.h" 2>&1 & PIDS+=($!)
env -u LD_LIBRARY_PATH python3 - "$A" "$B" "$H" "$S" <<'EOF'
import socket, sys, threading, time
*proxies, port = map(int, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", port))
def serve(connection):
    question = b""
    while more := connection.recv(100): question += more
    time.sleep(0.3)
    try: connection.sendall(b"answer to " + question)
    except OSError: pass
    connection.close()
def accept():
    while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
def ask(proxy):
    for _ in range(100):
        try: s = socket.create_connection(("127.0.0.1", proxy), timeout=5); break
        except ConnectionRefusedError: time.sleep(0.1)
    s.sendall(b"question")
    s.shutdown(socket.SHUT_WR)
    answer = b""
    while more := s.recv(100): answer += more
    s.close()
    return answer.decode()
seen = [ask(proxy) for proxy in proxies]
for what, answer in zip(("nginx", "nginx, proxy_half_close on", "haproxy"), seen): print(f'{what:29}"{answer}"')
sys.exit(seen != ["", "answer to question", "answer to question"])
EOF
