"""Whether all that is kept is what it was when it was made or fetched, read anew from the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks.cache import loose
from tasks.core.digest import files_under, sha256_of
from tasks.core.stage import Site
from tasks.core.store import RECORD, Result, Store


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A result or file that can't be used.

    Args:
        stage: of the result; or the path of the file, in the state folder.
        key: the result's; "": it is a file.
        what: what is wrong with it, in words.
    """

    stage: str
    key: str
    what: str

    @property
    def name(self) -> str:
        """Which one it is."""
        return f"{self.stage} {self.key}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of reading everything.

    Args:
        sound: how many results are as they were made.
        sound_files: how many other files are: downloads, archives of the compile cache.
        size_bytes: what was read of those, the holes in files included.
        untold: files of which nothing is recorded to tell by.
    """

    sound: int
    sound_files: int
    size_bytes: int
    damages: tuple[Damage, ...]
    untold: tuple[str, ...]

    def to_json(self, moved: Mapping[Damage, Path]) -> dict[str, Any]:
        """As JSON-able data."""
        damages = [{**asdict(one), "moved_to": str(moved[one])} for one in self.damages]
        return {
            "schema": 1,
            "sound": self.sound,
            "sound_files": self.sound_files,
            "size_bytes": self.size_bytes,
            "damaged": damages,
            "untold": list(self.untold),
        }


def verify(store: Store, site: Site) -> Report:
    """Read every file of every result, and those of the caches.

    What is remembered of digests is not believed: it goes by a file's times, and a disk that fails
    changes none.
    """
    sound = sound_files = size_bytes = 0
    damages: list[Damage] = []
    untold: list[str] = []
    everything = list(store.everything())
    last = last_published(lookup.result for _, _, lookup in everything if lookup.result)
    for stage, key, lookup in everything:
        if what := lookup.damage or damage_of(lookup.result, store, last):
            damages.append(Damage(stage=stage, key=key, what=what))
        elif lookup.result:
            sound += 1
            size_bytes += sum(out["size_bytes"] for out in lookup.result.outputs.values())
    for path in loose.files_in(site):
        name = str(path.relative_to(site.state))
        try:
            told, read_bytes = loose.damage_of(path, site, store.digests), path.stat().st_size
        except FileNotFoundError:
            continue  # a run has finished with it, or replaced it
        if told is None:
            untold.append(name)
        elif told:
            damages.append(Damage(stage=name, key="", what=told))
        else:
            sound_files += 1
            size_bytes += read_bytes
    return Report(
        sound=sound,
        sound_files=sound_files,
        size_bytes=size_bytes,
        damages=tuple(damages),
        untold=tuple(untold),
    )


def damage_of(result: Result | None, store: Store, last: Mapping[Path, float]) -> str:
    """What is wrong with a result; "" if nothing is."""
    if result is None:
        return "it has no record"
    if what := store.damage(with_what_is_left(result, last), sha256_of):
        return what
    # No run looks for those: it uses what the record names. But they are nothing that was made.
    there = {str(path.relative_to(result.directory)) for path in files_under([result.directory])}
    added = sorted(there - {RECORD, *result.outputs})
    return f"{added[0]} was added" if added else ""


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
    """Move what is damaged away; returns where each is now.

    Raises:
        Busy: a run uses the store, and may stand on one of them.
    """
    todo = list(damages)
    if not todo:
        return {}
    with store.alone():
        return {
            damage: store.set_aside(damage.stage, damage.key)
            if damage.key
            else loose.set_aside(store.state / damage.stage, store)
            for damage in todo
        }
