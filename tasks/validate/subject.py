"""The image to validate: found, fetched, unpacked, and looked at before anything boots it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks.artifacts.unpack import packing_of, unpack
from tasks.core.digest import sha256_of
from tasks.core.errors import BadInput, CommandFailed
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.qemu import disk as images
from tasks.qemu.spec import DiskFormat

PLAIN = ".qcow2"
PACKED_ENDINGS = (".zst", ".gz", ".xz")
DISK_ENDINGS = (PLAIN, ".raw", ".img")
# qemu-img(1), check: leaked clusters, and nothing worse.
LEAKS_STATUS = 3
MANIFEST_ENDING = ".manifest.json"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An image that can be booted.

    Args:
        path: the artifact itself.
        disk: the disk in it: `path`, or what was unpacked from it.
        manifest: what its build says it is; None for a foreign image.
    """

    path: Path
    sha256: str
    size_bytes: int
    disk: Path
    format: DiskFormat
    virtual_bytes: int
    manifest: Mapping[str, Any] | None

    @property
    def variant(self) -> str:
        return str(self.manifest["variant"]) if self.manifest else ""

    @property
    def version(self) -> str:
        return str(self.manifest["version"]) if self.manifest else ""


def find_all(output: Path) -> list[str]:
    """The images in the output folder: each plain, or compressed if there is no plain one.

    Raises:
        BadInput: there is none.
    """
    files = sorted(path for path in output.glob("*") if path.is_file())
    plain = [path for path in files if path.suffix in DISK_ENDINGS]
    packed = [
        path
        for path in files
        if path.suffix in PACKED_ENDINGS
        and Path(path.stem).suffix in DISK_ENDINGS
        and path.with_suffix("") not in plain
    ]
    if not plain and not packed:
        raise BadInput(
            f"There is no image in {output}.",
            hint="Bake one by `inv vexfs.image`, or name one: `inv validate.image FILE`.",
        )
    return [str(path) for path in (*plain, *packed)]


def name_of(given: str) -> str:
    """The file name of an image that is named by a path or a URL."""
    return Path(unquote(urlsplit(given).path)).name if is_url(given) else Path(given).name


def require_distinct(given: Sequence[str]) -> None:
    """Check that the records of all images have names of their own.

    Raises:
        BadInput: two images are called the same.
    """
    names = [name_of(one) for one in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(
            f"Two of the images are called {twice[0]}, and records are named after the images.",
            hint="Validate them one after the other, or rename one.",
        )


def is_url(given: str) -> bool:
    """Whether an image is to be fetched first."""
    return given.startswith(("http://", "https://", "file://"))


def locate(given: str, downloads: Path, reporter: Reporter) -> Path:
    """The artifact as a local file.

    Raises:
        BadInput: there is no such file.
        DownloadFailed, NoRoom: it can't be had from there.
    """
    if is_url(given):
        from tasks.artifacts.download import Download, fetch

        source = Download(name=name_of(given), urls=(given,))
        return fetch(source, downloads, reporter=reporter).path
    path = Path(given).absolute()
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise BadInput(f"The image {given} {what}.")
    return path


def manifest_of(path: Path) -> Mapping[str, Any] | None:
    """The manifest beside an image, whose name begins like the image's.

    Raises:
        BadInput: it is there, and is no manifest.
    """
    stem = path.name
    for ending in (*PACKED_ENDINGS, *DISK_ENDINGS):
        stem = stem.removesuffix(ending)
    beside = path.with_name(stem + MANIFEST_ENDING)
    if not beside.is_file():
        return None
    try:
        manifest = json.loads(beside.read_text(encoding="utf-8"))
        for key in ("name", "variant", "version", "artifacts"):
            manifest[key]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{beside} is no manifest: {error!r}.") from error
    return manifest  # type: ignore[no-any-return]


def check_tables(runner: Runner, disk: Path) -> None:
    """Check that the tables of a qcow2 image are sound; space that is lost in it does no harm.

    Raises:
        BadInput: they are not.
    """
    try:
        images.check(runner, disk)
    except BadInput as error:
        cause = error.__cause__
        if not isinstance(cause, CommandFailed) or cause.status != LEAKS_STATUS:
            raise


def examine(path: Path, work: Path, runner: Runner, reporter: Reporter) -> Subject:
    """Unpack an artifact if it is packed, and see that it is a disk that stands alone.

    Raises:
        BadInput: it is no such disk, damaged, encrypted, or leads to other files.
        NoRoom: it can't be unpacked here.
    """
    reporter.say("reading")
    sha256, size_bytes = sha256_of(path), path.stat().st_size
    disk, packing = path, packing_of(path)
    if packing is not None:
        disk = work / "unpacked"
        reporter.say("unpacking")
        unpack(path, disk, packing, reporter)
    format_ = images.format_of(disk)
    found = images.require_standalone(runner, disk, format_)
    if format_ == "qcow2":
        check_tables(runner, disk)
    return Subject(
        path=path,
        sha256=sha256,
        size_bytes=size_bytes,
        disk=disk,
        format=format_,
        virtual_bytes=found.virtual_bytes,
        manifest=manifest_of(path),
    )
