"""Puts finished files where users look for them, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

COPY_BYTES = 64 << 20


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
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield aside
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def copy(old: int, new: int, size_bytes: int) -> None:
    """Copy all bytes between two descriptors, inside the kernel where it can."""
    if not hasattr(os, "copy_file_range"):
        with os.fdopen(os.dup(old), "rb") as source, os.fdopen(os.dup(new), "wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        return
    left = size_bytes
    while left > 0:
        copied = os.copy_file_range(old, new, min(left, COPY_BYTES))
        if copied == 0:
            raise OSError(f"the source became shorter by {left} bytes while it was copied")
        left -= copied
