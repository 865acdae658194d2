"""Which items go: the least recently used first, and never what one that stays stands on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.cache.contents import Contents, Item
from tasks.core.store import Store


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How much may stay.

    Args:
        size_bytes: all that is kept together; None: any.
        unused_s: what was of no use for longer goes; None: nothing goes for its age.
    """

    size_bytes: int | None
    unused_s: float | None


def choose(contents: Contents, limit: Limit, now: float) -> Iterator[Item]:
    """The items that go, in the order in which they may be removed.

    A result goes after all that were made from it: a disk may be the backing file of another.
    """
    left = contents.size_bytes
    staying = {item: len(contents.users_of(item)) for item in contents.items}
    while staying:
        free = [item for item, users in staying.items() if not users]
        oldest = min(free, key=lambda item: item.used)
        too_old = limit.unused_s is not None and now - oldest.used > limit.unused_s
        too_much = limit.size_bytes is not None and left > limit.size_bytes
        if not too_old and not too_much:
            return
        del staying[oldest]
        for parent in oldest.stands_on:
            staying[parent] -= 1
        left -= oldest.size_bytes
        yield oldest


def remove(item: Item, store: Store) -> None:
    """Take an item away."""
    if item.result:
        store.take_away(item.name, item.key)
    elif item.path.is_dir() and not item.path.is_symlink():
        shutil.rmtree(item.path)
    else:
        item.path.unlink()
