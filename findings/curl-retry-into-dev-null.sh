#!/usr/bin/env bash
# curl --retry -o /dev/null does not retry: it fails with 23 at the first 503 that has a body.
#
# Program:  curl and libcurl4 7.88.1-10+deb12u15 (Debian).
# Guess:    --retry 2 asks again after a 503, wherever the body goes.
# Seen:     before it asks again curl cuts its output file back to where it was, and /dev/null cannot
#           be cut: "curl: (23) Failed to truncate file" after one request. Without -o, with "> /dev/null",
#           with -f (the body is not written), or when the 503 has no body, it retries.
# Output:   -o /dev/null             exit 23, 1 request
#           -o /dev/null, empty 503  exit 0, 2 requests
#           -o /dev/null -f          exit 0, 2 requests
#           > /dev/null              exit 0, 2 requests
#           -o a file                exit 0, 2 requests
# Means:    the usual line of scripts that wait for a service, curl -s -o /dev/null --retry 5 -w
#           '%{http_code}', gives up at once when a balancer answers 503 or 429 with a text, and
#           works with one that answers without. Write > /dev/null or add -f.
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
LD_LIBRARY_PATH=$LIBS python3 - "$T/r/usr/bin/curl" "$T" <<'EOF'
import http.server, subprocess, sys, threading
program, folder = sys.argv[1:]
asked = {}
class Busy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        first = self.path not in asked
        asked[self.path] = asked.get(self.path, 0) + 1
        body = b"" if first and "empty" in self.path else b"text"
        self.send_response(503 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy)
threading.Thread(target=server.serve_forever, daemon=True).start()
def run(path, *more, out=None):
    url = f"http://127.0.0.1:{server.server_port}{path}"
    command = [program, "-q", "-sS", "--noproxy", "*", "--retry", "2", "--retry-delay", "1", url, *more]
    with open(out or folder + "/out", "wb") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, timeout=30)
    return done.returncode, asked[path], done.stderr.strip()
seen = {
    "-o /dev/null": run("/a", "-o", "/dev/null"),
    "-o /dev/null, empty 503": run("/empty", "-o", "/dev/null"),
    "-o /dev/null -f": run("/b", "-o", "/dev/null", "-f"),
    "> /dev/null": run("/c", out="/dev/null"),
    "-o a file": run("/d", "-o", folder + "/file"),
}
for what, (code, requests, said) in seen.items(): print(f"{what:25}exit {code}, {requests} requests  {said}")
sys.exit([result[:2] for result in seen.values()] != [(23, 1)] + [(0, 2)] * 4)
EOF
