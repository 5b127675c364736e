#!/usr/bin/env bash
# More than half of the client libraries never ask whether an idle connection still exists, and libpq asks after two hours.
#
# Programs: 27 client libraries (PyPI, npm), at the versions pinned below, each with its defaults and connected to a
#           server that says nothing; what `ss -o` says about the socket's keepalive timer.
# Guess:    long-lived clients set SO_KEEPALIVE, with a time of some minutes, as balancers and NAT forget idle flows.
# Seen:     fifteen set nothing; five switch it on with the kernel's time, two hours by default; seven choose a time.
# Output:   30 s            redis (npm), ioredis, redis-py, redis-py with asyncio
#           60 s            kafkajs
#           120 s           mongodb (npm), pymongo
#           the kernel's    psycopg2, psycopg, PyMySQL, aiomysql, mysql2
#           none            asyncpg, pg, mysql-connector, pika, aio-pika, amqplib, nats-py, nats (npm), paho-mqtt, mqtt (npm),
#                           ldap3, ldapts, kafka-python, pymemcache, stomp.py
# Means:    when a balancer or a path vanishes without a FIN or RST, a client that waits for an answer waits on, for
#           hours or for ever, unless its protocol has pings of its own (MQTT, AMQP, NATS). Pools keep such
#           connections. Set keepalives where the library allows it, or a time limit for each answer.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
NPM=(pg@8.23.1 mysql2@3.24.6 ioredis@6.0.0 redis@6.3.1 mongodb@7.9.0 amqplib@2.3.1 mqtt@5.16.0 nats@2.29.3 kafkajs@2.2.4 ldapts@8.2.0)
PIP=(psycopg2-binary==2.9.13 psycopg==3.3.9 psycopg-binary==3.3.9 asyncpg==0.32.0 pymysql==1.2.4 mysql-connector-python==26.10.0
  aiomysql==0.3.2 pymongo==4.20.1 redis==8.1.0 pika==1.4.4 aio-pika==10.2.1 nats-py==2.16.0 paho-mqtt==2.2.0 ldap3==2.9.1
  kafka-python==3.0.12 pymemcache==4.0.0 stomp.py==9.0.0)
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" "${NPM[@]}" >/dev/null
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" "${PIP[@]}"
cat >"$T/client.cjs" <<'EOF'
const [name, port] = [process.argv[2], Number(process.argv[3])], host = "127.0.0.1";
for (const event of ["uncaughtException", "unhandledRejection"]) process.on(event, () => {});
const clients = {
  pg: () => new (require("pg").Client)({ host, port, user: "u" }).connect(),
  mysql2: () => require("mysql2").createConnection({ host, port }),
  ioredis: () => new (require("ioredis"))({ host, port }),
  "redis (npm)": () => require("redis").createClient({ socket: { host, port } }).connect(),
  "mongodb (npm)": () => new (require("mongodb").MongoClient)(`mongodb://${host}:${port}/`).connect(),
  amqplib: () => require("amqplib").connect(`amqp://${host}:${port}`),
  "mqtt (npm)": () => require("mqtt").connect({ host, port }),
  "nats (npm)": () => require("nats").connect({ servers: `${host}:${port}` }),
  kafkajs: () => new (require("kafkajs").Kafka)({ brokers: [`${host}:${port}`], logLevel: 0 }).producer().connect(),
  ldapts: () => new (require("ldapts").Client)({ url: `ldap://${host}:${port}` }).bind("a", "b"),
};
clients[name]();
setTimeout(() => {}, 60000);
EOF
cat >"$T/client.py" <<'EOF'
import asyncio, importlib, sys
name, port, host = sys.argv[1], int(sys.argv[2]), "127.0.0.1"
def module(path): return importlib.import_module(path)
def mqtt():
    paho = module("paho.mqtt.client")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect(host, port)
    client.loop_forever()
