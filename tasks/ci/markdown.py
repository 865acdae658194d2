"""The summary of a run as Markdown, for GITHUB_STEP_SUMMARY and for merge requests.

GitHub takes 1 MiB per step and drops the whole summary if it is larger, so it is cut before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tasks.artifacts.checks import Check, Validation
from tasks.ci.data import ReportData, Size
from tasks.ci.figures import OUTCOMES, change, count_all, notable, ssh_after, verdict
from tasks.ci.problems import WHOLE, Problem, labels, ordered_groups, problems, worst
from tasks.ci.text import cut, one_line, readable, size_of
from tasks.core.display import in_bytes, in_seconds

MOST_BYTES = 1_000_000
CUT_NOTE = "\n_The rest is left out: a summary may have 1 MiB. The HTML report has all of it._\n"
SYMBOLS = {"passed": "✅", "failed": "❌", "error": "⚠️", "skipped": "⚪", None: " "}
# One output must not take the room of all others.
OUTPUT_BYTES = 6_000
CELL_CHARS = 300
# Everything that Markdown or HTML reads as more than itself.
SPECIAL = re.compile(r"[^\w\s.,;/%=…·+\N{MINUS SIGN}-]|_")


class Page:
    """Collects blocks of text until the next would make it longer than it may be."""

    def __init__(self, limit: int) -> None:
        self._parts: list[str] = []
        self._room = limit - size_of(CUT_NOTE)
        self._full = False

    def add(self, block: str) -> bool:
        """Append a block that can stand without what follows; False if it has no room."""
        size = size_of(block) + 1
        self._full = self._full or size > self._room
        if not self._full:
            self._parts.append(block)
            self._room -= size
        return not self._full

    def text(self) -> str:
        """All that found room, and a note if something did not."""
        return "\n".join(self._parts) + "\n" + (CUT_NOTE if self._full else "")


def append_summary(data: ReportData, env: Mapping[str, str] = os.environ) -> bool:
    """Append the summary to the file that GitHub names; False outside GitHub.

    What the step has already written counts, too: the limit is for all of it.

    Raises:
        OSError: the file can't be written.
    """
    name = env.get("GITHUB_STEP_SUMMARY", "")
    if not name:
        return False
    path = Path(name)
    taken = path.stat().st_size if path.exists() else 0
    with path.open("a", encoding="utf-8") as stream:
        stream.write(summary(data, MOST_BYTES - taken))
    return True


def summary(data: ReportData, limit: int = MOST_BYTES) -> str:
    """The summary, at most `limit` bytes in UTF-8, worst things first.

    It is empty if not even a note fits.
    """
    if limit < size_of(CUT_NOTE) + 1:
        return ""
    page = Page(limit)
    for block in blocks(data):
        if not page.add(block):
            break
    return page.text()


def blocks(data: ReportData) -> Iterator[str]:
    """All that there is to say, piece by piece."""
    names = labels(data.judged)
    yield headline(data)
    yield from image_table(data, names)
    yield from group_table(data, names)
    yield from around_table(data.around)
    found = problems(data.everything)
    if found:
        yield "\n### What failed\n"
    named = labels(data.everything)
    for problem in found:
        yield details(problem, data.everything, named)
    yield from size_table(data.sizes)


def headline(data: ReportData) -> str:
    """Title, verdict and where it was."""
    counts = count_all(data.judged)
    mark = SYMBOLS["passed" if data.passed else "failed"]
    known = {"commit": data.commit[:12], "build": data.build, **dict(data.host)}
    facts = " · ".join(f"{plain(name)} {plain(value)}" for name, value in known.items() if value)
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    took = in_seconds(data.seconds)
    lines = (
        f"## {plain(data.title)}",
        f"{mark} **{verdict(data)}**, checks: {said}, in {took}",
        facts,
    )
    return "\n\n".join(filter(None, lines)) + "\n"


def image_table(data: ReportData, names: Sequence[str]) -> Iterator[str]:
    """One line per image."""
    if not data.judged:
        return
    sizes = {size.name: size for size in data.sizes}
    yield (
        "| | image | passed | failed | error | skipped | SSH after | took | size |\n"
        "|:-:|:--|--:|--:|--:|--:|--:|--:|--:|"
    )
    for validation, name in zip(data.judged, names, strict=True):
        kind = (validation.image, validation.accel, validation.firmware)
        size = in_bytes(validation.size_bytes) if validation.size_bytes else ""
        cells = (
            SYMBOLS["passed" if validation.passed else "failed"],
            f"{plain(name)}<br><sub>{' · '.join(map(plain, filter(None, kind)))}</sub>",
            *(str(validation.count(outcome)) for outcome in OUTCOMES),
            ssh_after(validation),
            in_seconds(validation.seconds) if validation.seconds else "",
            f"{size} {notable(sizes.get(validation.image))}".rstrip(),
        )
        yield row(cells)


def group_table(data: ReportData, names: Sequence[str]) -> Iterator[str]:
    """Groups of checks against images; each cell the worst outcome."""
    groups = ordered_groups(data.judged)
    if not groups:
        return
    yield f"\n{row(('', *map(plain, groups)))}\n{row((':--', *(':-:' for _ in groups)))}"
    for validation, name in zip(data.judged, names, strict=True):
        cells = (
            SYMBOLS[worst(check.outcome for check in validation.checks if check.group == group)]
            for group in groups
        )
        yield row((plain(name), *cells))


def around_table(around: Sequence[Check]) -> Iterator[str]:
    """What was checked beside the images."""
    if not around:
        return
    yield "\n### Around the images\n\n| | group | check | |\n|:-:|:--|:--|:--|"
    for check in around:
        said = check.reason or check.output.partition("\n")[0]
        yield row((SYMBOLS[check.outcome], plain(check.group), plain(check.name), plain(said)))


def row(cells: Iterable[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def details(problem: Problem, validations: Sequence[Validation], names: Sequence[str]) -> str:
    """One problem, folded, with the story of the first image that has it."""
    images = ", ".join(names[place.image] for place in problem.places)
    first = problem.places[0]
    validation = validations[first.image]
    title = f"{problem.group}: {problem.name}" if problem.group != WHOLE else problem.name
    line = (
        f"<details><summary>{SYMBOLS[problem.outcome]} <b>{plain(title)}</b>: {plain(images)}"
        f"<br>{plain(problem.reason)}</summary>"
    )
    lines = [line, ""]
    if first.check is None:
        lines.append(fenced("\n".join(validation.console)))
    else:
        lines += story(validation.checks[first.check])
    return "\n".join([*lines, "", "</details>", ""])


def story(check: Check) -> list[str]:
    """What was run, what would have been right, and what came out."""
    return [
        f"Expected: {plain(check.expected)}",
        "",
        fenced("\n".join(filter(None, (f"$ {check.command}", check.output)))),
    ]


def size_table(sizes: Sequence[Size]) -> Iterator[str]:
    """The artifacts against the last run; nothing if there are none."""
    if not sizes:
        return
    yield "\n### Sizes\n\n| file | now | last | change |\n|:--|--:|--:|--:|"
    for size in sizes:
        cells = (
            plain(size.name),
            in_bytes(size.now_bytes) if size.now_bytes is not None else "gone",
            in_bytes(size.last_bytes) if size.last_bytes is not None else "",
            change(size),
        )
        yield row(cells)


def plain(text: str) -> str:
    """`text` on one line, as it is: neither Markdown nor HTML finds anything in it to act on."""
    return SPECIAL.sub(lambda match: f"&#{ord(match[0])};", one_line(text, CELL_CHARS))


def fenced(text: str) -> str:
    """`text` as a code block; its fence is longer than any within it."""
    body = cut(readable(text), OUTPUT_BYTES)
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{body}\n{fence}"
