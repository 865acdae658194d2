"""The compile cache: objects of ccache and cargo's target, which spare compiling the same again.

It is a shortcut and no input: with it and without it the same bytes are made. Each part is one
archive, which compile.sh unpacks for its compilers and packs anew when all is compiled. So builds
at the same time share nothing that changes (the last one to end stays), and a killed one changes
nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.core.digest import digest_of
from tasks.vexfs.source import CARGO_MANIFEST, Recipe

# What gcc made; ccache tells by the content of sources what fits.
OBJECTS = "objects"
# What cargo made of a source tree's crates, its own and those that it brings along.
CRATES = "crates"
PARTS = (OBJECTS, CRATES)
# What a larger archive takes to unpack and pack is no shortcut any more. (ccache itself is limited
# to half of it, in compile.sh.)
LARGEST_BYTES = 512 << 20
# Archives of a part. Each new toolchain, lock file or source tree begins one, and what they were
# before seldom comes back: those that were used last stay.
KEPT = 4
# Cargo takes a folder with this file in it for a crate that nobody edits, known by its checksum.
VENDORED = ".cargo-checksum.json"
CARGO_SETTINGS = ".cargo"
CARGO_LOCK = "Cargo.lock"


@dataclass(frozen=True, kw_only=True)
class CompileCache:
    """The archives that one compilation may use.

    Args:
        folder: where they are kept.
        keys: part to what its content depends on; without any nothing is used or kept.
    """

    folder: Path
    keys: Mapping[str, str]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are used."""
        return tuple(self.keys)

    def path(self, part: str) -> Path:
        """Where the archive of a part lies, if there is one yet."""
        return self.folder / f"{part}-{self.keys[part][:16]}.tar.zst"

    def archives(self) -> dict[str, Path]:
        """The archives that are there, by the name that compile.sh knows them by.

        Their times then say that they are in use, so that no other build makes room of them.
        """
        paths = {archive_of(part): self.path(part) for part in self.parts}
        found = {name: path for name, path in paths.items() if path.is_file()}
        for path in found.values():
            with contextlib.suppress(OSError):
                os.utime(path)
        return found

    def keep(self, made: Mapping[str, Path]) -> None:
        """Take over the archives that a compilation left, by part; the oldest of others go.

        Raises:
            OSError: it can't be.
        """
        for part, archive in made.items():
            if archive.stat().st_size <= LARGEST_BYTES:
                self.folder.mkdir(parents=True, exist_ok=True)
                archive.replace(self.path(part))
                self._make_room(part)
            else:
                self.path(part).unlink(missing_ok=True)

    def _make_room(self, part: str) -> None:
        """Remove the archives of a part that were not used for longest."""
        used = []
        for path in self.folder.glob(f"{part}-*.tar.zst"):
            # Another build may have removed it by now.
            with contextlib.suppress(FileNotFoundError):
                used.append((path.stat().st_mtime, path))
        for _, path in sorted(used)[:-KEPT]:
            path.unlink(missing_ok=True)


def archive_of(part: str) -> str:
    """The name of a part's archive in compile.sh."""
    return f"{part}.tar.zst"


def keys_of(
    toolchain: str,
    tree: Path,
    files: Sequence[Path],
    *,
    root: Path,
    recipe: Recipe,
    version: str,
    digest: Callable[[Path], str],
) -> dict[str, str]:
    """What each part depends on; a source without crates has no use for CRATES.

    All are kept by source tree: a cache takes what it finds at its word, so that one tree could
    otherwise put its own into the module or the tool of another. It is no matter where a checkout
    lies: for the compilers every tree is /tmp/source, and a checkout's own trees go with the
    checkout.

    Cargo looks at the checksums that come with vendored crates, not at their files, and not at the
    environment of build scripts. So all of these are in the key.

    Args:
        toolchain: the digest of the compilers and headers.
        root: the checkout of vmbake.
        digest: tells the SHA256 of a file.
    """
    name = str(tree.relative_to(root) if tree.is_relative_to(root) else tree)
    keys = {OBJECTS: digest_of([toolchain, name])}
    if tree / CARGO_MANIFEST in files:
        settings = [path for path in files if is_setting(path.relative_to(tree))]
        fixed = (*vendored(files), *settings)
        contents = {str(path.relative_to(tree)): digest(path) for path in fixed}
        keys[CRATES] = digest_of([toolchain, name, contents, asdict(recipe), version])
    return keys


def vendored(files: Sequence[Path]) -> list[Path]:
    """The files of vendored crates."""
    crates = {path.parent for path in files if path.name == VENDORED}
    return [path for path in files if not crates.isdisjoint(path.parents)]


def is_setting(path: Path) -> bool:
    """Whether a file of the tree says how cargo compiles, or what."""
    return CARGO_SETTINGS in path.parts or path == Path(CARGO_LOCK)
