"""Renders the report: one HTML file with its style, script and pictures inside.

What comes from a guest is text and stays text: cleaned and cut here, escaped by the template. The
policy in the page's head lets nothing run or load that is not part of the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tasks.artifacts.checks import Outcome
from tasks.artifacts.publish import publish_text
from tasks.ci.data import PIPELINE, ReportData, Size, Video
from tasks.ci.figures import NOTABLE_GROWTH, change, count_all, growth, verdict
from tasks.ci.problems import Problem, labels, problems
from tasks.ci.report.grid import blocks_of
from tasks.ci.report.images import (
    GROUP_CHARS,
    SAID,
    SYMBOLS,
    Shown,
    checks_of,
    image_id,
    images_of,
    safe,
)
from tasks.ci.report.pictures import boot_of_all, stages_of_all
from tasks.ci.report.texts import NAME_CHARS
from tasks.ci.text import one_line
from tasks.core.display import in_bytes, in_seconds

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = HERE / "page.html.j2", HERE / "page.css", HERE / "page.js"
# So many problems are listed in sight; the others are folded below.
IN_SIGHT = 12
# More images than this don't fit beside the names of the checks.
WIDE = 12
# So few have room for names that are not turned.
FEW = 4
NOTHING = "\N{EN DASH}"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A problem in the list at the top, with a link for each image that has it."""

    outcome: Outcome
    group: str
    name: str
    reason: str
    places: tuple[tuple[str, str], ...]


def render(data: ReportData) -> str:
    """The page as one string of HTML."""
    names = [one_line(name, GROUP_CHARS) for name in labels(data.judged)]
    # What was checked around the images comes before the first of them.
    before = len(data.everything) - len(data.judged)
    every = checks_of(data.everything, before)
    shown = every[before:]
    style, script = assets()
    counts = count_all(data.judged)
    html = (
        environment()
        .get_template(TEMPLATE.name)
        .render(
            data=data,
            verdict=verdict(data),
            counts=counts,
            total=sum(counts.values()),
            facts=run_facts(data),
            troubles=[
                trouble_of(problem, [PIPELINE] * before + names, every, before)
                for problem in problems(data.everything)
            ],
            around=[check for row in every[:before] for check in row],
            images=images_of(data, names, shown),
            blocks=blocks_of(data.judged, shown),
            stages=stages_of_all(data, names),
            boot=boot_of_all(data.judged, names),
            sizes=[size_row(size) for size in data.sizes],
            videos=[(one_line(video.title), source(video)) for video in data.videos],
            links=[(one_line(item.title), safe(item.href), item.size_bytes) for item in data.links],
            style=style,
            script=script,
            policy=policy(style, script),
            icon=icon(data.passed),
        )
    )
    # The template's line ends would be a third of all nodes. Text can't match: its `>` is escaped.
    return html.replace(">\n<", "><")


def write(data: ReportData, path: Path) -> None:
    """Write the page to `path`, complete or not at all.

    Raises:
        OSError: it can't be written.
    """
    publish_text(render(data), path)


@functools.cache
def environment() -> Environment:
    """The template engine: escapes everything, and refuses names that it doesn't know."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "symbols": SYMBOLS,
        "said": SAID,
        "in_sight": IN_SIGHT,
        "wide": WIDE,
        "few": FEW,
    }
    made.filters |= {"bytes": in_bytes, "seconds": in_seconds, "line": one_line}
    return made


def assets() -> tuple[str, str]:
    """Style sheet and script, as they stand in the page."""
    return STYLE.read_text(encoding="utf-8"), SCRIPT.read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """The content security policy (CSP 3): our style and our script by digest, nothing else.

    Videos may also come from beside the page; `'self'` says that on a server, `file:` on a disk.
    """
    rules = {
        "default-src": "'none'",
        "style-src": digest(style),
        "script-src": digest(script),
        "img-src": "data:",
        "media-src": "data: 'self' file:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def digest(text: str) -> str:
    """A text as CSP names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def icon(passed: bool) -> str:
    """A dot in the colour of the verdict, for the browser's tab."""
    colour = "#1a7f4b" if passed else "#c62f2f"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        f'<circle cx="8" cy="8" r="7" fill="{colour}"/></svg>'
    )
    return f"data:image/svg+xml,{quote(svg)}"


def run_facts(data: ReportData) -> list[tuple[str, str]]:
    """What to know of the run, name and value."""
    known = [
        ("Build", data.build),
        ("Commit", data.commit[:12]),
        ("Started", data.started.replace("T", " ")[:16] + " UTC"),
        ("Took", in_seconds(data.seconds)),
        *data.host,
    ]
    return [(one_line(name), one_line(value)) for name, value in known if value]


def trouble_of(
    problem: Problem, names: Sequence[str], shown: list[list[Shown]], before: int = 0
) -> Trouble:
    """A problem with links to all places where it was met.

    Args:
        before: how many come before the first image.
    """
    return Trouble(
        outcome=problem.outcome,
        group=one_line(problem.group, GROUP_CHARS),
        name=one_line(problem.name, NAME_CHARS),
        reason=one_line(problem.reason),
        places=tuple(
            (
                names[place.image],
                image_id(place.image - before)
                if place.check is None
                else shown[place.image][place.check].id,
            )
            for place in problem.places
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """An artifact in the table of sizes; `kind`: more, less or ""."""

    name: str
    now: str
    last: str
    change: str
    kind: str


def size_row(size: Size) -> SizeRow:
    """One artifact now and then."""
    share = growth(size)
    kind = ""
    if share is not None and abs(share) >= NOTABLE_GROWTH:
        kind = "more" if share > 0 else "less"
    return SizeRow(
        name=one_line(size.name),
        now=in_bytes(size.now_bytes) if size.now_bytes is not None else NOTHING,
        last=in_bytes(size.last_bytes) if size.last_bytes is not None else NOTHING,
        change=change(size),
        kind=kind,
    )


def source(video: Video) -> str:
    """Where the page takes a video from: itself, or a file beside it."""
    if video.content:
        return f"data:video/webm;base64,{base64.b64encode(video.content).decode()}"
    return safe(video.href)
