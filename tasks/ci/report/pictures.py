"""Which pictures the page has, and which colour stands for what in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from tasks.artifacts.checks import Validation
from tasks.ci.data import ReportData, Stage, Timeline
from tasks.ci.gather import moment
from tasks.ci.report.charts import Bar, Lane, lanes
from tasks.ci.text import one_line
from tasks.core.display import in_bytes, in_seconds

# The style sheet has so many colours that can be told apart; what is shorter shares the grey one.
COLOURS = 7
OTHER = "kx"
WORTH_A_COLOUR = 0.005
VALIDATE = "validate"
NAME_CHARS = 60
REASON_CHARS = 60


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture and what its colours mean, as pairs of class and name."""

    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


def stages_of_all(data: ReportData, names: Sequence[str]) -> Picture | None:
    """What was made when in this run, a lane per image; None if nothing was."""
    named = dict(zip((item.image for item in data.judged), names, strict=True))
    timelines = {item.image: item for item in data.timelines}
    images = list(dict.fromkeys([*timelines, *named]))
    bars: dict[str, list[tuple[str, float, float, str]]] = {
        image: [
            (short(stage.name), stage.start_s, stage.seconds, stage.state)
            for stage in timelines[image].stages
            if stage.state != "reused"
        ]
        if image in timelines
        else []
        for image in images
    }
    for validation in data.validations:
        since = began(data, validation)
        bars[validation.image].append((VALIDATE, since, validation.seconds, "made"))
    kinds = colours((name, seconds) for row in bars.values() for name, _, seconds, _ in row)
    if not kinds:
        return None
    rows = [
        Lane(
            name=named.get(image, one_line(image, NAME_CHARS)),
            note=note_of(timelines.get(image)),
            bars=tuple(
                Bar(
                    name=name,
                    start_s=start,
                    seconds=seconds,
                    kind="bad" if state == "failed" else kinds[name],
                    note="failed" if state == "failed" else "",
                )
                for name, start, seconds, state in bars[image]
            ),
        )
        for image in images
    ]
    return Picture(
        svg=lanes(rows, "When each image's stages ran"),
        legend=legend(kinds, failed=any(bar.kind == "bad" for row in rows for bar in row.bars)),
    )


def began(data: ReportData, validation: Validation) -> float:
    """Seconds from the begin of the run to that of a validation."""
    try:
        return max((moment(validation.started) - moment(data.started)).total_seconds(), 0.0)
    except ValueError:
        return 0.0


def note_of(timeline: Timeline | None) -> str:
    """How many stages of an image the run did not have to make."""
    reused = [stage for stage in timeline.stages if stage.state == "reused"] if timeline else []
    return f"{len(reused)} reused" if reused else ""


def stages_of_one(timeline: Timeline) -> Picture:
    """What an image costs: its stages one after the other, in whichever run they were made."""
    rows = []
    since = 0.0
    for stage in timeline.stages:
        kind = {"made": "k0", "reused": "reused", "failed": "bad"}[stage.state]
        name = short(stage.name)
        bar = Bar(name=name, start_s=since, seconds=stage.seconds, kind=kind, note=said(stage))
        note = " · ".join(filter(None, (in_seconds(stage.seconds), said(stage))))
        rows.append(Lane(name=name, bars=(bar,), note=note))
        since += stage.seconds
    met = {row.bars[0].kind for row in rows}
    meanings = (("k0", "made in this run"), ("reused", "reused"), ("bad", "failed"))
    return Picture(
        svg=lanes(rows, "The stages of the image", gap_px=6),
        legend=tuple(entry for entry in meanings if entry[0] in met),
    )


def said(stage: Stage) -> str:
    """What there is to say of a stage besides its time."""
    size = in_bytes(stage.size_bytes) if stage.size_bytes else ""
    state = "" if stage.state == "made" else stage.state
    return " · ".join(filter(None, (size, state, one_line(stage.reason, REASON_CHARS))))


def boot_of_all(validations: Sequence[Validation], names: Sequence[str]) -> Picture | None:
    """How far each image was when, a lane per image; None if no boot was seen."""
    rows = [
        Lane(
            name=name,
            bars=tuple(boot_bars(validation)),
            note=in_seconds(max(mark.seconds for mark in validation.boot)),
        )
        for validation, name in zip(validations, names, strict=True)
        if validation.boot
    ]
    kinds = {
        name: f"k{number}" if number < COLOURS else OTHER
        for number, name in enumerate(dict.fromkeys(bar.name for row in rows for bar in row.bars))
    }
    coloured = [
        replace(row, bars=tuple(replace(bar, kind=kinds[bar.name]) for bar in row.bars))
        for row in rows
    ]
    if not rows:
        return None
    return Picture(svg=lanes(coloured, "How long each image boots"), legend=legend(kinds))


def boot_bars(validation: Validation) -> Iterable[Bar]:
    """The boot cut at its marks, each piece named after the mark that ends it."""
    since = 0.0
    for mark in sorted(validation.boot, key=lambda mark: mark.seconds):
        name = one_line(mark.name, NAME_CHARS)
        note = f"at {in_seconds(mark.seconds)}"
        yield Bar(name=name, start_s=since, seconds=mark.seconds - since, kind="k0", note=note)
        since = mark.seconds


def colours(spent: Iterable[tuple[str, float]]) -> dict[str, str]:
    """Name to class: the names that took the most time get colours of their own.

    What nobody could see in the picture gets none, so that the legend stays short.
    """
    total: dict[str, float] = {}
    for name, seconds in spent:
        total[name] = total.get(name, 0.0) + seconds
    seen = sum(total.values()) * WORTH_A_COLOUR
    longest = sorted(total, key=lambda name: total[name], reverse=True)[:COLOURS]
    own = [name for name in total if name in longest and total[name] >= seen]
    return {name: f"k{own.index(name)}" if name in own else OTHER for name in total}


def legend(kinds: dict[str, str], *, failed: bool = False) -> tuple[tuple[str, str], ...]:
    """The colours with their meanings."""
    entries = [(kind, name) for name, kind in kinds.items() if kind != OTHER]
    if OTHER in kinds.values():
        entries.append((OTHER, "others"))
    if failed:
        entries.append(("bad", "failed"))
    return tuple(entries)


def short(stage: str) -> str:
    """A stage's name without its room."""
    return one_line(stage.rpartition(".")[2] or stage, NAME_CHARS)
