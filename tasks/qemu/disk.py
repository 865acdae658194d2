"""Disk images, by qemu-img: made, looked at, converted, checked; qcow2.py compresses.

The format of an image is always said, never guessed: a guest that writes a qcow2 header into
its raw disk could otherwise name any file of the host as its backing file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import BadInput, Busy, CommandFailed, NoRoom, VmbakeError
from tasks.core.process import Runner
from tasks.qemu import qcow2
from tasks.qemu.spec import DiskFormat

QEMU_IMG = "qemu-img"
SECTOR_BYTES = 512
# A file system with less room than this is full: a qcow2 grows in clusters, and needs some for its
# tables.
FULL_BYTES = 16 << 20

# First bytes of what users offer by mistake; from the formats' specifications.
FOREIGN = {
    b"\x1f\x8b": "gzip-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
    b"BZh": "bzip2-compressed",
    b"PK\x03\x04": "a zip archive",
    b"KDMV": "a VMDK image",
    b"vhdxfile": "a VHDX image",
    b"conectix": "a VHD image",
    b"<<< ": "a VDI image",
    b"QED\x00": "a QED image",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What `qemu-img info` says of an image."""

    path: Path
    format: DiskFormat
    virtual_bytes: int
    disk_bytes: int
    backing: str | None
    data_file: str | None
    encrypted: bool
    snapshots: tuple[str, ...]


def format_of(path: Path) -> DiskFormat:
    """The format of an image that a user named, from its first bytes alone.

    Raises:
        BadInput: it is something else than qcow2 or a raw disk.
    """
    try:
        with path.open("rb") as image:
            head = image.read(SECTOR_BYTES)
            size_bytes = image.seek(0, os.SEEK_END)
    except OSError as error:
        raise BadInput(f"The image {path} can't be read: {error.strerror}.") from error
    if head.startswith(qcow2.MAGIC):
        return "qcow2"
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise BadInput(
                f"{path} is {what}, not a qcow2 or raw disk image.",
                hint="Unpack it, or convert it by `qemu-img convert -O qcow2`.",
            )
    if size_bytes < SECTOR_BYTES or size_bytes % SECTOR_BYTES or head[510:512] != b"\x55\xaa":
        raise BadInput(
            f"{path} is no disk image: neither qcow2, nor raw with a partition table "
            "(whole sectors, the first of which ends in 55 AA)."
        )
    return "raw"


def create(runner: Runner, path: Path, *, size_bytes: int) -> None:
    """Make an empty qcow2 image.

    Raises:
        NoRoom, BadInput: it can't be written.
    """
    _qemu_img(runner, "create", "-q", "-f", "qcow2", path, str(size_bytes), subject=path)


def create_overlay(
    runner: Runner,
    path: Path,
    *,
    backing: Path,
    backing_format: DiskFormat,
    size_bytes: int | None = None,
) -> None:
    """Make a qcow2 image that keeps only the differences to `backing`.

    The backing file is stored relative to the overlay's directory, so that a store can be moved
    or mounted elsewhere, and an overlay can be renamed at its depth; after another move, `rebase`.

    Args:
        size_bytes: the size that the guest sees; None: that of `backing`.

    Raises:
        BadInput: `backing` is missing, or not what it should be.
        NoRoom: the disk is full.
    """
    size = () if size_bytes is None else (str(size_bytes),)
    stored = relative(backing, path)
    options = ("-f", "qcow2", "-b", stored, "-F", backing_format)
    _qemu_img(runner, "create", "-q", *options, path, *size, subject=backing)


def rebase(runner: Runner, path: Path, *, backing: Path, backing_format: DiskFormat) -> None:
    """Point an overlay at its backing file, which has the same content at another place.

    Raises: as `create_overlay`.
    """
    if not backing.is_file():
        raise BadInput(f"The backing file {backing} does not exist.")
    options = ("-q", "-u", "-f", "qcow2", "-b", relative(backing, path), "-F", backing_format)
    _qemu_img(runner, "rebase", *options, path, subject=path)


def absorb(runner: Runner, path: Path, *, down_to: Path, backing_format: DiskFormat) -> None:
    """Have an overlay stand on `down_to`, one of the files below it, with the same content.

    What the files between them hold is copied into it; there may be none.

    Raises:
        NoRoom: the disk is full.
        BadInput: `down_to` or the overlay is not usable.
    """
    options = ("-q", "-f", "qcow2", "-b", relative(down_to, path), "-F", backing_format)
    _qemu_img(runner, "rebase", *options, path, subject=path)


def info(runner: Runner, path: Path, image_format: DiskFormat) -> ImageInfo:
    """Look at an image, also at one that a machine has open.

    Raises:
        BadInput: it is no image of that format.
    """
    words = ("info", "-U", "--output=json", "-f", image_format, path)
    found: dict[str, Any] = json.loads(_qemu_img(runner, *words, subject=path))
    return ImageInfo(
        path=path,
        format=image_format,
        virtual_bytes=found["virtual-size"],
        disk_bytes=found["actual-size"],
        backing=found.get("backing-filename"),
        data_file=_data_file(found),
        encrypted=found.get("encrypted", False),
        snapshots=tuple(snapshot["name"] for snapshot in found.get("snapshots", ())),
    )


def require_standalone(runner: Runner, path: Path, image_format: DiskFormat) -> ImageInfo:
    """Look at an image of unknown origin; it must not lead QEMU to any other file.

    Raises:
        BadInput: it is encrypted, has a backing or a data file, or is no image of that format.
    """
    found = info(runner, path, image_format)
    if found.encrypted:
        raise BadInput(f"The image {path} is encrypted.", hint="Decrypt it by qemu-img convert.")
    for role, other in (("backing", found.backing), ("data", found.data_file)):
        if other is not None:
            raise BadInput(
                f"The image {path} is not complete: it has a {role} file, {other}.",
                hint="Make one image of them by `qemu-img convert -O qcow2`, if you trust them.",
            )
    return found


