#!/usr/bin/env bash
# MariaDB blocks a host for probes that connect and close, but not for wrong passwords.
#
# Program:  mariadb-server 1:10.11.19-0+deb12u1 (Debian), max_connect_errors = 5 (default 100),
#           name resolution on, which is the default. pymysql 1.1.1 (PyPI) to log in.
# Guess:    a probe that connects and closes politely is harmless and a wrong password an error;
#           a PROXY header with LOCAL makes a probe nobody's; what was blocked stays blocked.
# Seen:     the other way round. 10 connects that end with FIN, before the greeting or after it,
#           block the address; so do 10 with a LOCAL header (then it is the balancer's own). 10
#           wrong passwords do not. One good login sets the count to zero. (Of connects that end
#           with RST at once some are not counted: the server meets a socket without a peer.)
# Output:   FIN at once                    blocked
#           greeting read, then FIN        blocked
#           wrong password                 served
#           LOCAL header, then FIN         blocked
#           4 FIN, a login, 4 FIN          served
# Means:    to MariaDB all sessions through a balancer come from its address. While nobody logs in
#           (a night, a standby, a balancer whose pool is drained) 100 TCP probes lock out all its
#           clients, "Host ... is blocked because of many connection errors", and probes do not see
#           it: the kernel accepts. Set skip_name_resolve, or probe something else.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"; PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}
port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
up() { local _; for _ in {1..100}; do (: </dev/tcp/127.0.0.1/"$1") 2>/dev/null && return; sleep 0.1; done; return 1; }

deb mariadb-server=1:10.11.19-0+deb12u1
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" pymysql==1.1.1
P=$(port); export LD_LIBRARY_PATH=$LIBS PYTHONPATH=$T/py
common=(--no-defaults --user=root --basedir="$T/r/usr" --datadir="$T/data" --lc-messages-dir="$T/r/usr/share/mysql")
mkdir "$T/data"
{ printf '%s;\n' "create database mysql" "use mysql" "set @auth_root_socket = null" "set @skip_auth_anonymous = 1"
  cat "$T/r/usr/share/mysql/mysql_system_tables.sql" "$T/r/usr/share/mysql/mysql_system_tables_data.sql"
  printf '%s;\n' "flush privileges" "create user x@'%' identified by 'x'"; } >"$T/sql"
"$T/r/usr/sbin/mariadbd" "${common[@]}" --bootstrap <"$T/sql" >"$T/log" 2>&1
"$T/r/usr/sbin/mariadbd" "${common[@]}" --bind-address=127.0.0.1 --port="$P" --socket="$T/s" --pid-file="$T/pid" \
  --max-connect-errors=5 --proxy-protocol-networks=127.0.0.9 --innodb-buffer-pool-size=8M >>"$T/log" 2>&1 & PIDS+=($!)
up "$P" || { tail "$T/log"; exit 1; }
python3 - "$P" <<'EOF'
import socket, sys, time, pymysql
port = int(sys.argv[1])
def connect(me):
    s = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(me, 0))
    return s
def fin(me): connect(me).close()
def greeted(me): s = connect(me); s.recv(4); s.recv(4096); s.close()
def local(me): s = connect(me); s.sendall(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"); s.close()
def login(me, password="x"):
    pymysql.connect(host="127.0.0.1", port=port, user="x", password=password, bind_address=me).close()
def wrong(me):
    try: login(me, "y")
    except pymysql.err.OperationalError as error: assert error.args[0] in (1045, 1129), error
def state(me):
    time.sleep(0.3)
    try: login(me); return "served"
    except pymysql.err.OperationalError as error: return "blocked" if error.args[0] == 1129 else str(error)
seen = {}
for last, (what, act) in enumerate({"FIN at once": fin, "greeting read, then FIN": greeted, "wrong password": wrong}.items(), 2):
    me = f"127.0.0.{last}"
    for _ in range(10): act(me); time.sleep(0.05)
    seen[what] = state(me)
for _ in range(10): local("127.0.0.9"); time.sleep(0.05)
seen["LOCAL header, then FIN"] = state("127.0.0.9")
for act in [fin] * 4 + [login] + [fin] * 4: act("127.0.0.10"); time.sleep(0.2)
seen["4 FIN, a login, 4 FIN"] = state("127.0.0.10")
for what, how in seen.items(): print(f"{what:31}{how}")
sys.exit(list(seen.values()) != ["blocked", "blocked", "served", "blocked", "served"])
EOF
