"""The cache tasks: look at what is kept, make it smaller, check it."""

from __future__ import annotations

import json as jsonlib
import time
from typing import Any

from invoke.collection import Collection
from invoke.tasks import task

from tasks.cache import amounts, collecting, contents, telling, verifying
from tasks.core import executor, store
from tasks.core.display import in_bytes, shown
from tasks.core.errors import BadInput, VerificationFailed


@task(help={"json": "Print JSON"})
def show(context: Any, json: bool = False) -> None:
    """Say what is kept, how big, how old, and what needs what."""
    site = executor.site_of(context.config)
    found, now = contents.look(site, store.Store(site.state)), time.time()
    if json:
        print(jsonlib.dumps(contents.described(found, now), indent=1))
    else:
        print("\n".join(telling.lines(found, now)))


@task(
    help={
        "size": "Remove the least recently used until all takes no more: 20G",
        "days": "Remove what was of no use for so many days",
        "dry_run": "Only say what would go",
    }
)
def gc(context: Any, size: str = "", days: str = "", dry_run: bool = False) -> None:
    """Remove what was not used for longest."""
    if not size and not days:
        raise BadInput("Nothing says how much may stay.", hint="inv cache.gc --size 20G")
    limit = collecting.Limit(
        size_bytes=amounts.size_bytes(size) if size else None,
        unused_s=amounts.seconds(days) if days else None,
    )
    site = executor.site_of(context.config)
    kept = store.Store(site.state)
    with kept.alone():
        freed = 0
        if not dry_run:
            freed = contents.size_of(kept.work)
            for folder in kept.sweep():
                print(f"{folder.name}  left by a killed run")
            freed -= contents.size_of(kept.work)
        found, now = contents.look(site, kept), time.time()
        left = found.size_bytes
        for item in collecting.choose(found, limit, now):
            if not dry_run:
                collecting.remove(item, kept)
            freed += item.size_bytes
            left -= item.size_bytes
            print(f"{telling.short(item)}  {telling.dated(item, now)}")
    print(f"{in_bytes(freed)} {'would be ' if dry_run else ''}freed, {in_bytes(left)} left")


@task(help={"json": "Print JSON"})
def verify(context: Any, json: bool = False) -> None:
    """Read all that is kept and compare it with its digests."""
    site = executor.site_of(context.config)
    kept = store.Store(site.state)
    with kept.in_use():
        report = verifying.verify(kept, site)
    moved = verifying.set_aside(kept, report.damages)
    if json:
        print(jsonlib.dumps(report.to_json(moved), indent=1))
    else:
        print("\n".join(telling.verdict(report)))
    if report.damages:
        raise VerificationFailed(
            "\n".join(
                f"{damage.name}: {damage.what}; moved to {shown(moved[damage])}."
                for damage in report.damages
            ),
            hint="The next run that needs them makes them again.",
        )


namespace = Collection(show, gc, verify)
