#!/usr/bin/env bash
# syslog-ng's two ways to listen for RFC 5424 over TCP each lose what the other one takes; rsyslog takes both.
#
# Programs: syslog-ng-core 3.38.1 (sources network() and syslog(), TCP) and rsyslog 8.2302.0 (imtcp) (Debian). Two
#           messages of RFC 5424 in one connection: each ends with a line feed, or begins with its length (octet
#           counting), or both, the length counting the line feed.
# Guess:    both programs tell the framing by the first byte, as RFC 6587 has it, and the header by its version.
# Seen:     rsyslog does. syslog() takes nothing without a length, network() does not know the length nor, without
#           flags(syslog-protocol), the header. Nothing suits all of them.
# Output:                                  line feed                    length                       both
#           rsyslog                        2 messages                   2 messages                   2 messages
#           syslog-ng syslog()             none                         2 messages                   2 messages
#           syslog-ng network()            2, header in the text        1, header in the text        2, header in the text
#           ... flags(syslog-protocol)     2 messages                   1, header in the text        2, header in the text
# Means:    what a balancer sends has to be matched at the receiver: lines need network(flags(syslog-protocol)), lengths
#           need syslog(). A missing log gives no error at the sender.
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

deb rsyslog=8.2302.0-1+deb12u2
deb syslog-ng-core=3.38.1-5+deb12u1 # a second call: the two packages exclude each other
python3 - "$T" "$LIBS" <<'EOF'
import os, socket, subprocess, sys, time
T, libs = sys.argv[1:]
def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
NAMES = ("rsyslog", "syslog-ng syslog()", "syslog-ng network()", "... flags(syslog-protocol)")
ports = dict(zip(NAMES, (free() for _ in NAMES)))
files = {name: f"{T}/received{number}" for number, name in enumerate(NAMES)}
for path in files.values(): open(path, "w").close()
with open(f"{T}/ng", "w") as conf:
    conf.write("@version: 3.38\n")
    for number, (name, source, more) in enumerate(zip(NAMES[1:], ("syslog", "network", "network"), ("", "", "flags(syslog-protocol)"))):
        conf.write(f"""source s{number} {{ {source}(ip("127.0.0.1") port({ports[name]}) transport("tcp") {more}); }};
destination d{number} {{ file("{files[name]}" template("$PROGRAM|$MSG\\n")); }};
log {{ source(s{number}); destination(d{number}); }};
""")
with open(f"{T}/rs", "w") as conf: conf.write(f"""module(load="imtcp")
input(type="imtcp" port="{ports['rsyslog']}" address="127.0.0.1")
template(name="t" type="string" string="%app-name%|%msg%\\n")
*.* action(type="omfile" file="{files['rsyslog']}" template="t")
""")
arch = os.path.basename(libs)
env = {**os.environ, "LD_LIBRARY_PATH": f"{T}/r/usr/lib/syslog-ng:{libs}:{T}/r/lib/{arch}"}
commands = ([f"{T}/r/usr/sbin/rsyslogd", "-n", "-f", f"{T}/rs", "-i", f"{T}/rs.pid", "-M", f"{libs}/rsyslog"],
            [f"{T}/r/usr/sbin/syslog-ng", "-F", "-f", f"{T}/ng", "-R", f"{T}/persist", "-c", f"{T}/control", "-p", f"{T}/ng.pid", "--no-caps",
             "--module-path", f"{T}/r/usr/lib/syslog-ng/3.38"])
MESSAGE = b'<134>1 2026-12-01T05:00:00.123Z host balancer 7 session [s@32473 client="192.0.2.7:5"] '
def counted(text): return b"%d %s" % (len(text), text)
texts = MESSAGE + b"first", MESSAGE + b"other"
FRAMES = {"line feed": b"".join(text + b"\n" for text in texts), "length": b"".join(map(counted, texts)),
          "both": b"".join(counted(text + b"\n") for text in texts)}
with open(f"{T}/log", "w") as log: servers = [subprocess.Popen(command, env=env, stdout=log, stderr=log) for command in commands]
def send(port, data):
    for attempt in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sender: sender.sendall(data)
            return
        except ConnectionRefusedError: time.sleep(0.1)
    raise TimeoutError(open(f"{T}/log").read())
def lines(path):
    with open(path) as text: return text.read().splitlines()
def received(name, data):
    before = len(lines(files[name]))
    send(ports[name], data)
    deadline = time.monotonic() + 3  # for what does not come, too
    while len(lines(files[name])) < before + 2 and time.monotonic() < deadline: time.sleep(0.05)
    new = lines(files[name])[before:]
    if not new: return "none"
    whole = [line for line in new if line in ("balancer|first", "balancer|other")]
    return f"{len(new)} messages" if len(whole) == len(new) else f"{len(new)}, header in the text"
try: seen = {name: [received(name, data) for data in FRAMES.values()] for name in NAMES}
finally:
    for server in servers: server.kill(); server.wait()
print(" " * 31 + "".join(f"{what:29}" for what in FRAMES).rstrip())
for name, results in seen.items(): print(f"{name:31}" + "".join(f"{result:29}" for result in results).rstrip())
two, one, in_text = "2 messages", "1, header in the text", "2, header in the text"
sys.exit(list(seen.values()) != [[two, two, two], ["none", two, two], [in_text, one, in_text], [two, one, in_text]])
EOF
