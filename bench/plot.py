"""Draw the latencies of a load as an SVG that is readable on light and dark pages."""

from __future__ import annotations

from html import escape
from math import ceil, floor, log10

from load import Answer, Load, percentile

WIDTH, HEIGHT = 1000, 420
LEFT, RIGHT, TOP, BOTTOM = 74, 16, 74, 48  # margins
BIN = 0.5  # seconds that one point stands for
STYLE = """
  svg { --paper: #fff; --ink: #24292f; --faint: #d0d7de; --band: #eef4fb;
        --p50: #0a6e31; --p90: #0550ae; --longest: #bc4c00; --bad: #cf222e }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --faint: #3d444d; --band: #16243a;
          --p50: #3fb950; --p90: #79c0ff; --longest: #f0883e; --bad: #ff7b72 }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink) }
  .title { font-size: 15px; font-weight: 600 }
  .small { font-size: 11px }
  .paper { fill: var(--paper) } .band { fill: var(--band) }
  .grid { stroke: var(--faint); stroke-width: 1 }
  .switch { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3 }
  .limit { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 2 4 }
  .line { fill: none; stroke-width: 1.5 }
  .p50 { stroke: var(--p50) } .p90 { stroke: var(--p90) }
  .longest { fill: var(--longest) } .failed { fill: var(--bad) }
"""


def draw(load: Load, title: str, limit: float = 0.5) -> str:
    """Return the plot of a load: p50, p90 and longest of each half second, and what happened when.

    `limit` is a latency in seconds that is marked.
    """
    answers = sorted(load.answers, key=lambda answer: answer.start)
    longest = max(answer.latency for answer in answers)
    scale = Scale(answers[-1].start + BIN, max(longest, 1.1 * limit))
    bins: dict[int, list[Answer]] = {}
    for answer in answers:
        bins.setdefault(int(answer.start / BIN), []).append(answer)
    parts = [*background(scale, limit), *bands(load, scale)]
    for name, percent in (("p50", 50), ("p90", 90)):
        points = (
            f"{scale.x((n + 0.5) * BIN)},{scale.y(percentile([a.latency for a in one], percent))}"
            for n, one in bins.items()
        )
        parts.append(f'<polyline class="line {name}" points="{" ".join(points)}"/>')
    for number, one in bins.items():
        top, failed = max(answer.latency for answer in one), any(answer.failed for answer in one)
        place = f'cx="{scale.x((number + 0.5) * BIN)}" cy="{scale.y(top)}"'
        parts.append(f'<circle class="{"failed" if failed else "longest"}" {place} r="2"/>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
            *legend(),
            *parts,
            "</svg>\n",
        ]
    )


class Scale:
    """Seconds to the right, latencies upwards in powers of ten."""

    def __init__(self, seconds: float, longest: float) -> None:
        """Make room for so many seconds, and for latencies from 1 ms to the longest."""
        self.seconds, self.top = seconds, ceil(10 * log10(1000 * longest)) / 10

    def x(self, seconds: float) -> float:
        """Return where a moment is."""
        return round(LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.seconds, 1)

    def y(self, latency: float) -> float:
        """Return where a latency in seconds is."""
        height = (HEIGHT - TOP - BOTTOM) * log10(max(1000 * latency, 1)) / self.top
        return round(HEIGHT - BOTTOM - height, 1)


def legend() -> list[str]:
    """Return what the marks mean."""
    marks = [
        ('<line class="line p50" x1="0" x2="22" y1="-4" y2="-4"/>', "p50"),
        ('<line class="line p90" x1="0" x2="22" y1="-4" y2="-4"/>', "p90"),
        ('<circle class="longest" cx="11" cy="-4" r="3"/>', f"longest in {BIN:g} s"),
        ('<line class="switch" x1="11" x2="11" y1="-12" y2="2"/>', "traffic moves"),
        ('<rect class="band" y="-12" width="22" height="14"/>', "a deploy runs"),
    ]
    return [
        f'<g transform="translate({LEFT + 150 * number} 46)">{mark}<text x="28">{text}</text></g>'
        for number, (mark, text) in enumerate(marks)
    ]


def background(scale: Scale, limit: float) -> list[str]:
    """Return the axes and the limit."""
    bottom, parts = HEIGHT - BOTTOM, []
    for power in range(floor(scale.top) + 1):
        y = scale.y(10 ** (power - 3))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10**power} ms</text>')
    step = next(step for step in (10, 20, 30, 60, 120, 300, 600) if scale.seconds / step <= 12)
    for second in range(0, floor(scale.seconds) + 1, step):
        place = f'x="{scale.x(second)}" y="{bottom + 20}" text-anchor="middle"'
        parts.append(f"<text {place}>{second} s</text>")
    y = scale.y(limit)
    parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    place = f'x="{LEFT - 8}" y="{y + 4}" text-anchor="end"'
    return [*parts, f'<text class="small" {place}>{1000 * limit:.0f} ms</text>']


def bands(load: Load, scale: Scale) -> list[str]:
    """Return the phases, and in each the moment when the next release first answered."""
    parts = []
    for name, begin, end in load.phases:
        x, width = scale.x(begin), round(scale.x(end) - scale.x(begin), 1)
        place = f'x="{x}" y="{TOP - 6}" width="{width}" height="{HEIGHT - BOTTOM - TOP + 6}"'
        parts.append(f'<rect class="band" {place}/>')
        middle = f'x="{round(x + width / 2, 1)}" y="{HEIGHT - 10}" text-anchor="middle"'
        parts.append(f'<text class="small" {middle}>{escape(name)}: {end - begin:.1f} s</text>')
    # Bands lie below lines, also those of a band that comes later.
    for moment in load.changes():
        line = (
            f'x1="{scale.x(moment)}" x2="{scale.x(moment)}" y1="{TOP - 6}" y2="{HEIGHT - BOTTOM}"'
        )
        parts.append(f'<line class="switch" {line}/>')
    return parts
