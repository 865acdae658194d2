"""SHA256 of files, remembered while the file system says that a file has not been touched."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from tasks.core.memory import remember

# Below this size reading a file costs less than looking it up.
WORTH_REMEMBERING_BYTES = 4 << 20


def sha256_of(path: Path) -> str:
    """SHA256 of a file's content in hexadecimal; of a link's target text if it is a link."""
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(path.readlink())).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(parts: object) -> str:
    """SHA256 of JSON-able data, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Digests:
    """Digests of big files, kept in one JSON file.

    A digest is believed while device, inode, size, modification and change time of the file are
    those of when it was computed, as git does for its index. It only saves reading; it decides
    nothing by time.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, list[object]] | None = None
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """SHA256 of a file's content.

        Raises:
            OSError: the file can't be read.
        """
        if not worth_remembering(path):
            return sha256_of(path)
        if known := self.remembered(path):
            return known
        sign = signature(path)
        digest = sha256_of(path)
        if sign == signature(path):
            self.remember(path, digest)
        return digest

    def remembered(self, path: Path) -> str | None:
        """What a file's SHA256 was when it was last read, if nothing has touched it since."""
        with self._lock:
            entry = self._load().get(str(path))
        return str(entry[-1]) if entry and entry[:-1] == signature(path) else None

    def remember(self, path: Path, digest: str) -> None:
        """Take `digest` as that of the file as it is now; the caller has just computed it."""
        if not worth_remembering(path):
            return
        sign = signature(path)
        with self._lock:
            known = self._load()
            known[str(path)] = [*sign, digest]
            there = {name: entry for name, entry in known.items() if Path(name).exists()}
            remember(self._memory, json.dumps(there))

    def _load(self) -> dict[str, list[object]]:
        if self._known is None:
            self._known = {}
            # A lost or broken memory costs time, nothing else.
            with contextlib.suppress(OSError, ValueError):
                self._known = dict(json.loads(self._memory.read_text()))
        return self._known


def worth_remembering(path: Path) -> bool:
    """Whether reading a file again costs more than looking it up."""
    return not path.is_symlink() and path.stat().st_size >= WORTH_REMEMBERING_BYTES


def signature(path: Path) -> list[object]:
    """What changes when a file is written to or replaced."""
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def files_under(paths: Iterable[Path]) -> list[Path]:
    """The files and links among and below `paths`, sorted."""
    found: set[Path] = set()
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            for folder, folders, names in os.walk(path):
                found.update(Path(folder, name) for name in names)
                found.update(link for name in folders if (link := Path(folder, name)).is_symlink())
        else:
            found.add(path)
    return sorted(found)
