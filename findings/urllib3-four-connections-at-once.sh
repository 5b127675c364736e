#!/usr/bin/env bash
# One refused GET is four connections within milliseconds with urllib3, and one with requests.
#
# Programs: urllib3 2.2.3 and requests 2.32.3 (PyPI), the second built upon the first.
# Guess:    the same defaults in both; and a retry comes after a pause, a reset being a hint.
# Seen:     urllib3's own pool repeats a GET three times with no pause at all, after a reset and
#           after an end alike. requests switches that off. A POST is not repeated once it was sent.
# Output:   urllib3 GET,  reset      4 connections in ... ms
#           urllib3 GET,  closed     4 connections in ... ms
#           urllib3 POST, closed     1 connection
#           requests GET, reset      1 connection
# Means:    a limit of connections per client counts four for one call, so a client just over its
#           rate goes four times over it, whatever a refusal looks like. Let a burst be four times
#           what such clients need, or give them a Retry with backoff_factor.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" urllib3==2.2.3 requests==2.32.3
PYTHONPATH=$T/py NO_PROXY='*' python3 - <<'EOF'
import socket, struct, sys, threading, time
import requests, urllib3
def balancer(reset):
    listener, times = socket.create_server(("127.0.0.1", 0)), []
    def serve():
        while True:
            connection, _ = listener.accept()
            times.append(time.monotonic())
            connection.recv(4096)
            if reset: connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/", times
seen = []
for what, reset, call in (
    ("urllib3 GET,  reset", True, lambda url: urllib3.PoolManager().request("GET", url)),
    ("urllib3 GET,  closed", False, lambda url: urllib3.PoolManager().request("GET", url)),
    ("urllib3 POST, closed", False, lambda url: urllib3.PoolManager().request("POST", url, body=b"x")),
    ("requests GET, reset", True, requests.get),
):
    url, times = balancer(reset)
    try: call(url)
    except (urllib3.exceptions.HTTPError, requests.exceptions.ConnectionError): pass
    time.sleep(0.3)
    seen.append(len(times))
    print(f"{what:25}{len(times)} connections in {1000 * (times[-1] - times[0]):.0f} ms")
    assert times[-1] - times[0] < 0.5
sys.exit(seen != [4, 4, 1, 1])
EOF
