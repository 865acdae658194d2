"""Draws the record of a run as an SVG: two bars for each case, on a logarithmic axis of time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from bench.report import goal_of, in_time

WIDTH, MARGIN = 960, 16
LABEL_END, BAR_START, BAR_END = 368, 380, 836
TOP, ROW, BAR, BOTTOM = 62, 46, 15, 44
TICKS_S = (0.0001, 0.001, 0.01, 0.1, 1, 10, 100, 1000, 10_000)
# For both themes of the page that shows it.
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.quiet { fill: #59636e; font-size: 12px }
.missed { fill: #9a6700; font-size: 12px }
.title { font-size: 16px; font-weight: 600 }
.ours { fill: #1a7f5a }
.theirs { fill: #b8bfc7 }
.axis { stroke: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .quiet { fill: #9198a1 }
  .missed { fill: #d29922 }
  .ours { fill: #3fb984 }
  .theirs { fill: #59636e }
  .axis { stroke: #3d444d }
}"""


def draw(record: Mapping[str, Any]) -> str:
    """The SVG of a record as `python -m bench` writes it; the same text for the same record."""
    found = [finding for finding in record["findings"] if "ratio" in finding]
    medians = [
        statistics.median(finding[side])
        for finding in found
        for side in ("our_seconds", "their_seconds")
    ]
    scale = Scale(min(medians, default=1), max(medians, default=10))
    height = TOP + ROW * len(found) + BOTTOM
    spoken = "; ".join(
        f"{finding['what']}: {finding['ratio']:.3f} of {finding['theirs']}" for finding in found
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(spoken)}</title>",
        f"<style>\n{STYLE}\n</style>",
        text(MARGIN, 24, "What vmbake takes, beside the usual way (logarithmic)", "title"),
        text(MARGIN, 44, machine(record), "quiet"),
        *axis(scale, TOP + ROW * len(found)),
    ]
    for number, finding in enumerate(found):
        lines += row(finding, TOP + ROW * number, scale)
    return "\n".join([*lines, "</svg>", ""])


class Scale:
    """Places on the axis: whole powers of ten around the shortest and the longest time."""

    def __init__(self, shortest_s: float, longest_s: float) -> None:
        self.first = math.floor(math.log10(shortest_s))
        self.last = max(math.ceil(math.log10(longest_s)), self.first + 1)

    def at(self, seconds: float) -> float:
        """The x of a time."""
        share = (math.log10(seconds) - self.first) / (self.last - self.first)
        return BAR_START + share * (BAR_END - BAR_START)

    @property
    def ticks(self) -> list[float]:
        return [tick for tick in TICKS_S if self.first <= round(math.log10(tick)) <= self.last]


def axis(scale: Scale, bottom: int) -> Iterator[str]:
    """A line and a label for each power of ten."""
    for tick in scale.ticks:
        x = scale.at(tick)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>'
        yield text(x, bottom + 18, spelled(tick), "quiet", "middle")


def row(finding: Mapping[str, Any], top: int, scale: Scale) -> Iterator[str]:
    """One case: its name, the ratio and what was aimed at, both bars with medians and rounds."""
    yield text(LABEL_END, top + 13, finding["what"], "", "end")
    said = f"{finding['ratio']:.3f} of {finding['theirs']}"
    if goal := goal_of(finding, finding["reached"]):
        said += f"; goal {goal}"
    kind = "missed" if finding["reached"] is False else "quiet"
    yield text(LABEL_END, top + 30, said, kind, "end")
    sides: Sequence[tuple[str, str]] = (("our_seconds", "ours"), ("their_seconds", "theirs"))
    for place, (side, kind) in enumerate(sides):
        median = statistics.median(finding[side])
        end, y = scale.at(median), top + place * (BAR + 2)
        width = max(end - BAR_START, 2)
        yield f'<rect class="{kind}" x="{BAR_START}" y="{y}" width="{width:.1f}" height="{BAR}"/>'
        took = f"{in_time(median)}, n = {len(finding[side])}"
        yield text(BAR_START + width + 6, y + 12, took, "quiet")


def text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> str:
    """A line of text."""
    shown = f' class="{kind}"' if kind else ""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}"{shown}{where}>{escape(content)}</text>'


def machine(record: Mapping[str, Any]) -> str:
    """What it was measured on."""
    return (
        f"{record['processor']}, {record['cores']} cores, {record['memory_gb']} GB, "
        f"accelerator {record['accelerator']}, {record['started'][:10]}"
    )


def spelled(seconds: float) -> str:
    """A power of ten as people say it."""
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
