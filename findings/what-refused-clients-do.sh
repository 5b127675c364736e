#!/usr/bin/env bash
# How often clients connect in ten seconds to a balancer that refuses them: by FIN, by RST, by silence, or
# because nothing listens. This makes the table in docs/choosing.md.
#
# Programs: 28 client libraries (npm, PyPI), each with its defaults and told to do one thing, at versions pinned below.
# Guess:    a client does the same after FIN, after RST and without a listener; those that go on by
#           themselves slow down, and none comes more than twelve times in ten seconds; silence costs one.
# Seen:     closed by FIN, librdkafka comes five times as often as without a listener. mongodb and pymongo come
#           twenty times, unless met with silence. postgres goes on after FIN and gives up after RST. nats
#           gives up, nats-py does not. Silence costs one to three attempts each.
# Output:                              close    reset   silent  refused
#           confluent-kafka              193       79        1       37
#           mongodb, pymongo              20       20        1       20
#           postgres                       8        1        1        1
#           and so on; pg, mysql2, pika and six more come once and leave the rest to the application
# Means:    a refusal by FIN can multiply what it was to reduce: refuse by reset, and take clients that
#           come back at once with the tarpit (as long as descriptors last).
# Run:      as root: attempts are counted at a raw socket, as those that no process accepts count, too.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
NPM=(ioredis@6.0.0 redis@6.3.1 mqtt@5.16.0 mongodb@7.8.0 pg@8.23.1 postgres@3.4.9 mysql2@3.24.5 amqplib@2.3.1
  amqp-connection-manager@5.0.0 kafkajs@2.2.4 nats@2.29.3 @grpc/grpc-js@1.14.7 reconnecting-websocket@4.4.0)
PIP=(redis==8.1.0 pymongo==4.20.0 paho-mqtt==2.2.0 confluent-kafka==2.16.1 kafka-python==3.0.12 aiokafka==0.14.0
  psycopg==3.3.9 psycopg-pool==3.3.3 asyncpg==0.32.0 pika==1.4.4 aio-pika==10.2.1 kombu==5.7.0 kazoo==2.11.0
  nats-py==2.16.0 grpcio==1.85.1)
npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" "${NPM[@]}" ws@8.23.0 >/dev/null
python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" "${PIP[@]}" psycopg-binary==3.3.9

cat >"$T/clients.cjs" <<'EOF'
const ports = JSON.parse(process.argv[2]), host = process.argv[3];
for (const event of ["uncaughtException", "unhandledRejection"]) process.on(event, () => {});  // to fail is an answer
function quiet(emitter) { return emitter.on("error", () => {}); }
const clients = {
  ioredis: (port) => quiet(new (require("ioredis"))({ host, port })).get("key"),
  redis: (port) => quiet(require("redis").createClient({ socket: { host, port } })).connect(),
  mqtt: (port) => quiet(require("mqtt").connect({ host, port })),
  mongodb: (port) => new (require("mongodb").MongoClient)(`mongodb://${host}:${port}/`).db("d").collection("c").findOne(),
  pg: (port) => quiet(new (require("pg").Pool)({ host, port, user: "u" })).query("SELECT 1"),
  postgres: (port) => require("postgres")({ host, port, user: "u" })`SELECT 1`.execute(),
  mysql2: (port) => require("mysql2/promise").createPool({ host, port, user: "u" }).query("SELECT 1"),
  amqplib: (port) => require("amqplib").connect(`amqp://${host}:${port}`),
  "amqp-connection-manager": (port) => { quiet(require("amqp-connection-manager").connect([`amqp://${host}:${port}`])); },
  kafkajs: (port) => {
    const { Kafka, logLevel } = require("kafkajs");
    return new Kafka({ brokers: [`${host}:${port}`], logLevel: logLevel.NOTHING }).producer().connect();
  },
  nats: (port) => require("nats").connect({ servers: `${host}:${port}` }),
  "@grpc/grpc-js": (port) => {
    const grpc = require("@grpc/grpc-js");
    new grpc.Client(`${host}:${port}`, grpc.credentials.createInsecure()).waitForReady(Date.now() + 60000, () => {});
  },
  "reconnecting-websocket": (port) => {
    const Socket = require("reconnecting-websocket");
    new Socket(`ws://${host}:${port}`, [], { WebSocket: require("ws") }).addEventListener("error", () => {});
  },
};
for (const [name, start] of Object.entries(clients)) for (const port of ports[name]) start(port);
setTimeout(() => {}, 60000);
EOF
cat >"$T/clients.py" <<'EOF'
import asyncio, json, logging, sys, threading
import aio_pika, aiokafka, asyncpg, confluent_kafka, grpc, kafka, kazoo.client, kombu, nats, pika, psycopg, psycopg_pool, pymongo, redis
import paho.mqtt.client as paho
ports, host = json.loads(sys.argv[1]), sys.argv[2]
logging.disable(logging.CRITICAL)
def mqtt(port):
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.connect_async(host, port)
    client.loop_forever(retry_first_connection=True)
def librdkafka(port):
    producer = confluent_kafka.Producer({"bootstrap.servers": f"{host}:{port}", "log_level": 0})
    producer.produce("topic", b"x")
    producer.flush(60)
