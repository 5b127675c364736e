#!/usr/bin/env bash
# curl sends a POST a second time when a kept connection ends before its answer has begun.
#
# Program:  curl 7.88.1 (Debian), without --retry; beside it urllib3 2.8.0, requests 2.34.2, httpx 0.28.1 and aiohttp
#           3.14.5 (PyPI). The second request on a connection is read, and the connection is ended by FIN or RST.
# Guess:    a client repeats what does no harm, GET, at most; POST never, as nothing tells whether it was done.
# Seen:     curl repeats GET, POST and PUT with their bodies (-d, -F, -T), after FIN and after RST, and ends with 0. The
#           others never repeat a POST; urllib3 and aiohttp repeat a GET.
# Output:               GET          POST          (how often the server got it)
#           curl        2            2
#           urllib3     2            1, error
#           aiohttp     2            1, error
#           requests    1, error     1, error
#           httpx       1, error     1, error
# Means:    scripts that make several calls with one curl: when a balancer ends a kept session (idle time, drain, a
#           server that is taken out) an order may be placed twice, and nothing in the log says so. One call per curl,
#           or "-H 'Connection: close'"; a key against repetition in the request is the better cure.
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

deb curl=7.88.1-10+deb12u15 libcurl4=7.88.1-10+deb12u15
pip() { python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" "$@"; }
pip urllib3==2.8.0 requests==2.34.2 httpx==0.28.1 aiohttp==3.14.5
PYTHONPATH=$T/py python3 - "$T/r/usr/bin/curl" "$LIBS" <<'EOP'
import asyncio, os, socket, struct, subprocess, sys, threading
import aiohttp, httpx, requests, urllib3
curl, libs = sys.argv[1:]
def server(end):  # the second request on the first connection is read, and not answered
    listener, seen = socket.create_server(("127.0.0.1", 0)), []
    def serve(connection, first):
        with connection:
            for number in range(1, 100):
                request = b""
                while b"\r\n\r\n" not in request or b"POST" in request and not request.endswith(b"amount=10"):
                    part = connection.recv(4096)
                    if not part: return
                    request += part
                if b" /order " in request: seen.append(request)
                if first and number == 2:
                    if end == "reset": connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    def accept():
        first = True
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0], first), daemon=True).start()
            first = False
    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", seen
def body(method): return b"amount=10" if method == "POST" else None
def by_curl(url, method):
    order = ["-d", "amount=10"] if method == "POST" else []
    subprocess.run([curl, "-sS", "-m", "20", f"{url}/first", "--next", "-sS", "-m", "20", *order, f"{url}/order"], check=True,
                   stdout=subprocess.DEVNULL, env={**os.environ, "LD_LIBRARY_PATH": libs})
def by_urllib3(url, method):
    pool = urllib3.PoolManager()
    pool.request("GET", f"{url}/first")
    pool.request(method, f"{url}/order", body=body(method))
def by_requests(url, method):
    with requests.Session() as session:
        session.get(f"{url}/first")
        session.request(method, f"{url}/order", data=body(method))
def by_httpx(url, method):
    with httpx.Client() as client:
        client.get(f"{url}/first")
        client.request(method, f"{url}/order", content=body(method))
async def with_aiohttp(url, method):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/first") as answer: await answer.read()
        async with session.request(method, f"{url}/order", data=body(method)) as answer: await answer.read()
def by_aiohttp(url, method): asyncio.run(with_aiohttp(url, method))
ERRORS = (urllib3.exceptions.HTTPError, requests.RequestException, httpx.HTTPError, aiohttp.ClientError)
def attempt(client, method, end):
    url, seen = server(end)
    try: client(url, method)
    except ERRORS: return f"{len(seen)}, error"
    return str(len(seen))
clients = {"curl": by_curl, "urllib3": by_urllib3, "aiohttp": by_aiohttp, "requests": by_requests, "httpx": by_httpx}
once = "1, error"
wanted = {"curl": ("2", "2"), "urllib3": ("2", once), "aiohttp": ("2", once), "requests": (once, once), "httpx": (once, once)}
print(f"{'':12}GET          POST")
held = True
for name, client in clients.items():
    for end in ("close", "reset"):
        seen = tuple(attempt(client, method, end) for method in ("GET", "POST"))
        held = held and seen == wanted[name]
        print(f"{name:12}{seen[0]:13}{seen[1]:13}after {end}")
sys.exit(not held)
EOP
