"""What a run has shown: a CSV of every round, Markdown tables, and the numbers for the charts."""
import csv
import dataclasses
import statistics

COLUMNS = [
    "round", "load", "target", "network", "started", "units", "unit", "errors", "seconds",
    "cpu_us", "system_us", "cpu_share", "stolen_s", "throughput", "p50_us", "p99_us", "p999_us",
    "max_us", "late_p99_us", "resident_bytes",
]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One column of the CSV as a table of its own."""

    column: str
    name: str
    title: str
    less_is_better: bool = True


MEASURES = [
    Measure("cpu_us", "cpu", "CPU time of the proxy for a unit of work"),
    Measure("system_us", "system", "CPU time of the whole system for a unit of work"),
    Measure("throughput", "throughput", "Units of work in a second", False),
    Measure("p50_us", "p50", "Latency, half of all"),
    Measure("p99_us", "p99", "Latency, 99 % of all"),
    Measure("p999_us", "p999", "Latency, 99.9 % of all"),
    Measure("resident_bytes", "memory", "Resident memory of a session"),
]


def unit_of(measure, load):
    """The unit of a measured value, and what a value in the CSV is divided by to get it."""
    if measure.column in ("cpu_us", "system_us"):
        return ("s a GB", 1e6) if load.unit == "GB" else (f"µs a {load.unit}", 1)
    if measure.column == "throughput":
        return ("GB/s", 1) if load.unit == "GB" else (f"{load.unit}s a second", 1)
    return ("bytes a session", 1) if measure.column == "resident_bytes" else ("µs", 1)


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median, least and most of some rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        """Of a list that is not empty."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self):
        """As in the tables."""
        return f"{digits(self.median)} ({digits(self.least)}–{digits(self.most)})"


def digits(value):
    """Three digits, no exponents."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.4f}"


class Rounds:
    """Every run, written down as it ends: what is interrupted is not lost."""

    def __init__(self, path):
        self.file = open(path, "w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, COLUMNS)
        self.writer.writeheader()
        self.rows = []

    def add(self, row):
        """One run."""
        self.rows.append(row)
        self.writer.writerow({name: plain(row.get(name)) for name in COLUMNS})
        self.file.flush()

    def spread(self, measure, load, target):
        """Median and spread of what was measured; `None` if it was not."""
        _, scale = unit_of(measure, load)
        chosen = (row for row in self.rows if (row["load"], row["target"]) == (load.name, target))
        values = [row[measure.column] / scale for row in chosen if has(row, measure.column)]
        return Spread.of(values) if values else None

    def errors(self):
        """Errors of each load and target that had any."""
        found = {}
        for row in self.rows:
            if row["errors"]:
                key = (row["load"], row["target"])
                found[key] = found.get(key, 0) + row["errors"]
        return found

    def stolen(self):
        """Share of the time of one core that the host took away, of all runs."""
        seconds = sum(row["seconds"] or 0 for row in self.rows)
        return sum(row.get("stolen_s") or 0 for row in self.rows) / seconds if seconds else 0


def has(row, column):
    """Whether a run has measured this."""
    return row.get(column) is not None


def plain(value):
    """A number as a spreadsheet wants it."""
    return f"{value:.6g}" if isinstance(value, float) else value


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def tables(rounds, loads, titles):
    """A section for each measure: values, then ratios of evenkeel to each of the others."""
    text = ""
    for measure in MEASURES:
        values, ratios = [], []
        others = [name for name in titles if name != "evenkeel"]
        for load in loads:
            found = {name: rounds.spread(measure, load, name) for name in titles}
            if not any(found.values()):
                continue
            title = f"{load.title}, {unit_of(measure, load)[0]}"
            values.append([title, *(one.show() if one else "-" for one in found.values())])
            ours = found.get("evenkeel")
            ratios.append([load.title, *(ratio(ours, found[name]) for name in others)])
        if not values:
            continue
        better = "less is better" if measure.less_is_better else "more is better"
        text += f"\n## {measure.title}\n\n{better}; median (least–most)\n\n"
        text += table(["load", *titles.values()], values)
        if "evenkeel" in titles and others:
            text += "\nevenkeel divided by each:\n\n"
            text += table(["load", *(titles[name] for name in others)], ratios)
    return text


def ratio(ours, theirs):
    """evenkeel's median divided by another's."""
    if not ours or not theirs or not theirs.median:
        return "-"
    return f"{ours.median / theirs.median:.2f}"


def markdown(rounds, loads, titles, about):
    """The whole report."""
    text = "# evenkeel beside others\n\n"
    text += "".join(f"- {name}: {value}\n" for name, value in about.items())
    text += f"- stolen by the host: {rounds.stolen():.1%} of one core\n"
    for (load, target), count in rounds.errors().items():
        text += f"- **errors**: {count} of {load} through {titles[target]}\n"
    return text + tables(rounds, loads, titles)
