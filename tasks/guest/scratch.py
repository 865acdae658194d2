"""A private work directory in memory where there is room, else on disk; swept if its owner died.

Bootstrapping a system is mostly small writes and syncs: in memory it takes two thirds of the
time that it takes on a disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.core.errors import NoRoom, VmbakeError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
MEMORY_SLACK_BYTES = 2 << 30
PREFIX = "vmbake-scratch-"
LOCK = "lock"


def remove_tree(path: Path) -> None:
    """Remove a directory that this user owns."""
    shutil.rmtree(path)


@contextlib.contextmanager
def scratch(
    need_bytes: int,
    fallback: Path,
    *,
    remove: Callable[[Path], None] = remove_tree,
    memory: Path = SHARED_MEMORY,
) -> Iterator[Path]:
    """A new directory with room for `need_bytes`; removed at the end of the block.

    What a killed run left is removed first: its directory holds a lock file that nobody locks.
    Others may pass through the directory but not list it: the unshared user of mmdebstrap is
    one of them.

    Args:
        fallback: a directory on disk, used when memory is short.
        remove: removes a tree; the default can't remove what an unshared user owns.

    Raises:
        NoRoom: there is too little room in both.
    """
    for place in (memory, fallback):
        sweep(place, remove)
    place = choose_place(need_bytes, fallback, memory)
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getuid()}-", dir=place))
    # Locked before it gets its name: a sweeper never sees the file unlocked while we live.
    young = path / f"{LOCK}.new"
    with young.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        young.rename(path / LOCK)
        path.chmod(0o711)
        try:
            yield path
        except BaseException:
            # The first error is the one to tell; the next run sweeps what is left.
            with contextlib.suppress(VmbakeError, OSError):
                remove(path)
            raise
        remove(path)


def choose_place(need_bytes: int, fallback: Path, memory: Path) -> Path:
    """`memory` if it has the room, and the machine the memory; else `fallback`.

    Raises:
        NoRoom: neither has.
    """
    if (
        usable(memory)
        and free_bytes(memory) >= need_bytes
        and available_memory_bytes() >= need_bytes + MEMORY_SLACK_BYTES
    ):
        return memory
    if free_bytes(fallback) >= need_bytes:
        return fallback
    raise NoRoom(
        f"{fallback} has {free_bytes(fallback) >> 20} MiB free; {need_bytes >> 20} MiB are needed.",
        hint="Free some room there, or put the output elsewhere.",
    )


def usable(memory: Path) -> bool:
    """Whether programs can be run from this memory file system (a chroot will be made in it)."""
    return (
        memory.is_dir()
        and os.access(memory, os.W_OK)
        and not (os.statvfs(memory).f_flag & os.ST_NOEXEC)
    )


def free_bytes(path: Path) -> int:
    """What an ordinary user can still write there."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def available_memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """MemAvailable of proc(5); 0 where there is no such file."""
    with contextlib.suppress(OSError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def sweep(place: Path, remove: Callable[[Path], None]) -> None:
    """Remove the scratch directories of this user whose owners are gone."""
    for path in place.glob(f"{PREFIX}{os.getuid()}-*"):
        # Without a lock file it is being made or removed at this moment.
        with contextlib.suppress(VmbakeError, OSError), (path / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
