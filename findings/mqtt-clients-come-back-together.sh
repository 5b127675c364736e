#!/usr/bin/env bash
# MQTT clients that lose their server come back at the same moment, and go on doing so.
#
# Programs: mqtt 5.10.1 (npm), paho-mqtt 2.1.0 (PyPI).
# Guess:    reconnecting is spread at random, or at least slows down, as libraries of our day do.
# Seen:     mqtt tries again every second for ever, paho after 1, 2 and 4 s and so on: neither has
#           anything random, so clients that were cut off together stay in step.
# Output:   mqtt     gaps 1.0 1.0 1.0 1.0 ...
#           paho     gaps 1.0 2.0 4.0
#           two mqtt clients cut off together: all attempts within 0.1 s of each other
# Means:    when a balancer resets all sessions of a broker that went down, all come within one second,
#           every second, until there is room. Pace the resets (on_down = "pace N/s" in evenkeel),
#           spread lifetimes, let listener_rate and a queue take the edge off; clients' own settings
#           (reconnectPeriod, reconnect_delay_set) are the better cure.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" mqtt@5.10.1 >/dev/null
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" paho-mqtt==2.1.0
cd "$T" && PYTHONPATH=$T/py python3 - <<'EOF'
import socket, subprocess, sys, threading, time
import paho.mqtt.client as paho
def balancer():  # accepts, and closes at once
    listener, times = socket.create_server(("127.0.0.1", 0)), []
    def serve():
        while True:
            connection, _ = listener.accept()
            times.append(time.monotonic())
            connection.close()
    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], times
first, second, third = balancer(), balancer(), balancer()
script = f"""for (const port of [{first[0]}, {second[0]}]) require("mqtt").connect(`mqtt://127.0.0.1:${{port}}`).on("error", () => {{}});
setTimeout(() => process.exit(), 8500)"""
node = subprocess.Popen(["node", "-e", script])
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.connect("127.0.0.1", third[0])
client.loop_start()
try: node.wait(timeout=30)
finally: node.kill(); client.loop_stop()
def gaps(times): return [b - a for a, b in zip(times, times[1:])]
mqtt, other = gaps(first[1]), gaps(third[1])
apart = max(abs(a - b) for a, b in zip(first[1], second[1]))
print("mqtt     gaps", *(f"{gap:.1f}" for gap in mqtt))
print("paho     gaps", *(f"{gap:.1f}" for gap in other))
print(f"two mqtt clients cut off together: all attempts within {apart:.2f} s of each other")
even = len(mqtt) >= 5 and all(0.9 < gap < 1.4 for gap in mqtt)
doubled = len(other) >= 3 and all(abs(gap - wanted) < 0.5 for gap, wanted in zip(other, (1, 2, 4)))
sys.exit(not (even and doubled and apart < 0.5))
EOF
