"""What is kept: the results of stages with what each was made from, and everything else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.digest import files_under
from tasks.core.stage import Site
from tasks.core.store import RECORD, Result, Store

# Below this a file in the cache's own folder is a memory of ours, not worth a line.
WORTH_A_LINE_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One thing that is kept, and could be had again.

    Args:
        name: what it is, for people.
        path: the file or folder that goes if it goes.
        made, used: seconds since the epoch, when it came to be and when it was last good for
            something.
        size_bytes: what it takes on the disk.
        stands_on: the items that it was made from, and may need.
    """

    name: str
    path: Path
    made: float
    used: float
    size_bytes: int
    result: Result | None = None
    stands_on: list[Item] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The fingerprint, if it is the result of a stage."""
        return str(self.result.record["key"]) if self.result else ""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that is kept.

    Args:
        results: of stages, by name, the one that was used last first.
        others: downloads, damaged results and the like, which no result needs.
        rest: name to size in bytes of what is neither: logs, work folders, and whatever else lies
            in the state folder.
    """

    results: list[Item]
    others: list[Item]
    rest: Mapping[str, int]

    @property
    def items(self) -> list[Item]:
        """What can be collected."""
        return [*self.results, *self.others]

    @property
    def size_bytes(self) -> int:
        """What all of it takes on the disk."""
        return sum(item.size_bytes for item in self.items) + sum(self.rest.values())

    def users_of(self, item: Item) -> list[Item]:
        """The results that were made from one."""
        return [other for other in self.results if item in other.stands_on]


def look(site: Site, store: Store) -> Contents:
    """Look at everything below the state folder; nothing is changed."""
    found, without_record = [], []
    for stage, key, lookup in store.everything():
        if lookup.result:
            found.append(of_result(lookup.result))
        else:
            without_record.append(store.results / stage / key)
    results = sorted(found, key=lambda item: (item.name, -item.used))
    for item in results:
        item.stands_on.extend(ground(item, results))
    loose = [*without_record, *sorted(store.damaged.glob("*"))]
    others = [*others_in(site), *(other_item(path, store.state) for path in loose)]
    return Contents(results=results, others=others, rest=rest_in(site, store))


def rest_in(site: Site, store: Store) -> dict[str, int]:
    """What lies in the state folder beside what has items, by name, in bytes on the disk."""
    paths = {store.logs, store.work, *store.state.glob("*")}
    paths -= {store.results, store.damaged, site.cache}
    return {path.name: size_of(path) for path in sorted(paths)}


def of_result(result: Result) -> Item:
    """A result as an item. A record is touched whenever a run finds the result fresh."""
    return Item(
        name=str(result.record["stage"]),
        path=result.directory,
        made=result.finished,
        used=(result.directory / RECORD).stat().st_mtime,
        size_bytes=size_of(result.directory),
        result=result,
    )


def ground(item: Item, results: list[Item]) -> Iterator[Item]:
    """The results that one was made from, as far as they are still there.

    A record names them by stage and fingerprint; an older one has only the digests of contents,
    and nothing of what a live stage stood on.
    """
    assert item.result is not None
    record = item.result.record
    if "stands_on" in record:
        named = {(entry["stage"], entry["key"]) for entry in record["stands_on"]}
        yield from (other for other in results if (other.name, other.key) in named)
        return
    for other in results:
        content = record["inputs"].get(f"stage {other.name}")
        if content and other.result and other.result.digest == content:
            yield other


def others_in(site: Site) -> Iterator[Item]:
    """What lies in the cache's folders, and big files beside them."""
    for path in sorted(site.cache.glob("*")):
        if path.is_dir():
            yield from (other_item(inner, site.state) for inner in sorted(path.iterdir()))
        elif path.stat().st_size >= WORTH_A_LINE_BYTES:
            yield other_item(path, site.state)


def other_item(path: Path, state: Path) -> Item:
    """A file or folder that is no result as an item."""
    times = [0.0]
    for file in files_under([path]):
        with contextlib.suppress(OSError):
            stat = file.lstat()
            # Many systems note only the first reading in a day: relatime, see mount(8).
            times += [stat.st_mtime, stat.st_atime]
    made = path.lstat().st_mtime
    return Item(
        name=str(path.relative_to(state)),
        path=path,
        made=made,
        used=max(made, *times),
        size_bytes=size_of(path),
    )


def size_of(path: Path) -> int:
    """What a file, or all below a folder, takes on the disk: holes take nothing."""
    total = 0
    for file in files_under([path]):
        with contextlib.suppress(OSError):
            total += os.lstat(file).st_blocks * 512
    return total


def described(contents: Contents, now: float) -> dict[str, Any]:
    """All of it as JSON-able data; ages in seconds."""
    return {
        "schema": 1,
        "total_bytes": contents.size_bytes,
        "results": [
            {
                **plain(item, now),
                "stage": item.name,
                "fingerprint": item.key,
                "stands_on": [{"stage": one.name, "key": one.key} for one in item.stands_on],
                "used_by": [{"stage": one.name, "key": one.key} for one in contents.users_of(item)],
            }
            for item in contents.results
        ],
        "others": [{**plain(item, now), "name": item.name} for item in contents.others],
        "rest": dict(contents.rest),
    }


def plain(item: Item, now: float) -> dict[str, Any]:
    """What every item has."""
    return {
        "path": str(item.path),
        "size_bytes": item.size_bytes,
        "age_s": round(now - item.made, 1),
        "unused_s": round(now - item.used, 1),
    }
