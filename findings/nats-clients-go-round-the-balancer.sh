#!/usr/bin/env bash
# NATS clients come to the balancer once, and reconnect to the servers behind it.
#
# Programs: nats-server 2.9.10 (Debian), two in a cluster, with and without no_advertise; nats-py 2.16.0 (PyPI). Forty
#           clients connect through a relay; their server ends, and the relay has the other one.
# Guess:    a client that was given one address comes back to that address.
# Seen:     the server's greeting names the cluster's servers (connect_urls), and clients reconnect to any of these or the
#           relay. With no_advertise: true in the cluster all come back through the relay.
# Output:   advertise (default)    clients with a direct connection: 15 to 35 of 40
#           no_advertise           clients with a direct connection: 0 of 40
# Means:    limits, logs, drains and bans of the balancer hold for first connections only, and where clients cannot
#           reach the servers' own addresses reconnects wait for connect timeouts. no_advertise behind a balancer.
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

deb nats-server=2.9.10-1+b3
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" nats-py==2.16.0
PYTHONPATH=$T/py python3 - "$T" <<'EOF'
import asyncio, contextlib, socket, subprocess, sys
import nats
T, HOST, CLIENTS = sys.argv[1], "127.0.0.1", 40
def free(count):
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    try: return [probe.getsockname()[1] for probe in probes]
    finally: [probe.close() for probe in probes]
async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError: pass
    finally: writer.close()
async def until(true):
    for _ in range(200):
        if await true(): return
        await asyncio.sleep(0.1)
    raise TimeoutError
async def run(no_advertise):
    ports, routes = free(2), free(2)
    servers, inside = [], set()
    for number in (0, 1):
        with open(f"{T}/conf{number}", "w") as conf: conf.write(f"""host: {HOST}, port: {ports[number]}
cluster {{ name: x, host: {HOST}, port: {routes[number]}, routes: ["nats://{HOST}:{routes[1 - number]}"], no_advertise: {no_advertise} }}
""")
        servers.append(subprocess.Popen([f"{T}/r/usr/sbin/nats-server", "-c", f"{T}/conf{number}"], stderr=subprocess.DEVNULL))
    async def relay(reader, writer):  # to the first that can be reached
        for port in ports:
            try: server_reader, server_writer = await asyncio.open_connection(HOST, port)
            except OSError: continue
            inside.add(server_writer.get_extra_info("sockname")[1])
            with contextlib.suppress(asyncio.CancelledError): await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))
            return
        writer.close()
    try:
        async def clustered():  # a first server knows the second's address, or its route when it says nothing
            try: reader, writer = await asyncio.open_connection(HOST, ports[0])
            except OSError: return False
            info = await reader.readline()
            writer.close()
            return no_advertise == "true" or str(ports[1]).encode() in info
        await until(clustered)
        await asyncio.sleep(1)
        front = await asyncio.start_server(relay, HOST, 0)
        async def ignore(error): pass
        url = f"nats://{HOST}:{front.sockets[0].getsockname()[1]}"
        clients = [await nats.connect(url, error_cb=ignore, reconnect_time_wait=0.2) for _ in range(CLIENTS)]
        servers[0].kill(); servers[0].wait()
        async def back(): return all(client.stats["reconnects"] >= 1 and client.is_connected for client in clients)
        await until(back)
        direct = sum(client.connected_url.port in ports for client in clients)
        for client in clients: await client.close()
        front.close()
        return direct
    finally:
        for server in servers: server.kill(); server.wait()
advertised, hidden = asyncio.run(run("false")), asyncio.run(run("true"))
print(f"advertise (default)    clients with a direct connection: {advertised} of {CLIENTS}")
print(f"no_advertise           clients with a direct connection: {hidden} of {CLIENTS}")
sys.exit(not (10 <= advertised < 40 and hidden == 0))
EOF
