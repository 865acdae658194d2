"""Whether the results are what their records say, read anew from the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks.core.digest import sha256_of
from tasks.core.store import Result, Store


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A result that can't be used.

    Args:
        what: what is wrong with it, in words.
    """

    stage: str
    key: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of reading everything.

    Args:
        sound: how many results are as they were made.
        size_bytes: what was read of those.
    """

    sound: int
    size_bytes: int
    damages: tuple[Damage, ...]

    def to_json(self, moved: Mapping[Damage, Path]) -> dict[str, Any]:
        """As JSON-able data."""
        damages = [{**asdict(one), "moved_to": str(moved[one])} for one in self.damages]
        return {
            "schema": 1,
            "sound": self.sound,
            "size_bytes": self.size_bytes,
            "damaged": damages,
        }


def verify(store: Store) -> Report:
    """Read every file of every result.

    What is remembered of digests is not asked: it believes a file's times, and a disk that fails
    changes none.
    """
    sound = size_bytes = 0
    damages = []
    everything = list(store.everything())
    last = last_published(lookup.result for _, _, lookup in everything if lookup.result)
    for stage, key, lookup in everything:
        what = lookup.damage
        if lookup.result:
            what = store.damage(with_what_is_left(lookup.result, last), sha256_of)
        elif not what:
            what = "it has no record"
        if what:
            damages.append(Damage(stage=stage, key=key, what=what))
        elif lookup.result:
            sound += 1
            size_bytes += sum(out["size_bytes"] for out in lookup.result.outputs.values())
    return Report(sound=sound, size_bytes=size_bytes, damages=tuple(damages))


def last_published(results: Iterable[Result]) -> dict[Path, float]:
    """When each file was last put before the user, in seconds since the epoch."""
    last: dict[Path, float] = {}
    for result in results:
        for publication in result.published:
            last[publication.path] = max(last.get(publication.path, 0), result.finished)
    return last


def with_what_is_left(result: Result, last: Mapping[Path, float]) -> Result:
    """A result with those of its published files that the user and later results have left."""
    left = [
        entry
        for entry in result.record["published"]
        if Path(entry["path"]).exists() and last[Path(entry["path"])] == result.finished
    ]
    return replace(result, record={**result.record, "published": left})


def set_aside(store: Store, damages: Iterable[Damage]) -> dict[Damage, Path]:
    """Move damaged results away; returns where each is now.

    Raises:
        Busy: a run uses the store, and may stand on one of them.
    """
    todo = list(damages)
    if not todo:
        return {}
    with store.alone():
        return {damage: store.set_aside(damage.stage, damage.key) for damage in todo}
