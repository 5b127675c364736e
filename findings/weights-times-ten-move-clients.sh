#!/usr/bin/env bash
# Ten times the weight for every server moves half of the clients in HAProxy and nginx.
#
# Programs: haproxy 2.6.12-1+deb12u4, nginx 1.22.1-9+deb12u11 (Debian), both with consistent hashing.
# Guess:    weights are shares: 1:1:1 and 10:10:10 are the same configuration.
# Seen:     both put points on a circle for each unit of weight, so another scale is another circle:
#           more than half of 400 clients have another server (in nginx it depends on the servers'
#           addresses, too). Envoy 1.40 moves none, neither with RING_HASH nor with MAGLEV: there
#           only the share counts.
# Output:   haproxy, 1:1:1 -> 10:10:10    226 of 400 moved
#           nginx,   1:1:1 -> 10:10:10    235 of 400 moved
# Means:    to write weights in percent, or add a zero so that one server can have half a share, is
#           a cold start for half of the caches, and two balancers with the same shares in another
#           scale disagree. Choose the scale before the first client comes.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb haproxy=2.6.12-1+deb12u4 nginx=1.22.1-9+deb12u11
python3 - "$T/r/usr/sbin" "$LIBS" "$T" <<'EOF'
import http.client, os, socket, subprocess, sys, time
programs, libs, folder = sys.argv[1:]
def free():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); return s.getsockname()[1]
def run(*command):
    return subprocess.Popen(command, env=dict(os.environ, LD_LIBRARY_PATH=libs), stderr=subprocess.DEVNULL)
def write(name, text):
    with open(f"{folder}/{name}", "w") as f: f.write(text)
    return f"{folder}/{name}"
timeouts = "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n"
at = {name: free() for name in "abc"}
def haproxy(front, weight):
    servers = "".join(f" server {n} 127.0.0.1:{p} weight {weight}\n" for n, p in at.items())
    text = f"{timeouts}frontend f\n bind 127.0.0.1:{front}\n default_backend p\nbackend p\n balance hdr(x)\n hash-type consistent\n"
    return run(programs + "/haproxy", "-db", "-f", write("haproxy", text + servers))
def nginx(front, weight):
    servers = " ".join(f"server 127.0.0.1:{p} weight={weight};" for p in at.values())
    paths = " ".join(f"{what}_temp_path {folder}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return run(programs + "/nginx", "-e", folder + "/log", "-c", write("nginx", f"""daemon off; pid {folder}/pid;
      events {{ worker_connections 512; }} http {{ access_log off; {paths} upstream u {{ hash $http_x consistent; {servers} }}
      server {{ listen 127.0.0.1:{front}; keepalive_requests 1000; location / {{ proxy_pass http://u; }} }} }}"""))
def who(start, weight):
    front = free()
    proxy = start(front, weight)
    try:
        for _ in range(100):
            try: socket.create_connection(("127.0.0.1", front)).close(); break
            except ConnectionRefusedError: time.sleep(0.1)
        c = http.client.HTTPConnection("127.0.0.1", front, timeout=10)
        chosen = []
        for n in range(400):
            c.request("GET", "/", headers={"x": f"client{n}"}); chosen.append(c.getresponse().read())
        c.close()
        return chosen
    finally: proxy.terminate(); proxy.wait()
fronts = "".join(f"frontend {n}\n bind 127.0.0.1:{p}\n http-request return content-type a/b string {n}\n" for n, p in at.items())
servers = run(programs + "/haproxy", "-db", "-f", write("servers", timeouts + fronts))
try:
    seen = [sum(a != b for a, b in zip(who(start, 1), who(start, 10))) for start in (haproxy, nginx)]
finally: servers.terminate(); servers.wait()
print(f"haproxy, 1:1:1 -> 10:10:10    {seen[0]} of 400 moved\nnginx,   1:1:1 -> 10:10:10    {seen[1]} of 400 moved")
sys.exit(not all(150 < n < 280 for n in seen))
EOF
