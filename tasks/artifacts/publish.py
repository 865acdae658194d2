"""Puts finished files where users look for them, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

COPY_BYTES = 64 << 20
TOKEN_BYTES = 4
# What copy_file_range(2) says of file systems between which it can't copy.
NOT_BETWEEN_THESE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def publish(source: Path, target: Path) -> None:
    """Copy a file to `target`; the name appears when the copy is complete and on the disk.

    The bytes are shared where the file system can do that (copy_file_range(2)).

    Raises:
        OSError: the disk is full, or the target's folder can't be written to.
    """
    with being_published(target) as aside, source.open("rb") as old, aside.open("wb") as new:
        copy(old.fileno(), new.fileno(), source.stat().st_size)


def publish_text(text: str, target: Path) -> None:
    """Write a text file in the same way."""
    with being_published(target) as aside:
        aside.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def being_published(target: Path) -> Iterator[Path]:
    """A hidden name beside `target`, renamed to it when the block ends well, else removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    with claimed_name(target) as claim:
        aside = Path(claim.name)
        try:
            yield aside
            os.fsync(claim.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def claimed_name(target: Path) -> IO[bytes]:
    """A new hidden file beside `target`, locked as long as it is open: its owner lives."""
    while True:
        claim = target.with_name(f".{target.name}.{secrets.token_hex(TOKEN_BYTES)}").open("xb")
        fcntl.flock(claim, fcntl.LOCK_EX)
        if os.fstat(claim.fileno()).st_nlink:
            return claim
        claim.close()  # removed by another run between the two calls


def remove_leftovers(target: Path) -> None:
    """Remove the hidden files of runs that were killed while they published `target`."""
    token = "[0-9a-f]" * (2 * TOKEN_BYTES)
    for path in target.parent.glob(f".{glob.escape(target.name)}.{token}"):
        with contextlib.suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def copy(old: int, new: int, size_bytes: int) -> None:
    """Copy all bytes between two descriptors, inside the kernel where it can."""
    left = size_bytes
    while left > 0:
        try:
            copied = os.copy_file_range(old, new, min(left, COPY_BYTES))
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NOT_BETWEEN_THESE:
                raise
            copied = copy_through_memory(old, new)
        if copied == 0:
            raise OSError(f"the source became shorter by {left} bytes while it was copied")
        left -= copied


def copy_through_memory(old: int, new: int) -> int:
    """Copy all that is left of `old`; returns its size in bytes."""
    start = os.lseek(old, 0, os.SEEK_CUR)
    with os.fdopen(os.dup(old), "rb") as source, os.fdopen(os.dup(new), "wb") as target:
        shutil.copyfileobj(source, target, COPY_BYTES)
    return os.lseek(old, 0, os.SEEK_END) - start
