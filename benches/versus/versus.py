#!/usr/bin/env python3
"""evenkeel beside HAProxy, nginx stream, Envoy and a bare relay, in front of the same nginx.

One proxy worker on one core, client and backend on another. All targets do one load after the
other, A B C, and again in the next round, which begins with another target: a neighbour that comes
and goes disturbs all alike. Results go to a directory: `report.md`, `rounds.csv`, charts.

    scripts/versus.sh [--rounds 5] [--seconds 3] [--network loopback|veth|veth-offload]

installs and builds what is needed and runs this. docs/performance.md tells how to read it.
"""
import argparse
import datetime
import os
import pathlib
import platform
import resource
import shlex
import shutil
import sys
import tempfile

import chart
import loads
import network
import report
import targets
from processes import Children, Failed, deaf_to_signals, on_signals

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS = 200
NETWORKS = ("loopback", "veth", "veth-offload")
DESCRIPTORS = 100_000


def numbers(text):
    """`2000,10000` as a list."""
    return [int(part) for part in text.split(",")]


def options():
    """The command line."""
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    add = parser.add_argument
    add("--rounds", type=int, default=5)
    add("--seconds", type=int, default=3, help="of each load, target and round")
    add("--network", choices=NETWORKS, default="loopback")
    add("--only", nargs="+", choices=targets.ALL, default=list(targets.NAMES), metavar="TARGET",
        help=", ".join(targets.ALL))
    add("--loads", nargs="+", metavar="LOAD", help="all of them unless some are named")
    add("--rates", type=numbers, default=[2000, 10000, 20000], help="of the open loop, a second")
    add("--out", type=pathlib.Path, default=built / "versus")
    add("--built", type=pathlib.Path, default=built / "release", help="where examples/ is")
    add("--binary", type=pathlib.Path, help="evenkeel, if not the one that was built")
    add("--envoy", type=pathlib.Path, default=built / "versus-envoy" / "bin" / "envoy")
    add("--port", type=int, default=17000, help=f"the first of {PORTS} that are used")
    add("--proxy-cpu", default="0", metavar="LIST", help="as taskset takes it, like 0 or 0,1")
    add("--other-cpu", default="1", metavar="LIST", help="of client and backend")
    chosen = parser.parse_args()
    for name in ("built", "binary", "envoy", "out"):
        if getattr(chosen, name):
            setattr(chosen, name, getattr(chosen, name).absolute())
    chosen.binary = chosen.binary or chosen.built / "evenkeel"
    return chosen


def chosen_loads(chosen):
    """The loads that were asked for, in their order."""
    known = loads.every(chosen.rates)
    names = [load.name for load in known]
    unknown = [name for name in chosen.loads or [] if name not in names]
    if unknown:
        raise Failed(f"no load is called {', '.join(unknown)}; there are {', '.join(names)}")
    return [load for load in known if not chosen.loads or load.name in chosen.loads]


def about(chosen):
    """What a reader of the results must know."""
    processor = "unknown"
    for row in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if row.startswith("model name"):
            processor = row.split(":", 1)[1].strip()
            break
    facts = {
        "date": datetime.date.today().isoformat(),
        "kernel": platform.release(),
        "processor": f"{processor}, {os.cpu_count()} cores",
        "network": chosen.network,
        "rounds": f"{chosen.rounds} of {chosen.seconds} s",
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    return {**facts, **targets.versions(chosen, chosen.only)}


def load_average():
    """How busy the machine is before anything runs."""
    return float(pathlib.Path("/proc/loadavg").read_text().split()[0])


def run_rounds(bench, wanted, rounds):
    """Every load through every target, in turns."""
    chosen = bench.options
    total = chosen.rounds * len(wanted)
    for number in range(chosen.rounds):
        turn = number % len(chosen.only)
        order = chosen.only[turn:] + chosen.only[:turn]
        for position, load in enumerate(wanted):
            done = number * len(wanted) + position
            print(f"[{done + 1}/{total}] round {number + 1}, {load.title}", file=sys.stderr)
            for name in order:
                if name in load.without:
                    continue
                started = datetime.datetime.now().isoformat(timespec="seconds")
                shown = loads.row(load, load.run(bench, name))
                place = {"round": number + 1, "load": load.name, "target": name}
                rounds.add({**place, "network": chosen.network, "started": started, **shown})


def write(chosen, wanted, rounds, facts):
    """Report and charts of what has been measured so far."""
    titles = {name: targets.TITLES[name] for name in targets.ALL if name in chosen.only}
    text = report.markdown(rounds, wanted, titles, facts)
    (chosen.out / "report.md").write_text(text, encoding="utf-8")
    counted = len({row["round"] for row in rounds.rows})
    subtitle = f"bars: median of {counted} rounds, whiskers: least and most · {chosen.network}"
    for measure in report.MEASURES:
        drawn = chart.draw(rounds, measure, wanted, titles, subtitle)
        path = chosen.out / f"{measure.name}.svg"
        if drawn:
            path.write_text(drawn, encoding="utf-8")
        else:
            # That of an earlier run would say what this one has not seen.
            path.unlink(missing_ok=True)
    print(text)
    print(f"written to {chosen.out}", file=sys.stderr)


def measure_all(chosen, directory):
    """A whole run; what it starts and changes is ended and put back, however it ends."""
    wanted = chosen_loads(chosen)
    targets.check_files(chosen, chosen.only)
    facts = about(chosen)
    facts["load average before"] = load_average()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), file=sys.stderr)
    chosen.out.mkdir(parents=True, exist_ok=True)
    rounds = report.Rounds(chosen.out / "rounds.csv")
    ports = (chosen.port, chosen.port + PORTS - 1)
    with network.of_name(chosen.network, ports) as between:
        children = Children(directory, between)
        try:
            proxies = targets.Targets(children, chosen, chosen.only)
            proxies.start_all()
            run_rounds(loads.Bench(children, proxies, chosen), wanted, rounds)
        finally:
            deaf_to_signals()
            children.end_all()
            if rounds.rows:
                write(chosen, wanted, rounds, facts)


def main():
    """Runs everything; 1 if that fails, 130 if it is interrupted."""
    on_signals()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, most), most))
    directory = pathlib.Path(tempfile.mkdtemp(prefix="evenkeel-versus-"))
    directory.chmod(0o755)
    try:
        measure_all(options(), directory)
    except Failed as error:
        sys.exit(f"versus: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
