"""Turns what lies on the disk after a run (records, sizes, recordings) into report data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.ci.data import Link, Size, Stage, Video

# A page with more than this inside takes longer than a second to open.
EMBED_EACH_BYTES = 2_000_000
EMBED_ALL_BYTES = 8_000_000


def stage_of(record: Mapping[str, Any], started: datetime, log: str = "") -> Stage:
    """A stage from its record in the store.

    Args:
        started: when the run began; a record that was finished before is a reused one.
        log: relative link to a copy of its log.

    Raises:
        KeyError, ValueError, TypeError: it is no such record.
    """
    seconds = float(record["seconds"])
    finished = moment(record["finished"])
    ended_s = (finished - started).total_seconds()
    outputs = record.get("outputs", {}).values()
    return Stage(
        name=str(record["stage"]),
        state="made" if ended_s >= 0 else "reused",
        start_s=max(ended_s - seconds, 0.0),
        seconds=seconds,
        size_bytes=sum(int(output["size_bytes"]) for output in outputs),
        log=log,
    )


def moment(text: str) -> datetime:
    """A time in ISO 8601; one without a zone is UTC.

    Raises:
        ValueError: it is no such time.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def compare(now: Mapping[str, int], last: Mapping[str, int]) -> tuple[Size, ...]:
    """Sizes in bytes by file name, of this run and of the last, side by side."""
    return tuple(
        Size(name=name, now_bytes=now.get(name), last_bytes=last.get(name))
        for name in sorted({**now, **last})
    )


def videos(files: Iterable[Path], page: Path) -> tuple[Video, ...]:
    """Recordings for a report at `page`, titled by their file names.

    A small one becomes part of the page, so that the page can be sent around by itself; a large
    one is linked, relative to the page.

    Raises:
        OSError: one can't be read.
    """
    room = EMBED_ALL_BYTES
    found = []
    for file in files:
        size = file.stat().st_size
        embedded = size <= min(EMBED_EACH_BYTES, room)
        room -= size if embedded else 0
        found.append(
            Video(
                title=file.stem.replace("-", " ").replace("_", " "),
                href=href(file, page),
                content=file.read_bytes() if embedded else b"",
            )
        )
    return tuple(found)


def links(files: Iterable[Path], page: Path) -> tuple[Link, ...]:
    """Links to the artifacts of a run from a report at `page`.

    Raises:
        OSError: one isn't there.
    """
    return tuple(
        Link(title=file.name, href=href(file, page), size_bytes=file.stat().st_size)
        for file in files
    )


def href(file: Path, page: Path) -> str:
    """The relative link from `page` to `file`."""
    # "./" keeps a name with a colon from being read as a scheme.
    return f"./{quote(os.path.relpath(file, page.parent))}"
