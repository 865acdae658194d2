"""How much disk and memory there is, against what a build takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.core.capacity import memory_of_host
from tasks.host.finding import Finding, broken, fine, warning

GIB = 1 << 30


def disk_rooms(wanted: Mapping[str, tuple[Path, int]]) -> Iterator[Finding]:
    """One finding per file system.

    Args:
        wanted: name to folder, which need not exist, and the bytes it must take.
    """
    by_device: dict[int, list[str]] = {}
    for name, (folder, _) in wanted.items():
        by_device.setdefault(existing(folder).stat().st_dev, []).append(name)
    for names in by_device.values():
        ground = existing(wanted[names[0]][0])
        needed = sum(wanted[name][1] for name in names)
        free = shutil.disk_usage(ground).free
        title = f"disk ({' and '.join(names)})"
        locked = [name for name in names if not os.access(existing(wanted[name][0]), os.W_OK)]
        if locked:
            folder = existing(wanted[locked[0]][0])
            yield broken(f"{folder} is not writable", f"sudo chown $USER {folder}", name=title)
        elif free < needed:
            yield broken(
                f"{gib(free)} free under {ground}, {gib(needed)} needed",
                "Free some room (inv cache.gc removes old results), or put the folders elsewhere.",
                name=title,
            )
        else:
            yield fine(f"{gib(free)} free under {ground}", name=title)


def memory_room(root: Path, needed: int) -> Finding:
    """Whether the machine, and the container it may be, has `needed` bytes."""
    total, free = memory_of_host(root)
    if total < needed:
        return broken(
            f"{gib(total)} in all, {gib(needed)} needed", "Give this machine more memory."
        )
    if free < needed:
        return warning(
            f"{gib(free)} of {gib(total)} free, {gib(needed)} needed", "Close other programs."
        )
    return fine(f"{gib(free)} of {gib(total)} free")


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def gib(size_bytes: int) -> str:
    """A size in words."""
    return f"{size_bytes / GIB:.1f} GiB"
