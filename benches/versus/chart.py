"""Bar charts as SVG: a file a measure, a panel a load, a bar a target, whiskers for the spread."""
import math
from html import escape

import report

PANEL_WIDTH, LABELS, VALUES = 460, 112, 68
BAR, GAP, HEAD, AXIS, FOOT = 15, 6, 44, 22, 22
MARGIN, TITLE = 20, 62
COLUMNS = 2
STYLE = """
text { font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328 }
.page { fill: #ffffff } .title { font-size: 17px; font-weight: 600 }
.load { font-size: 13px; font-weight: 600 } .quiet { fill: #59636e; font-size: 11px }
.bar { fill: #9aa7b5 } .ours { fill: #0b7a75 } .floor { fill: #d0d7de }
.grid { stroke: #d8dee4 } .whisker { stroke: #1f2328; stroke-width: 1.3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .page { fill: #0d1117 } .quiet { fill: #9198a1 }
  .bar { fill: #6b7785 } .ours { fill: #2bb3a9 } .floor { fill: #3d444d }
  .grid { stroke: #30363d } .whisker { stroke: #e6edf3 }
}
"""


def step(most):
    """Distance of the ticks: 1, 2 or 5 times a power of ten, three to six of them."""
    power = 10 ** math.floor(math.log10(most / 3))
    return next(power * times for times in (1, 2, 5, 10) if most / (power * times) <= 6)


def tag(name, text=None, **attributes):
    """One element."""
    inner = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f"<{name}{inner}/>" if text is None else f"<{name}{inner}>{escape(text)}</{name}>"


def line(start, end, kind):
    """A straight line between two points."""
    x1, y1 = (f"{part:.1f}" for part in start)
    x2, y2 = (f"{part:.1f}" for part in end)
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, **{"class": kind})


def label(x, y, text, kind="", anchor="start"):
    """A piece of text."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text_anchor": anchor}
    return tag("text", text, **place, **({"class": kind} if kind else {}))


def kind_of(target):
    """How a target's bar looks."""
    ours = target.startswith("evenkeel")
    return "bar ours" if ours else {"bare": "bar floor"}.get(target, "bar")


def bar(y, target, spread, scale):
    """One target: a bar up to the median, a whisker from least to most, the number."""
    left, middle = LABELS, y + BAR / 2
    width = max(1.0, spread.median * scale)
    box = {"x": left, "y": f"{y:.1f}", "width": f"{width:.1f}", "height": BAR, "rx": 2}
    low, high = left + spread.least * scale, left + spread.most * scale
    drawn = tag("rect", **box, **{"class": kind_of(target)})
    drawn += line((low, middle), (high, middle), "whisker")
    for end in (low, high):
        drawn += line((end, middle - 4), (end, middle + 4), "whisker")
    return drawn + label(high + 6, middle + 4, report.digits(spread.median))


def panel(title, unit, spreads, titles):
    """One load: title, bars, axis with ticks and unit. The elements and their height."""
    most = max(spread.most for spread in spreads.values()) or 1
    scale = (PANEL_WIDTH - LABELS - VALUES) / most
    bottom = HEAD + len(spreads) * (BAR + GAP)
    drawn = label(0, 16, title, "load")
    drawn += label(LABELS, 34, unit, "quiet")
    tick, between = 0.0, step(most)
    while tick <= most * 1.001:
        x = LABELS + tick * scale
        drawn += line((x, HEAD - 4), (x, bottom), "grid")
        drawn += label(x, bottom + 14, report.digits(tick) if tick else "0", "quiet", "middle")
        tick += between
    for number, (target, spread) in enumerate(spreads.items()):
        y = HEAD + number * (BAR + GAP)
        drawn += label(LABELS - 8, y + BAR - 3, titles[target], anchor="end")
        drawn += bar(y, target, spread, scale)
    return drawn, bottom + AXIS + FOOT


def draw(rounds, measure, loads, titles, subtitle):
    """The chart of a measure; `None` if nothing was measured."""
    panels = []
    for load in loads:
        found = {name: rounds.spread(measure, load, name) for name in titles}
        found = {name: spread for name, spread in found.items() if spread}
        if found:
            panels.append(panel(load.title, report.unit_of(measure, load)[0], found, titles))
    if not panels:
        return None
    columns = min(COLUMNS, len(panels))
    body, y = "", TITLE
    for start in range(0, len(panels), columns):
        beside = panels[start:start + columns]
        for column, (drawn, _) in enumerate(beside):
            x = MARGIN + column * (PANEL_WIDTH + MARGIN)
            body += f'<g transform="translate({x} {y})">{drawn}</g>\n'
        y += max(height for _, height in beside)
    width = MARGIN + columns * (PANEL_WIDTH + MARGIN)
    better = "less is better" if measure.less_is_better else "more is better"
    head = label(MARGIN, 28, measure.title, "title")
    head += label(MARGIN, 46, f"{better} · {subtitle}", "quiet")
    page = tag("rect", width="100%", height="100%", **{"class": "page"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
        f'viewBox="0 0 {width} {y}" role="img">\n<title>{escape(measure.title)}</title>\n'
        f"<style>{STYLE}</style>\n{page}\n{head}\n{body}</svg>\n"
    )