def convert(
    runner: Runner,
    source: Path,
    source_format: DiskFormat,
    target: Path,
    target_format: DiskFormat,
) -> None:
    """Write the content of an image, backing files included, as one new image; sync it to disk.

    The same content gives the same bytes, so no -W. Snapshots are not carried over. When it
    fails, no `target` is left.

    Raises:
        BadInput: `source` is not what it should be.
        NoRoom: there is, or became, too little room for `target`.
    """
    chain = _chain(runner, source, source_format)
    require_room(target.parent, sum(image["actual-size"] for image in chain))
    words = ("convert", "-f", source_format, "-O", target_format, source, target)
    with _whole_or_none(target):
        _qemu_img(runner, *words, subject=source)


def compact(
    runner: Runner, source: Path, source_format: DiskFormat, target: Path, *, threads: int
) -> int:
    """Write the content of an image, backing files included, as one new qcow2 that is compressed.

    The same content gives the same bytes. Blocks of zeros take no room. It is synced, and when it
    fails, no `target` is left.

    Args:
        threads: how many compress.

    Returns: the size of the disk, in bytes.

    Raises:
        BadInput: `source` is not what it should be.
        OSError: the disk is full.
        ValueError: it, or a file below it, is compressed itself, or keeps its data elsewhere.
    """
    chain = _chain(runner, source, source_format)
    words = ("map", "-U", "--output=json", "-f", source_format, source)
    found: list[dict[str, Any]] = json.loads(_qemu_img(runner, *words, subject=source))
    data = [part for part in found if part["data"]]
    if any("offset" not in part for part in data) or any(map(_data_file, chain)):
        raise ValueError(f"{source}: not all of its content lies as it is in its own files")
    extents = [
        qcow2.Extent(
            start=part["start"],
            length=part["length"],
            file=Path(chain[part["depth"]]["filename"]),
            offset=part["offset"],
        )
        for part in data
    ]
    size_bytes = int(chain[0]["virtual-size"])
    with _whole_or_none(target):
        qcow2.write(extents, size_bytes, target, threads=threads)
    return size_bytes


@contextlib.contextmanager
def _whole_or_none(target: Path) -> Iterator[None]:
    """Sync what the block writes, and remove it if that fails."""
    try:
        yield
        with target.open("rb") as written:
            os.fsync(written.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def resize(runner: Runner, path: Path, image_format: DiskFormat, size_bytes: int) -> None:
    """Let an image grow to `size_bytes`, as the guest sees it; it never shrinks.

    Raises:
        BadInput: it is larger already, or no image of that format.
        NoRoom: the disk is full.
    """
    _qemu_img(runner, "resize", "-q", "-f", image_format, path, str(size_bytes), subject=path)


def check(runner: Runner, path: Path) -> None:
    """Check that the tables of a qcow2 image are sound.

    Raises:
        BadInput: they are not, or it is no qcow2 image.
    """
    _qemu_img(runner, "check", "-q", "-f", "qcow2", path, subject=path)


def require_room(directory: Path, size_bytes: int) -> None:
    """Check that `directory` has room for `size_bytes`.

    Raises:
        NoRoom: it has not.
    """
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < size_bytes:
        raise NoRoom(
            f"{directory} has {free_bytes / 1e9:.1f} GB free, "
            f"and {size_bytes / 1e9:.1f} GB are needed.",
            hint="Make room there, or choose another directory.",
        )


def relative(backing: Path, overlay: Path) -> str:
    """`backing` as seen from the directory of `overlay`, in the form that QEMU stores."""
    seen = os.path.relpath(backing.resolve(), overlay.parent.resolve())
    # A colon in the first component would make it a protocol.
    return seen if seen.startswith("..") else f"./{seen}"


def _chain(runner: Runner, path: Path, image_format: DiskFormat) -> list[dict[str, Any]]:
    """What `qemu-img info` says of an image and of those below it, each with its path."""
    words = ("info", "-U", "--output=json", "--backing-chain", "-f", image_format, path)
    chain: list[dict[str, Any]] = json.loads(_qemu_img(runner, *words, subject=path))
    return chain


def _data_file(found: dict[str, Any]) -> str | None:
    """The file that has the content of an image, if it is not the image itself."""
    path: str | None = found.get("format-specific", {}).get("data", {}).get("data-file")
    return path


def _qemu_img(runner: Runner, *words: str | Path, subject: Path) -> str:
    try:
        return runner.output((QEMU_IMG, *words))
    except CommandFailed as error:
        raise explain(error, subject) from error


def explain(error: CommandFailed, subject: Path) -> VmbakeError:
    """A failure of qemu-img by its cause, with qemu-img's own words."""
    said = last_message(error.tail)
    if "No space left on device" in said:
        return NoRoom(
            f"The disk is full: {said}.",
            hint="Make room, and run it again.",
            log=error.log,
            tail=error.tail,
        )
    if 'Failed to get "' in said:
        return Busy(
            f"Another process has the image {subject} open: {said}.",
            hint="Wait for it to end, or stop it.",
            log=error.log,
            tail=error.tail,
        )
    return BadInput(
        f"The image {subject} is not usable: {said or error.what}.", log=error.log, tail=error.tail
    )


def last_message(tail: tuple[str, ...]) -> str:
    """The last thing that qemu-img said, without its name and the final stop."""
    for line in reversed(tail):
        with contextlib.suppress(ValueError):
            if line.startswith("# $ "):
                break
            if match := re.match(r"qemu-img: (.*)", line):
                return match[1].rstrip(".")
    return ""