clients = {
    "psycopg2": lambda: module("psycopg2").connect(host=host, port=port, user="u", dbname="d"),
    "psycopg": lambda: module("psycopg").connect(host=host, port=port, user="u", dbname="d"),
    "asyncpg": lambda: asyncio.run(module("asyncpg").connect(host=host, port=port, user="u", database="d", ssl=False)),
    "PyMySQL": lambda: module("pymysql").connect(host=host, port=port, user="u"),
    "mysql-connector": lambda: module("mysql.connector").connect(host=host, port=port, user="u", use_pure=True),
    "aiomysql": lambda: asyncio.run(module("aiomysql").connect(host=host, port=port, user="u")),
    "pymongo": lambda: module("pymongo").MongoClient(host, port).admin.command("ping"),
    "redis-py": lambda: module("redis").Redis(host, port).ping(),
    "redis-py, asyncio": lambda: asyncio.run(module("redis.asyncio").Redis(host=host, port=port).ping()),
    "pika": lambda: module("pika").BlockingConnection(module("pika").ConnectionParameters(host, port)),
    "aio-pika": lambda: asyncio.run(module("aio_pika").connect(host=host, port=port)),
    "nats-py": lambda: asyncio.run(module("nats").connect(f"nats://{host}:{port}")),
    "paho-mqtt": mqtt,
    "ldap3": lambda: module("ldap3").Connection(module("ldap3").Server(host, port, get_info=None)).bind(),
    "kafka-python": lambda: module("kafka").KafkaProducer(bootstrap_servers=f"{host}:{port}"),
    "pymemcache": lambda: module("pymemcache").Client((host, port)).get("a"),
    "stomp.py": lambda: module("stomp").Connection([(host, port)]).connect(wait=True),
}
clients[name]()
EOF
python3 - "$T" <<'EOF'
import concurrent.futures, os, re, socket, subprocess, sys, time
T = sys.argv[1]
WANTED = {"30 s": "ioredis|redis (npm)|redis-py|redis-py, asyncio", "60 s": "kafkajs", "120 s": "mongodb (npm)|pymongo",
          "the kernel's": "psycopg2|psycopg|PyMySQL|aiomysql|mysql2",
          "none": "asyncpg|pg|mysql-connector|pika|aio-pika|amqplib|nats-py|nats (npm)|paho-mqtt|mqtt (npm)|ldap3|ldapts|kafka-python|"
                  "pymemcache|stomp.py"}
NODE = {"ioredis", "redis (npm)", "kafkajs", "mongodb (npm)", "mysql2", "pg", "amqplib", "nats (npm)", "mqtt (npm)", "ldapts"}
def seconds(text): return sum(float(number) * {"hour": 3600, "hr": 3600, "min": 60, "sec": 1, "ms": 0.001}[unit]
                              for number, unit in re.findall(r"([\d.]+)(hour|hr|min|sec|ms)", text))
def kernel():
    with open("/proc/sys/net/ipv4/tcp_keepalive_time") as text: return int(text.read())
def group(timers):
    if not timers: return "none"
    for chosen in (30, 60, 120):
        if chosen - 8 < min(timers) <= chosen: return f"{chosen} s"
    return "the kernel's" if kernel() - 90 < min(timers) <= kernel() else f"{min(timers):.0f} s"
def look(name):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        port = listener.getsockname()[1]
        command = ["node", f"{T}/client.cjs"] if name in NODE else ["python3", f"{T}/client.py"]
        client = subprocess.Popen([*command, name, str(port)], env={**os.environ, "PYTHONPATH": f"{T}/py"}, cwd=T,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with listener.accept()[0] as _:
                time.sleep(0.7)  # options are set after the connect, too
                lines = subprocess.run(["ss", "-Htno", "state", "established", f"( dport = :{port} )"], capture_output=True, text=True, check=True).stdout
                if not lines: raise RuntimeError(f"{name} has gone")
                return group([seconds(text) for text in re.findall(r"timer:\(keepalive,([^,]*),", lines)])
        finally: client.kill(); client.wait()
wanted = [(name, after) for after, names in WANTED.items() for name in names.split("|")]
with concurrent.futures.ThreadPoolExecutor(3) as pool: seen = list(pool.map(look, (name for name, _ in wanted)))
for (name, _), after in zip(wanted, seen): print(f"{name:20}{after}")
sys.exit(seen != [after for _, after in wanted])
EOF
