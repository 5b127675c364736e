"""The loads: what is asked of every proxy, and the unit its work is counted in."""
import dataclasses
import json
import pathlib
import time

import measure
from processes import Failed

HERE = pathlib.Path(__file__).resolve().parent
IDLE_SESSIONS = 4000
STORM_CONNECTIONS = 1000
STOPPED_READERS = 200
UPLOAD_BYTES = 1 << 20
CALM_RATE = 200
FLOOD_RATE = 20_000
OPEN_CONNECTIONS = 64
# How much earlier the downloads begin, and end later, than what is done beside them.
DOWNLOADS_AHEAD = 1
# How much longer than planned a load may take: connecting, and a last slow reply.
PATIENCE = 60
SETTLE_SECONDS = 1.0
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Load:
    """One kind of work; `run(bench, target)` does it once."""

    name: str
    title: str
    unit: str
    run: object
    # Targets that cannot do it.
    without: tuple = ()


class Bench:
    """What every load needs: targets, seconds, and a core for the client."""

    def __init__(self, children, targets, options):
        self.children = children
        self.targets = targets
        self.options = options

    def client(self, *command):
        """Runs a client to its end; what it says it has done."""
        patience = self.options.seconds + PATIENCE
        return self.children.ask("client", self.options.other_cpu, command, patience)

    def measured(self, target, act):
        """Runs `act` between two looks at the clocks of a target."""
        before = measure.read(self.targets.pid(target))
        done = act()
        spent = measure.read(self.targets.pid(target)).since(before)
        return {**done, "spent": spent}

    def generator(self, target, mode, *more, listener="web"):
        """The project's own client in one of its modes."""
        place = self.targets.place(target, listener)
        return self.client(self.targets.load, place, mode, *more)

    def hold(self, target, count, listener="web", mode="hold"):
        """Opens silent connections, or those of readers that stop; they last until `release`."""
        place = self.targets.place(target, listener)
        command = [self.targets.load, place, mode, "--connections", count]
        cpu = self.options.other_cpu
        process = self.children.start("hold", "client", cpu, command, talks=True)
        if not process.stdout.readline().startswith(b"held"):
            raise Failed(f"cannot hold {count} connections to {target}")

    def begin_downloads(self, target, connections):
        """Long downloads that last a little longer than a load, before it and after it."""
        seconds = self.options.seconds + 2 * DOWNLOADS_AHEAD
        command = [self.targets.load, self.targets.place(target), "downloads"]
        command += ["--connections", connections, "--seconds", seconds]
        cpu = self.options.other_cpu
        return self.children.start("downloads", "client", cpu, command, talks=True)

    def end_downloads(self, process):
        """Waits for the end of the downloads; what they say of themselves."""
        out, _ = process.communicate(timeout=self.options.seconds + PATIENCE)
        self.children.end("downloads")
        return json.loads(out.decode().strip().splitlines()[-1])

    def begin_flood(self, target):
        """A client that connects at a fixed rate to where it is over its limit."""
        more = ["--connections", 1024, "--rate", FLOOD_RATE, "--seconds", self.options.seconds]
        command = [self.targets.load, self.targets.place(target, "limited"), "arrivals", *more]
        return self.children.start("flood", "client", self.options.other_cpu, command, talks=True)

    def end_flood(self, process):
        """Waits for the end of the flood; what it has met with."""
        out, _ = process.communicate(timeout=self.options.seconds + PATIENCE)
        self.children.end("flood")
        return json.loads(out.decode().strip().splitlines()[-1])

    def release(self):
        """Ends the connections of `hold`."""
        self.children.end("hold")


def wrk(path, connections, close=False):
    """Requests by wrk, each as soon as its connection has the last reply."""

    def run(bench, target):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{bench.options.seconds}s"]
        command += ["--timeout", "10s", "-s", HERE / "count.lua"]
        command += ["-H", "Connection: close"] if close else []
        url = f"http://{bench.targets.place(target)}/{path}"
        done = bench.measured(target, lambda: bench.client(*command, url))
        # With several connections a closed loop hides what a slow reply keeps from being asked.
        return done if connections == 1 else {**done, "latency": {}}

    return run


def upload(bench, target):
    """POST bodies; the server reads them and drops them."""
    more = ["--connections", 4, "--bytes", UPLOAD_BYTES, "--seconds", bench.options.seconds]
    return bench.measured(target, lambda: bench.generator(target, "upload", *more))


def storm(bench, target):
    """A thousand connections at once, each with a request, and again when all have ended."""
    more = ["--connections", STORM_CONNECTIONS, "--waves", "--seconds", bench.options.seconds]
    done = bench.measured(target, lambda: bench.generator(target, "arrivals", *more))
    return {**done, "units": done["served"], "errors": done["errors"] + done["refused"]}


def refused(bench, target):
    """A client over its limit that goes on connecting, 64 at once."""
    more = ["--connections", 64, "--seconds", bench.options.seconds]

    def act():
        return bench.generator(target, "arrivals", *more, listener="limited")

    # This one is what the limit allows.
    bench.hold(target, 1, "limited")
    done = bench.measured(target, act)
    bench.release()
    errors = done["errors"] + done["served"]
    return {**done, "units": done["refused"], "errors": errors, "latency": {}}


def few_new(bench, target):
    """A well-behaved client: new connections at a rate that any proxy bears."""
    more = ["--connections", 64, "--rate", CALM_RATE, "--seconds", bench.options.seconds]
    return bench.generator(target, "arrivals", *more)


def calm(bench, target):
    """The well-behaved client alone."""
    done = bench.measured(target, lambda: few_new(bench, target))
    return {**done, "units": done["served"], "errors": done["errors"] + done["refused"]}


