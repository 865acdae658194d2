"""Has the images validated, and reads the records that the validator leaves.

One record per image, accelerator and firmware, in OUTPUT/validation; see tasks/artifacts/checks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.artifacts.checks import Validation, read
from tasks.ci.building import Image
from tasks.ci.rooms import Rooms
from tasks.core.errors import ValidationFailed

FOLDER = "validation"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A validation and the file it was read from; None: there is no such file."""

    validation: Validation
    path: Path | None


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What the validator left.

    Args:
        trouble: why it could not do its work; "" if it did, whatever it found.
    """

    records: tuple[Record, ...] = ()
    trouble: str = ""


def validate(
    rooms: Rooms,
    images: Sequence[Image],
    output: Path,
    flags: Sequence[str],
    say: Callable[[str], None],
) -> Validated:
    """Validate images; each has at least one record afterwards, if only of why it has none."""
    if not images:
        return Validated()
    say("validating the images")
    since = datetime.now(UTC)
    # A record tells in which second it began: too little to know it from the last run's.
    before = signs_in(output / FOLDER)
    words = ("validate.image", *(str(image.disk) for image in images), *flags)
    timeout = ("--timeout", str(rooms.limit_s))
    ended = rooms.run("validate", (*words, *timeout), lambda line: say(line) if line else None)
    now = signs_in(output / FOLDER)
    found = [
        record
        for record in records_in(output / FOLDER)
        if record.path and now.get(record.path) != before.get(record.path)
    ]
    # If a check failed, the validator did its work.
    reason = "" if ended.status in (0, ValidationFailed.exit_code) else ended.reason
    records = [
        record
        for image in images
        for record in current(image, found) or [missing(image, since, reason)]
    ]
    return Validated(records=tuple(records), trouble=reason)


def current(image: Image, records: Iterable[Record]) -> list[Record]:
    """The records of just this image: same name, same digest."""
    return [
        record
        for record in records
        if record.validation.image == image.disk.name and record.validation.sha256 == image.sha256
    ]


def signs_in(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What changes when a record is written again: its file is another one then."""
    stats = {path: path.stat() for path in folder.glob("*.json")}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def missing(image: Image, since: datetime, reason: str) -> Record:
    """What stands for the record of an image that was not validated."""
    why = f"The validator left no record of it. {reason}".rstrip()
    return Record(path=None, validation=unknown(image, since, why))


def unknown(image: Image, started: datetime, error: str) -> Validation:
    """The validation of an image about which nothing could be found out."""
    return Validation(
        image=image.disk.name,
        sha256=image.sha256,
        size_bytes=image.disk.stat().st_size,
        variant=str(image.document.get("variant", "")),
        version=str(image.document.get("version", "")),
        accel="",
        firmware="",
        started=started.isoformat(),
        seconds=0.0,
        error=error,
    )


def records_in(folder: Path) -> list[Record]:
    """The records in a folder, by name; what is no record counts as if it weren't there."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Record(path=path, validation=read(path)))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return found
