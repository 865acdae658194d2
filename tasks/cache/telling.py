"""The contents of the cache as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from tasks.cache.contents import Contents, Item
from tasks.cache.verifying import Report
from tasks.core.display import in_bytes
from tasks.core.explain import SHORT_DIGEST

AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def lines(contents: Contents, now: float) -> Iterator[str]:
    """The results of each stage, what else is kept, and the totals."""
    for stage, group in groupby(contents.results, key=lambda item: item.name):
        items = list(group)
        count = f"{len(items)} result{'s' * (len(items) > 1)}"
        yield f"{stage}  {count}, {in_bytes(sum(item.size_bytes for item in items))}"
        for item in items:
            users = sorted({user.name for user in contents.users_of(item)})
            needed = f"  for {', '.join(users)}" if users else ""
            yield f"  {item.key[:SHORT_DIGEST]}  {dated(item, now)}{needed}"
    if contents.others:
        size = in_bytes(sum(item.size_bytes for item in contents.others))
        yield f"downloads and other caches  {size}"
        yield from (f"  {item.name}  {dated(item, now)}" for item in contents.others)
    yield from (f"{name}  {in_bytes(size)}" for name, size in contents.rest.items() if size)
    yield f"total  {in_bytes(contents.size_bytes)} on the disk"


def dated(item: Item, now: float) -> str:
    """Size and ages of an item."""
    made, used = in_age(now - item.made), in_age(now - item.used)
    return f"{in_bytes(item.size_bytes):>9}  made {made} ago, used {used} ago"


def in_age(seconds: float) -> str:
    """`3 h`: the largest unit that fits."""
    for unit_s, unit in AGES:
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return "0 s"


def short(item: Item) -> str:
    """An item in a few words."""
    return f"{item.name} {item.key[:SHORT_DIGEST]}".rstrip()


def verdict(report: Report) -> Iterator[str]:
    """What was found sound, and what there was nothing to tell by."""
    files = f"{report.sound_files} other file{'s' * (report.sound_files != 1)}"
    # More than `cache.show` has for them: holes are read, and take nothing on the disk.
    yield (
        f"{report.sound} results and {files} are sound, {in_bytes(report.size_bytes)} with the "
        "holes in them"
    )
    yield from (f"{name}  can't be told: no digest is recorded" for name in report.untold)
