"""The images of the report with their checks, in the words and with the ids of the page."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tasks.artifacts.checks import Outcome, Validation
from tasks.ci.data import ReportData, Size, Timeline
from tasks.ci.figures import OUTCOMES, growth, notable, ssh_after
from tasks.ci.problems import bad_checks, ordered_groups, trouble
from tasks.ci.report.pictures import Picture, boot_of_all, short, stages_of_one
from tasks.ci.report.texts import Words, consoles, words_of
from tasks.ci.text import one_line, readable
from tasks.core.display import in_bytes, in_seconds

SYMBOLS: dict[Outcome, str] = {"passed": "✓", "failed": "✕", "error": "!", "skipped": "\N{EN DASH}"}
SAID: dict[Outcome, str] = {
    "passed": "passed",
    "failed": "failed",
    "error": "could not be done",
    "skipped": "skipped",
}
GROUP_CHARS = 40
# An image that could not be validated says so in a sentence or two.
TROUBLE_CHARS = 1000
SCHEMES = ("", "http", "https")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One check as the page shows it; `next` is the id of the next bad one of all images."""

    id: str
    group: str
    outcome: Outcome
    seconds: str
    words: Words
    next: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The checks of one group in one image."""

    name: str
    said: str
    checks: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image as the page shows it."""

    id: str
    number: int
    name: str
    kind: str
    outcome: Outcome
    trouble: str
    ssh: str
    took: str
    size: str
    grown: str
    grew: bool
    record: Validation
    counts: tuple[tuple[Outcome, int], ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    boot: Picture | None
    stages: Picture | None
    logs: tuple[tuple[str, str], ...]
    console: str


def checks_of(validations: Sequence[Validation], before: int = 0) -> list[list[Shown]]:
    """All checks by validation, each bad one with a way to the next.

    Args:
        before: how many come before the first image.
    """
    bad = [
        check_id(number, position)
        for number, validation in enumerate(validations, start=-before)
        for position in bad_checks(validation)
    ]
    following = dict(itertools.pairwise(bad))
    return [
        [
            Shown(
                id=check_id(number, position),
                group=one_line(check.group, GROUP_CHARS),
                outcome=check.outcome,
                seconds=in_seconds(check.seconds),
                words=words,
                next=following.get(check_id(number, position), ""),
            )
            for position, (check, words) in enumerate(zip(validation.checks, written, strict=True))
        ]
        for number, (validation, written) in enumerate(
            zip(validations, words_of(validations), strict=True), start=-before
        )
    ]


def check_id(number: int, position: int) -> str:
    """The id of a check on the page; people count from one."""
    return f"c{number + 1}-{position + 1}"


def image_id(number: int) -> str:
    """The id of an image on the page."""
    return f"i{number + 1}"


def images_of(data: ReportData, names: Sequence[str], shown: list[list[Shown]]) -> list[Image]:
    """All validated images, in their order."""
    timelines = {item.image: item for item in data.timelines}
    sizes = {size.name: size for size in data.sizes}
    ends = consoles(data.judged)
    return [
        image_of(
            validation,
            number=number,
            name=names[number],
            checks=shown[number],
            timeline=timelines.get(validation.image),
            size=sizes.get(validation.image),
            console=ends[number],
        )
        for number, validation in enumerate(data.judged)
    ]


def image_of(
    validation: Validation,
    *,
    number: int,
    name: str,
    checks: list[Shown],
    timeline: Timeline | None,
    size: Size | None,
    console: str,
) -> Image:
    """One image with everything that is known of it."""
    whole = trouble(validation)
    kind = (validation.image, validation.accel, validation.firmware)
    outcome: Outcome = "error" if whole else "passed" if validation.passed else "failed"
    return Image(
        id=image_id(number),
        number=number + 1,
        name=name,
        kind=one_line(" · ".join(filter(None, kind))),
        outcome=outcome,
        trouble=readable(whole)[:TROUBLE_CHARS],
        ssh=ssh_after(validation),
        took=in_seconds(validation.seconds) if validation.seconds else "",
        size=in_bytes(validation.size_bytes) if validation.size_bytes else "",
        grown=notable(size),
        grew=(growth(size) or 0) > 0,
        record=validation,
        counts=tuple((outcome, validation.count(outcome)) for outcome in OUTCOMES),
        facts=tuple(image_facts(validation)),
        sections=tuple(sections_of(validation, checks)),
        boot=boot_of_all([validation], [name]),
        stages=stages_of_one(timeline) if timeline and timeline.stages else None,
        logs=tuple(
            (short(stage.name), safe(stage.log))
            for stage in (timeline.stages if timeline else ())
            if safe(stage.log)
        ),
        console=console,
    )


def image_facts(validation: Validation) -> Iterator[tuple[str, str]]:
    """What to know of an image, name and value; what is unknown is left out."""
    size = validation.size_bytes
    known = {
        "File": validation.image,
        "SHA256": validation.sha256,
        "Size": f"{in_bytes(size)} ({size:,} bytes)" if size else "",
        "Variant": validation.variant,
        "Version": validation.version,
        "Accelerator": validation.accel,
        "Firmware": validation.firmware,
        "Started": validation.started.replace("T", " ")[:19],
        "Took": in_seconds(validation.seconds) if validation.seconds else "",
    }
    for name, value in known.items():
        if value:
            yield name, one_line(value)


def sections_of(validation: Validation, checks: Sequence[Shown]) -> Iterator[Section]:
    """The checks of an image by group."""
    for group in ordered_groups([validation]):
        own = tuple(
            shown
            for check, shown in zip(validation.checks, checks, strict=True)
            if check.group == group
        )
        tally = [(sum(check.outcome == outcome for check in own), outcome) for outcome in OUTCOMES]
        said = ", ".join(f"{number} {SAID[outcome]}" for number, outcome in tally if number)
        yield Section(name=one_line(group, GROUP_CHARS), said=said, checks=own)


def safe(href: str) -> str:
    """A link as it is if it leads to a file or a web page; "" for anything that could run."""
    try:
        scheme = urlsplit(href).scheme
    except ValueError:
        return ""
    return href if scheme.lower() in SCHEMES else ""