async def aiokafka_start(port): await aiokafka.AIOKafkaProducer(bootstrap_servers=f"{host}:{port}").start()
async def asyncpg_pool(port): await asyncpg.create_pool(host=host, port=port, user="u")
clients = {
    "redis-py": lambda port: redis.Redis(host, port).get("key"),
    "pymongo": lambda port: pymongo.MongoClient(host, port).d.c.find_one(),
    "paho-mqtt": mqtt,
    "confluent-kafka": librdkafka,
    "kafka-python": lambda port: kafka.KafkaProducer(bootstrap_servers=f"{host}:{port}").send("topic", b"x").get(60),
    "aiokafka": lambda port: asyncio.run(aiokafka_start(port)),
    "psycopg": lambda port: psycopg.connect(f"host={host} port={port} user=u"),
    "psycopg-pool": lambda port: psycopg_pool.ConnectionPool(f"host={host} port={port} user=u", open=True).getconn(),
    "asyncpg": lambda port: asyncio.run(asyncpg_pool(port)),
    "pika": lambda port: pika.BlockingConnection(pika.ConnectionParameters(host, port)),
    "aio-pika": lambda port: asyncio.run(aio_pika.connect_robust(host=host, port=port)),
    "kombu": lambda port: kombu.Connection(f"amqp://{host}:{port}").ensure_connection(),
    "kazoo": lambda port: kazoo.client.KazooClient(f"{host}:{port}").start(60),
    "nats-py": lambda port: asyncio.run(nats.connect(f"nats://{host}:{port}")),
    "grpcio": lambda port: grpc.channel_ready_future(grpc.insecure_channel(f"{host}:{port}")).result(60),
}
def attempt(client, port):
    try: client(port)
    except Exception: pass  # to fail is an answer; the attempts are counted elsewhere
for name, client in clients.items():
    for port in ports[name]: threading.Thread(target=attempt, args=(client, port), daemon=True).start()
threading.Event().wait(60)
EOF
cat >"$T/count.py" <<'EOF'
import json, socket, struct, subprocess, sys, threading, time
HOST, SECONDS, WAYS = "127.7.0.1", 10, ("close", "reset", "silent", "refused")
SEEN = {  # connects within SECONDS after the first, by way of refusal
    "ioredis": (8, 8, 1, 8), "redis": (9, 9, 1, 9), "mqtt": (10, 10, 1, 10), "mongodb": (20, 20, 1, 20), "pg": (1, 1, 1, 1),
    "postgres": (8, 1, 1, 1), "mysql2": (1, 1, 1, 1), "amqplib": (1, 1, 1, 1), "amqp-connection-manager": (2, 2, 1, 2),
    "kafkajs": (6, 5, 1, 6), "nats": (1, 1, 1, 1), "@grpc/grpc-js": (5, 5, 1, 4), "reconnecting-websocket": (3, 3, 2, 3),
    "redis-py": (11, 11, 2, 11), "pymongo": (20, 20, 1, 20), "paho-mqtt": (4, 4, 1, 3), "confluent-kafka": (193, 79, 1, 37),
    "kafka-python": (8, 6, 1, 5), "aiokafka": (1, 1, 1, 1), "psycopg": (1, 1, 1, 1), "psycopg-pool": (16, 16, 3, 16),
    "asyncpg": (1, 1, 1, 1), "pika": (1, 1, 1, 1), "aio-pika": (1, 1, 1, 1), "kombu": (3, 3, 2, 3), "kazoo": (8, 8, 1, 6),
    "nats-py": (5, 5, 3, 5), "grpcio": (5, 4, 1, 5),
}
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
raw.bind((HOST, 0))
attempts, kept = {}, []
def count():
    while True:
        packet = raw.recv(65535)
        segment = packet[(packet[0] & 15) * 4:]
        port, flags = int.from_bytes(segment[2:4], "big"), segment[13]
        if flags & 0x12 == 0x02: attempts.setdefault(port, []).append(time.monotonic())  # SYN without ACK
def serve(listener, way):
    while True:
        connection, _ = listener.accept()
        if way == "reset": connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if way == "silent": kept.append(connection)
        else: connection.close()
def refuser(way):
    listener = socket.socket()
    listener.bind((HOST, 0))
    kept.append(listener)  # bound without listening: connects are refused, and no other process gets the port
    if way != "refused":
        listener.listen(1000)
        threading.Thread(target=serve, args=(listener, way), daemon=True).start()
    return listener.getsockname()[1]
ports = {name: [refuser(way) for way in WAYS] for name in SEEN}
threading.Thread(target=count, daemon=True).start()
commands = (["node", "clients.cjs"], [sys.executable, "clients.py"])
children = [subprocess.Popen([*command, json.dumps(ports), HOST], stderr=subprocess.DEVNULL) for command in commands]
deadline = time.monotonic() + 60
try:
    while time.monotonic() < deadline:
        firsts = [attempts.get(port, [time.monotonic()])[0] for row in ports.values() for port in row]
        if max(firsts) + SECONDS < time.monotonic(): break
        time.sleep(0.2)
finally:
    for child in children: child.kill(); child.wait()
def near(seen, wanted): return seen == wanted if wanted == 1 else wanted // 2 <= seen <= 2 * wanted
held = True
print(f"{'':26}" + "".join(f"{way:>9}" for way in WAYS))
for name, wanted in SEEN.items():
    times = [attempts.get(port, []) for port in ports[name]]
    row = [sum(time < series[0] + SECONDS for time in series) for series in times]
    changed = not all(map(near, row, wanted))
    held = held and not changed
    print(f"{name:26}" + "".join(f"{number:9}" for number in row) + (f"    was {wanted}" if changed else ""))
sys.exit(not held)
EOF
cd "$T" && PYTHONPATH=$T/py python3 count.py
