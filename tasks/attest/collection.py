"""The result of a pipeline as one directory that can be handed over, and how it is sealed.

    DIR/
      NAME.qcow2  NAME.qcow2.zst  NAME.qcow2.sha256 …   what `inv vexfs.image` published
      NAME.manifest.json                                of an image; names its files ("artifacts")
      NAME.cdx.json  NAME.spdx.json                     bills of materials: CycloneDX, SPDX
      NAME.provenance.json                              in-toto Statement with SLSA provenance
      validation/RECORD.json                            what `tasks.artifacts.checks.write` wrote
      validation/RECORD.test-result.json                in-toto Statement about it
      logs/…  junit.xml  report.html  summary.md  …     anything else
      build-manifest.json                               the build; each file's digest and size
      build-manifest.intoto.jsonl                       when signed: a Statement about all above
      checksums.sha256                                  all but itself, for `sha256sum -c`

A signed Statement is in a DSSE envelope and ends in .intoto.jsonl instead of .json.
build-manifest.json lists every file but itself, its signature and checksums.sha256. The last needs
no signature: its only right content follows from the other files. A directory holds plain files and
directories, no links, and is sealed last: afterwards any change shows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts.publish import publish_text, remove_leftovers
from tasks.attest import statements
from tasks.attest.build import Build
from tasks.attest.finding import shown
from tasks.core.capacity import core_count
from tasks.core.digest import sha256_of
from tasks.core.errors import BadInput

if TYPE_CHECKING:
    from tasks.attest.signing import PrivateKey

BUILD_MANIFEST = "build-manifest.json"
CHECKSUMS = "checksums.sha256"
VALIDATION = "validation"
FORMAT = 1
# A statement's file ends with one of these: as it is, or in an envelope.
PLAIN, SIGNED = ".json", ".intoto.jsonl"
SIGNATURE = f"build-manifest{SIGNED}"
# Written last, in this order; build-manifest.json does not list them.
SEALS = (BUILD_MANIFEST, SIGNATURE, CHECKSUMS)
PROVENANCE, RESULT, MANIFEST = ".provenance", ".test-result", ".manifest.json"
CYCLONEDX, SPDX = ".cdx.json", ".spdx.json"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the directory, as it is."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """All that is in a directory.

    Args:
        files: by their paths relative to the directory, with slashes, sorted.
        odd: what is there and can't be vouched for, and why.
    """

    files: Mapping[str, File]
    odd: Mapping[str, str]


def take_inventory(directory: Path) -> Inventory:
    """Read every file below a directory.

    Raises:
        OSError: one can't be read.
    """
    odd: dict[str, str] = {}
    paths: dict[str, Path] = {}
    for name, path in entries(directory):
        if path.is_symlink():
            odd[shown(name)] = "it is a link, and what it points to can change"
        elif not path.is_file():
            odd[shown(name)] = "it is no file"
        elif shown(name) != name or "\\" in name:
            odd[shown(name)] = "its name has characters that checksum files can't have"
        else:
            paths[name] = path
    # Digests are computed outside Python's lock.
    with ThreadPoolExecutor(max_workers=core_count()) as pool:
        digests = list(pool.map(sha256_of, paths.values()))
    files = {
        name: File(sha256=digest, size_bytes=path.stat().st_size)
        for (name, path), digest in zip(paths.items(), digests, strict=True)
    }
    return Inventory(files=dict(sorted(files.items())), odd=odd)


def entries(directory: Path) -> Iterator[tuple[str, Path]]:
    """Everything below a directory that is no directory itself, with its relative name."""
    for folder, folders, names in os.walk(directory, onerror=fail):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*names, *links):
            path = Path(folder, name)
            yield path.relative_to(directory).as_posix(), path


def fail(error: OSError) -> None:
    """What can't be listed can't be vouched for."""
    raise error


def checksums(digests: Mapping[str, str]) -> str:
    """The text of checksums.sha256, which `sha256sum -c` reads."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def write_statement(
    directory: Path, stem: str, statement: statements.JsonObject, key: PrivateKey | None
) -> Path:
    """Write a statement as STEM.json, or signed as STEM.intoto.jsonl; the other one goes."""
    from tasks.attest.signing import sign

    text = statements.as_text(statement)
    plain, signed = directory / f"{stem}{PLAIN}", directory / f"{stem}{SIGNED}"
    target, other = (signed, plain) if key else (plain, signed)
    other.unlink(missing_ok=True)
    publish_text(sign(text, key) if key else text, target)
    return target


def seal(directory: Path, build: Build, *, key: PrivateKey | None = None) -> None:
    """Write build-manifest.json, its signature, and checksums.sha256, each whole or not at all.

    Call it once all else is there; called again, it replaces them. Old ones go first, so that
    none ever speaks of other bytes.

    Raises:
        BadInput: the directory holds something that can't be vouched for (a link, say).
        OSError: the disk is full, or a file can't be read.
    """
    from tasks.attest.signing import sign

    for name in reversed(SEALS):
        (directory / name).unlink(missing_ok=True)
        remove_leftovers(directory / name)
    found = take_inventory(directory)
    if found.odd:
        told = "; ".join(f"{name}: {why}" for name, why in sorted(found.odd.items()))
        raise BadInput(f"{directory} holds what nobody can vouch for. {told}.")
    document = {
        "format": FORMAT,
        "build": build.to_json(),
        "files": {
            name: {"sha256": file.sha256, "size_bytes": file.size_bytes}
            for name, file in found.files.items()
        },
    }
    publish_text(json.dumps(document, indent=1) + "\n", directory / BUILD_MANIFEST)
    digests = {name: file.sha256 for name, file in found.files.items()}
    digests[BUILD_MANIFEST] = sha256_of(directory / BUILD_MANIFEST)
    if key:
        text = statements.as_text(statements.collection(digests, build))
        publish_text(sign(text, key), directory / SIGNATURE)
        digests[SIGNATURE] = sha256_of(directory / SIGNATURE)
    publish_text(checksums(digests), directory / CHECKSUMS)
