"""Pictures of time as inline SVG: lanes of bars over a common axis.

Places along the axis are percentages and text keeps its size, so a picture fits any width without
being scaled. There are no style attributes, which the page's security policy would refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.ci.text import one_line
from tasks.core.display import in_seconds

LABEL_PX = 18
BAR_PX = 12
AXIS_PX = 24
# Steps that people count in, in seconds.
STEPS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
MOST_TICKS = 5
# A time that stands further right, in percent, would not be within the picture.
LAST_TIME = 96
# The thinnest bar that can still be seen, in percent of the width.
THINNEST = 0.6
SPOKEN_CHARS = 2000


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of time.

    Args:
        kind: class of the bar in the style sheet, which gives it its colour.
        note: more to say of it than its name and length.
    """

    name: str
    start_s: float
    seconds: float
    kind: str
    note: str = ""

    @property
    def end_s(self) -> float:
        return self.start_s + self.seconds

    @property
    def said(self) -> str:
        return " · ".join(filter(None, (f"{self.name} {in_seconds(self.seconds)}", self.note)))


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Bars that belong together, in one line under their name."""

    name: str
    bars: tuple[Bar, ...]
    note: str = ""


def lanes(rows: Sequence[Lane], about: str, gap_px: int = 10) -> Markup:
    """All lanes over one axis, which begins at 0 s.

    Args:
        about: what the picture shows, for those who can't see it; what is in it is added.
        gap_px: room between a bar and the name below it.
    """
    whole = max((bar.end_s for row in rows for bar in row.bars), default=0.0) or 1.0
    parts = []
    top = 0
    for row in rows:
        parts.append(heading(row, top + LABEL_PX - 6))
        parts += [drawn(bar, whole, top + LABEL_PX) for bar in row.bars]
        top += LABEL_PX + BAR_PX + gap_px
    height = top - gap_px + 6
    spoken = "; ".join(f"{row.name}: {', '.join(bar.said for bar in row.bars)}" for row in rows)
    return picture([*axis(whole, height), *parts], height + AXIS_PX, f"{about}. {spoken}")


def picture(parts: Iterable[Markup], height: int, about: str) -> Markup:
    """The SVG element around its parts."""
    return Markup(
        '<svg class="chart" role="img" width="100%" height="{}" aria-label="{}">{}</svg>'
    ).format(height, one_line(about, SPOKEN_CHARS), Markup("").join(parts))


def heading(row: Lane, y: int) -> Markup:
    """The name of a lane with its note behind it."""
    note = Markup('<tspan class="note" dx="8">{}</tspan>').format(row.note) if row.note else ""
    return Markup('<text class="name" x="0" y="{}">{}{}</text>').format(y, row.name, note)


def drawn(bar: Bar, whole: float, top: int) -> Markup:
    """The rectangle of a bar; pointing at it says what it is."""
    width = max(percent(bar.seconds, whole), THINNEST)
    start = min(percent(bar.start_s, whole), 100 - width)
    return Markup(
        '<rect class="bar {}" x="{:g}%" y="{}" width="{:g}%" height="{}"><title>{}</title></rect>'
    ).format(bar.kind, round(start, 2), top, width, BAR_PX, bar.said)


def axis(whole: float, height: int) -> list[Markup]:
    """Lines at round times, each with its time below."""
    step = next((step for step in STEPS_S if whole / step <= MOST_TICKS), whole / MOST_TICKS)
    parts = []
    for number in range(int(whole / step) + 1):
        place = percent(number * step, whole)
        line = Markup('<line class="tick" x1="{0:g}%" x2="{0:g}%" y1="0" y2="{1}"/>')
        parts.append(line.format(place, height))
        if place <= LAST_TIME:
            time = Markup('<text class="time" x="{:g}%" y="{}" text-anchor="{}">{}</text>')
            anchor = "middle" if number else "start"
            parts.append(time.format(place, height + 15, anchor, clock(number * step)))
    return parts


def percent(part: float, whole: float) -> float:
    """`part` of `whole` in percent, short enough for a page with thousands of them."""
    return round(100 * part / whole, 2)


def clock(seconds: float) -> str:
    """A time on the axis: `0`, `30 s`, `5 min`, `2:30 min`, `1:30 h`."""
    if seconds == 0:
        return "0"
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 3600:
        return f"{minutes}:{rest:02} min" if rest else f"{minutes} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
