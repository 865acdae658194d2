"""The files of the caches, which belong to no result: downloads and what compilers left.

They are looked at before each use, too. This is for whoever wants to know now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tasks.artifacts.pins import FILE_NAME, Pins
from tasks.artifacts.unpack import content_sha256, packing_of
from tasks.core.digest import Digests, files_under, sha256_of
from tasks.core.errors import BadInput
from tasks.core.events import Silent
from tasks.core.stage import Site
from tasks.core.store import Store

COMPILED = "compile"
# What an archive of at most 512 MiB may hold. One that holds more is none that we have made.
MOST_COMPILED_BYTES = 64 << 30


def files_in(site: Site) -> Iterator[Path]:
    """The files in the folders of the cache; those beside them are memories, which may be lost."""
    yield from files_under(path for path in sorted(site.cache.glob("*")) if path.is_dir())


def damage_of(path: Path, site: Site, digests: Digests) -> str | None:
    """What is wrong with a file; "" if nothing is, None if nothing is recorded to tell by."""
    if path.is_relative_to(site.cache / COMPILED):
        return damage_of_archive(path)
    promised = pinned(path, site) or digests.remembered(path)
    if promised is None:
        return None
    return "" if sha256_of(path) == promised else "it was changed"


def damage_of_archive(path: Path) -> str:
    """What is wrong with an archive of the compile cache, by the checksum that zstd puts in it."""
    with contextlib.suppress(BadInput):
        if packing_of(path) == "zstd":  # an empty file unpacks to nothing, without complaint
            content_sha256(path, "zstd", MOST_COMPILED_BYTES, Silent())
            return ""
    return "it can't be unpacked"


def pinned(path: Path, site: Site) -> str | None:
    """The digest that was recorded for a download.

    It is recorded for its path in the cache, or for the folder that it has to itself.
    """
    downloads = site.cache / "downloads"
    if not path.is_relative_to(downloads):
        return None
    name = path.relative_to(downloads)
    # What is not complete yet lies beside it.
    folders = [] if ".part" in path.suffixes else [name.parent]
    for pins in (Pins(path=site.cache / FILE_NAME), Pins(path=site.state / FILE_NAME)):
        for key in (name, *folders):
            if found := pins.find(str(key)):
                return found
    return None


def set_aside(path: Path, store: Store) -> Path:
    """Move a damaged file out of the way, if it is still there; returns where to look at it."""
    store.damaged.mkdir(parents=True, exist_ok=True)
    place = store.damaged / str(path.relative_to(store.state)).replace("/", ".")
    with contextlib.suppress(FileNotFoundError):
        path.replace(place)
    return place
