"""Keeps what is remembered to save time, in files that may be lost whenever nothing runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def remember(memory: Path, text: str) -> None:
    """Replace the file of a memory, whole or not at all.

    Where that can't be done, on a full disk say, the memory stays as it was: what is forgotten
    costs time, and whoever needs the disk for more than that will say so.
    """
    aside = memory.with_name(f"{memory.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_text(text)
            aside.replace(memory)
        finally:
            aside.unlink(missing_ok=True)
