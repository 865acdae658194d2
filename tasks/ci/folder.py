"""The folder of a build's artifacts: made aside, renamed when it is complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts.publish import publish
from tasks.ci.building import MANIFEST
from tasks.core.digest import Digests

# Every complete folder has it, see tasks/attest/collection.py.
COMPLETE = "build-manifest.json"
TOKEN_BYTES = 4
NOT_LINKED = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


@contextlib.contextmanager
def being_made(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` that takes its name and place when the block ends well.

    If the block fails, it is removed and an older `target` stays.

    Raises:
        OSError: the folder above can't be written to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    aside, claim = claimed_folder(target)
    try:
        yield aside
        os.fsync(claim)
        replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        os.close(claim)


def replace(aside: Path, target: Path) -> None:
    """Give `aside` the name `target`; what had it goes, once the new one is there."""
    if not target.exists():
        aside.rename(target)
        return
    old = hidden(target)
    target.rename(old)
    try:
        aside.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def claimed_folder(target: Path) -> tuple[Path, int]:
    """A new hidden folder beside `target`, and its descriptor: locked as long as it is open."""
    while True:
        aside = hidden(target)
        aside.mkdir()
        with contextlib.suppress(FileNotFoundError):
            claim = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(claim, fcntl.LOCK_EX)
            if aside.exists():
                return aside, claim
            os.close(claim)  # another run took it for a leftover between the two calls


def hidden(target: Path) -> Path:
    """A new name beside `target` that nobody takes for a build."""
    return target.with_name(f".{target.name}.{secrets.token_hex(TOKEN_BYTES)}")


def remove_leftovers(target: Path) -> None:
    """Remove the hidden folders of runs that were killed while they made `target`."""
    token = "[0-9a-f]" * (2 * TOKEN_BYTES)
    for path in target.parent.glob(f".{target.name}.{token}"):
        with contextlib.suppress(OSError):
            claim = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(claim)


def put(source: Path, target: Path, digests: Digests) -> None:
    """Have the file in the folder, too: as a link to the same bytes, else as a copy.

    Nothing writes into a published file; a new version of it takes its name instead.

    Raises:
        OSError: the disk is full, or a file can't be read.
    """
    sha256 = digests.of(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NOT_LINKED:
            raise
        publish(source, target)
    # A link changes the file's change time, by which the digest is remembered.
    for path in (source, target):
        digests.remember(path, sha256)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An artifact and its size in bytes."""

    name: str
    size_bytes: int


def sizes_in(folder: Path) -> dict[str, Measured]:
    """The artifacts of all images in a folder, as `sizes_of` has them."""
    found: dict[str, Measured] = {}
    for path in sorted(folder.glob(f"*{MANIFEST}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found |= sizes_of(json.loads(path.read_text(encoding="utf-8")))
    return found


def sizes_of(manifest: Mapping[str, Any]) -> dict[str, Measured]:
    """The artifacts of an image by their name without its version.

    Versions differ from tag to tag, and the sizes are to be compared all the same.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no manifest.
    """
    return {
        name.replace(f"-{manifest['version']}.", "."): Measured(
            name=name, size_bytes=int(entry["size_bytes"])
        )
        for name, entry in manifest["artifacts"].items()
    }


def last_build(into: Path) -> Path | None:
    """The newest complete folder; None if there is none."""
    return next(iter(builds(into)), None)


def builds(into: Path) -> list[Path]:
    """The complete folders, the newest first."""
    found = [path.parent for path in into.glob(f"*/{COMPLETE}") if not path.parent.is_symlink()]
    visible = [path for path in found if not path.name.startswith(".")]
    return sorted(visible, key=lambda path: (path / COMPLETE).stat().st_mtime_ns, reverse=True)


def remove_old(into: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` builds (0: none); returns what was removed."""
    old = builds(into)[keep:] if keep else []
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return old
