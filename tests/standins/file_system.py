"""A file system of its own for a test, that can be full at any moment."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class FileSystem:
    """A file system of its own, in memory, whose room can be taken away at any moment."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self.size_bytes = size_bytes

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        self.folder.mkdir()
        mount(f"size={self.size_bytes}", self.folder)
        try:
            yield self.folder
        finally:
            # Lazily: a test that failed may have left somebody at work.
            subprocess.run(["umount", "--lazy", self.folder], check=True)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """While the block lasts, there is no room but that of files that are removed."""
        self._fill()
        try:
            yield
        finally:
            mount(f"remount,size={self.size_bytes}", self.folder)

    def _fill(self) -> None:
        # The kernel refuses a size below what is in use, which grows meanwhile.
        while True:
            stat = os.statvfs(self.folder)
            used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            with contextlib.suppress(subprocess.CalledProcessError):
                mount(f"remount,size={used}", self.folder)
                return


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