def flood(bench, target):
    """The same beside a client over its limit that connects all the time; CPU is of a refusal."""
    # This one is what the limit allows.
    bench.hold(target, 1, "limited")

    def act():
        process = bench.begin_flood(target)
        done = few_new(bench, target)
        return {**done, "flood": bench.end_flood(process)}

    done = bench.measured(target, act)
    bench.release()
    errors = done["errors"] + done["refused"] + done["flood"]["served"] + done["flood"]["errors"]
    return {**done, "units": done["flood"]["refused"], "errors": errors}


def open_loop(rate):
    """Small requests at a fixed rate; latency counts from when each was due."""

    def run(bench, target):
        more = ["--connections", OPEN_CONNECTIONS, "--rate", rate]
        more += ["--seconds", bench.options.seconds]
        return bench.measured(target, lambda: bench.generator(target, "open", *more))

    return run


def kept_small(bench, target):
    """A few small requests on kept connections, on a schedule."""
    more = ["--connections", 4, "--rate", 400, "--seconds", bench.options.seconds]
    return bench.generator(target, "open", *more, listener="small")


def new_small(bench, target):
    """Fifty new connections at once, and again when all have been served."""
    more = ["--connections", 50, "--waves", "--seconds", bench.options.seconds]
    done = bench.generator(target, "arrivals", *more, listener="small")
    return {**done, "errors": done["errors"] + done["refused"]}


def beside_downloads(connections, small):
    """Small work towards an idle backend while others download; CPU and bytes are of all."""

    def run(bench, target):
        def act():
            process = bench.begin_downloads(target, connections)
            time.sleep(DOWNLOADS_AHEAD)
            done = small(bench, target)
            moved = bench.end_downloads(process)
            errors = done["errors"] + moved["errors"]
            return {**moved, "errors": errors, "latency": done["latency"]}

        return bench.measured(target, act)

    return run


def slow_readers(bench, target):
    """What `64m` does, beside clients that have asked for as much and stopped to read."""
    bench.hold(target, STOPPED_READERS, mode="stall")
    time.sleep(SETTLE_SECONDS)
    done = wrk("64m", 4)(bench, target)
    bench.release()
    return done


def idle(bench, target):
    """What a fresh process grows by for connections that say nothing."""
    bench.targets.restart(target)
    pid = bench.targets.pid(target)
    before = measure.resident_bytes(pid)
    bench.hold(target, IDLE_SESSIONS)
    time.sleep(SETTLE_SECONDS)
    grown = measure.resident_bytes(pid) - before
    bench.release()
    return {"units": IDLE_SESSIONS, "errors": 0, "resident_bytes": grown / IDLE_SESSIONS}


def every(rates):
    """All loads, those at a fixed rate once for each rate."""
    loads = [
        Load("short", "short connection", "connection", wrk("tiny", 64, close=True)),
        Load("kept-1", "small request, 1 kept", "request", wrk("tiny", 1)),
        Load("kept-64", "small request, 64 kept", "request", wrk("tiny", 64)),
        Load("kept-1000", "small request, 1,000 kept", "request", wrk("tiny", 1000)),
        Load("kept-4000", "small request, 4,000 kept", "request", wrk("tiny", 4000)),
        Load("16k", "16 KiB replies, 32 kept", "request", wrk("16k", 32)),
        Load("1m", "1 MiB replies, 16 kept", "GB", wrk("1m", 16)),
        Load("64m", "64 MiB replies, 4 kept", "GB", wrk("64m", 4)),
        Load("slow-readers", "64 MiB replies, 4 kept, beside 200 stopped", "GB", slow_readers),
        Load("upload", "1 MiB uploads, 4 kept", "GB", upload),
        Load("refused", "refused connection", "refusal", refused, without=("bare",)),
        Load("calm", f"{CALM_RATE} new connections/s", "connection", calm),
        Load("flood", f"the same beside {FLOOD_RATE:,} refusals/s", "refusal", flood,
             without=("bare",)),
        Load("storm", "1,000 connections at once", "connection", storm),
    ]
    loads += [
        Load(f"open-{rate}", f"open loop, {rate:,}/s", "request", open_loop(rate))
        for rate in rates
    ]
    for connections in (64, 400):
        for name, title, small in (
            ("kept", "small request, 4 kept", kept_small),
            ("new", "50 new connections at once", new_small),
        ):
            title = f"{title}, beside {connections} downloads"
            run = beside_downloads(connections, small)
            loads.append(Load(f"fair-{name}-{connections}", title, "GB", run, without=("bare",)))
    return [*loads, Load("idle", "idle session", "session", idle)]


def row(load, done):
    """What one run has shown, in the columns of the table of rounds."""
    units = done["bytes"] / GB if load.unit == "GB" else done["units"]
    spent = done.get("spent")
    seconds = done.get("seconds")
    # A run that has done nothing has no time for a unit of work: it must not go unseen.
    errors = done["errors"] + (units == 0)
    shown = {"units": units, "unit": load.unit, "errors": errors, "seconds": seconds}
    if spent and units:
        shown["cpu_us"] = spent.proxy / 1e3 / units
        shown["system_us"] = spent.system / 1e3 / units
        shown["cpu_share"] = spent.proxy / 1e9 / seconds
        shown["stolen_s"] = spent.stolen / 1e9
        shown["throughput"] = units / seconds
    shown.update(done.get("latency", {}))
    shown["late_p99_us"] = done.get("lateness", {}).get("p99_us")
    shown["resident_bytes"] = done.get("resident_bytes")
    return shown
