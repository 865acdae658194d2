"""A file on its way in: `NAME.part`, owned by one process, hashed as it grows, resumable."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.display import in_bytes
from tasks.core.errors import NoRoom

READ_BYTES = 1 << 20
# No space, over quota, over the limit for one file (setrlimit(2)): write(2) has three ways to
# say that there is no room.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the bytes of a partial file came from; what a later try needs to go on.

    Args:
        source: the digest of the URL, which itself may hold a secret.
        validator: a strong ETag or Last-Modified, or "" if the server gave none.
        total_bytes: the size of the whole file, if the server said it.
    """

    source: str
    validator: str
    total_bytes: int | None


class Partial:
    """The open, locked `.part` file; made by `locked_partial`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size_bytes = 0
        # True once the bytes come from more than one answer.
        self.resumed = False
        self._hash = hashlib.sha256()
        self._take_over()

    @property
    def sha256(self) -> str:
        """The digest of all bytes that are in the file now."""
        return self._hash.hexdigest()

    @property
    def origin(self) -> Origin | None:
        """What was remembered of the source; None if nothing that makes sense is there."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Origin(**json.loads(self._origin_path.read_bytes()))
        return None

    def remember(self, origin: Origin) -> None:
        """Keep what a later try, of this process or another, needs to go on."""
        with naming_no_room(self.path, None):
            self._origin_path.write_text(json.dumps(asdict(origin)))

    def append(self, data: bytes, total_bytes: int | None) -> None:
        """Add bytes at the end.

        Raises:
            NoRoom: the disk is full; what fitted stays, to go on from.
        """
        rest = memoryview(data)
        while rest:
            missing_bytes = None if total_bytes is None else total_bytes - self.size_bytes
            with naming_no_room(self.path, missing_bytes):
                # write(2) may take less than it was given, just before a disk is full.
                count = os.write(self.fd, rest)
            self._hash.update(rest[:count])
            self.size_bytes += count
            rest = rest[count:]

    def restart(self) -> None:
        """Throw the bytes away and begin at zero."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._origin_path.unlink(missing_ok=True)
        self.size_bytes = 0
        self.resumed = False
        self._hash = hashlib.sha256()

    def commit(self, target: Path) -> None:
        """Give the finished file its name, atomically and durably."""
        with naming_no_room(self.path, None):
            os.fsync(self.fd)
        self.path.replace(target)
        self._origin_path.unlink(missing_ok=True)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove the file: nobody shall go on from it."""
        self._origin_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    @property
    def _origin_path(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def _take_over(self) -> None:
        while chunk := os.read(self.fd, READ_BYTES):
            self._hash.update(chunk)
            self.size_bytes += len(chunk)
        self.resumed = self.size_bytes > 0


@contextlib.contextmanager
def locked_partial(path: Path, on_wait: Callable[[], None]) -> Iterator[Partial]:
    """Own the partial file at `path` for the length of the block, waiting for who owns it now.

    The lock (flock(2)) is on the file itself and ends with its process, however that ends. A
    file that another process finished, and so renamed, meanwhile is not the one to own.

    Args:
        on_wait: called once if another process has it.
    """
    while True:
        with naming_no_room(path, None):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(fd, path):
                yield Partial(path, fd)
                return
        finally:
            os.close(fd)


def is_at(fd: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


def require_room(directory: Path, needed_bytes: int, name: str) -> None:
    """Check that `needed_bytes` more fit into `directory`.

    Raises:
        NoRoom: they don't.
    """
    free_bytes = shutil.disk_usage(directory).free
    if needed_bytes > free_bytes:
        raise NoRoom(
            f"{name} needs {in_bytes(needed_bytes)} in {directory}, where {in_bytes(free_bytes)} "
            f"are free: {in_bytes(needed_bytes - free_bytes)} are missing.",
            hint="Make room there, or choose another directory.",
        )


@contextlib.contextmanager
def naming_no_room(path: Path, missing_bytes: int | None) -> Iterator[None]:
    """Turn the kernel's ways of saying "no room" into NoRoom.

    Args:
        missing_bytes: how much was still to be written, if known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        amount = "more room" if missing_bytes is None else f"{in_bytes(missing_bytes)} more"
        raise NoRoom(
            f"There is no room left for {path} ({error.strerror}); it needs {amount}.",
            hint="Make room and run the same again: it goes on where it stopped.",
        ) from error
