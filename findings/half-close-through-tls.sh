#!/usr/bin/env bash
# Half-closing through TLS: one terminator drops the answer, another lets the server see a cut connection.
#
# Programs: haproxy 2.6.12-1+deb12u4, stunnel 3:5.68-2+deb12u1, hitch 1.7.2-1+b1, nginx 1.22.1-9+deb12u11 with
#           its stream module and proxy_half_close on (Debian). Client and server are Python's ssl.
#           The client sends its request and its end; the server answers when it has seen the end.
# Guess:    all pass the end on, in TLS as close_notify, and the answer comes back.
# Seen:     where clients come by TLS, hitch ends the session at the client's close_notify. Where servers
#           are reached by TLS, nginx sends them FIN without a close_notify, which TLS libraries take
#           for a cut connection: an error in place of the request's end, and no answer.
# Output:   clients by TLS     haproxy, stunnel, nginx: answered       hitch: nothing
#           servers by TLS     haproxy, stunnel: answered              nginx: nothing, and at the server
#                                                                      "EOF in violation of protocol"
# Means:    protocols that end a request by its end (whois, finger, git, rsync's kin, `nc -N`) work in
#           plain TCP and fail once TLS is added on one of these. A balancer that passes TLS through
#           leaves both ends to the peers.
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

deb haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11 libnginx-mod-stream=1.22.1-9+deb12u11 stunnel4=3:5.68-2+deb12u1
deb hitch=1.7.2-1+b1
read -r P Q H1 H2 S1 S2 N1 N2 C1 <<<"$(ports 9)"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a.test -days 2 \
  -keyout "$T/key" -out "$T/cert" 2>"$T/log"
cat "$T/key" "$T/cert" >"$T/pem"; export LD_LIBRARY_PATH=$LIBS
cat >"$T/haproxy" <<EOF
global
 nbthread 1
defaults
 timeout client 10s
 timeout server 10s
 timeout connect 5s
listen from_tls
 bind 127.0.0.1:$H1 ssl crt $T/pem
 server back 127.0.0.1:$P
listen to_tls
 bind 127.0.0.1:$H2
 server back 127.0.0.1:$Q ssl verify none
EOF
cat >"$T/nginx" <<EOF
load_module $T/r/usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid $T/pid; error_log $T/errors; events {}
stream {
 proxy_half_close on;
 server { listen 127.0.0.1:$N1 ssl; ssl_certificate $T/cert; ssl_certificate_key $T/key; proxy_pass 127.0.0.1:$P; }
 server { listen 127.0.0.1:$N2; proxy_ssl on; proxy_pass 127.0.0.1:$Q; }
}
EOF
printf '%s\n' "foreground = yes" "pid =" "[from]" "accept = 127.0.0.1:$S1" "connect = 127.0.0.1:$P" "cert = $T/pem" \
  "[to]" "client = yes" "accept = 127.0.0.1:$S2" "connect = 127.0.0.1:$Q" >"$T/stunnel"
"$T/r/usr/sbin/haproxy" -db -f "$T/haproxy" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/nginx" -e "$T/errors" -c "$T/nginx" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/bin/stunnel4" "$T/stunnel" >>"$T/log" 2>&1 & PIDS+=($!)
"$T/r/usr/sbin/hitch" --frontend="[127.0.0.1]:$C1" --backend="[127.0.0.1]:$P" --user="$(id -un)" \
  --quiet "$T/pem" >>"$T/log" 2>&1 & PIDS+=($!)
python3 - "$T" "$P" "$Q" "$H1" "$S1" "$N1" "$C1" "$H2" "$S2" "$N2" <<'EOF'
import queue, socket, ssl, sys, threading, time
folder = sys.argv[1]
plain, secure, *fronts = map(int, sys.argv[2:])
ends = queue.Queue()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/cert", f"{folder}/key")
def answer(connection, tls):
    try:
        if tls: connection = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
        request = b""
        while part := connection.recv(4096): request += part
        ends.put("end seen")
        time.sleep(0.3)
        connection.sendall(b"answer to " + request)
    except ssl.SSLEOFError: ends.put("EOF in violation of protocol")
    except OSError as error: ends.put(repr(error))
    connection.close()
def serve(port, tls):
    listener = socket.create_server(("127.0.0.1", port))
    while True: threading.Thread(target=answer, args=(listener.accept()[0], tls), daemon=True).start()
for port, tls in (plain, False), (secure, True): threading.Thread(target=serve, args=(port, tls), daemon=True).start()
def connect(port):
    for _ in range(100):
        try: return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError: time.sleep(0.1)
def by_tls(port):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(arrived, leaving)
    with connect(port) as s:
        def run(step):
            while True:
                try: done = step()
                except ssl.SSLWantReadError: done = None
                if data := leaving.read(): s.sendall(data)
                if done is not None: return done
                if not (data := s.recv(16384)): return b""
                arrived.write(data)
        run(lambda: tls.do_handshake() or True)
        run(lambda: tls.write(b"request"))
        try: tls.unwrap()  # sends close_notify, and goes on reading
        except ssl.SSLWantReadError: s.sendall(leaving.read())
        try: return run(lambda: tls.read(100))
        except (ssl.SSLZeroReturnError, ConnectionResetError): return b""
def by_tcp(port):
    with connect(port) as s:
        s.sendall(b"request")
        s.shutdown(socket.SHUT_WR)
        try: return s.recv(100)
        except ConnectionResetError: return b""
cases = [("haproxy", by_tls), ("stunnel", by_tls), ("nginx", by_tls), ("hitch", by_tls),
         ("haproxy", by_tcp), ("stunnel", by_tcp), ("nginx", by_tcp)]
held = True
for (name, ask), port in zip(cases, fronts):
    text = ask(port).decode() or "nothing"
    end = ends.get(timeout=10)
    print(f"{'clients' if ask is by_tls else 'servers'} by TLS, {name:8} {text:20} server: {end}")
    if (name, ask) == ("hitch", by_tls): held = held and text == "nothing"
    elif (name, ask) == ("nginx", by_tcp): held = held and (text, end) == ("nothing", "EOF in violation of protocol")
    else: held = held and (text, end) == ("answer to request", "end seen")
sys.exit(not held)
EOF
