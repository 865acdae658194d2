"""What an image's stages were and how long they took, from the store's records."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.ci.building import Attempt, Image
from tasks.ci.data import Stage, Timeline
from tasks.ci.gather import href, moment, stage_of
from tasks.core.store import Store

LOGS = "logs"


def timeline(
    attempt: Attempt, store: Store, started: datetime, page: Path, *, copy_logs: bool
) -> Timeline:
    """The stages of a variant that was built, or the one that kept it from being built."""
    stages: tuple[Stage, ...] = ()
    name = attempt.name
    if attempt.image:
        name = attempt.image.disk.name
        stages = stages_of(attempt.image, store, started, page, copy_logs=copy_logs)
    else:
        stages = (failed_stage(attempt, started),)
    return Timeline(image=name, stages=stages)


def failed_stage(attempt: Attempt, started: datetime) -> Stage:
    """The stage at which a build ended."""
    begun_s = (moment(attempt.started) - started).total_seconds()
    return Stage(
        name=attempt.stage or "vexfs.image",
        state="failed",
        start_s=max(begun_s + attempt.seconds - attempt.stage_seconds, 0.0),
        seconds=attempt.stage_seconds,
        reason=attempt.reason,
    )


def stages_of(
    image: Image, store: Store, started: datetime, page: Path, *, copy_logs: bool
) -> tuple[Stage, ...]:
    """The stages that the manifest names, in the order in which they were finished.

    Args:
        page: the report that links to their logs.
        copy_logs: put a copy of each log beside the page, instead of linking to the store's.
    """
    found = []
    for record in sorted(records_of(image, store), key=lambda each: str(each["finished"])):
        log = log_of(record, store)
        link = ""
        if log:
            if copy_logs:
                log = copied(log, page.parent / LOGS / image.name / log.name)
            link = href(log, page)
        found.append(stage_of(record, started, link))
    return tuple(found)


def records_of(image: Image, store: Store) -> Iterator[dict[str, Any]]:
    """The records of the stages in a manifest; one that the store has no longer is left out."""
    room = str(image.document.get("name", ""))
    for name, stage in image.document.get("stages", {}).items():
        records: Iterable[dict[str, Any]] = store.records(f"{room}.{name}")
        yield from [each for each in records if each.get("key") == stage.get("fingerprint")]


def log_of(record: dict[str, Any], store: Store) -> Path | None:
    """The log of the run that made a result, if it is still there."""
    name = str(record.get("log", ""))
    path = store.state / name
    return path if name and path.is_file() else None


def copied(source: Path, target: Path) -> Path:
    """A copy of a log."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
