"""Writes ISO 9660 images with pycdlib: byte-identical for identical content."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from time import struct_time
from typing import Any

from tasks.core.errors import BadInput

# 2020-01-01; any fixed moment will do.
FIXED_TIME_S = 1577836800.0


def write_seed(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a NoCloud seed: files in the root of a volume labelled `cidata`.

    The label and the names are cloud-init's (its NoCloud documentation); the file is 0600, as
    it holds the build's keys.
    """
    iso = new_iso("CIDATA")
    for number, (name, content) in enumerate(sorted(files.items())):
        iso.add_fp(
            BytesIO(content),
            len(content),
            iso_path=f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100600,
        )
    _write(iso, target)


def write_tree(target: Path, root: Path, files: list[Path], label: str) -> None:
    """Write files below `root` with their relative paths, modes and link targets (Rock Ridge).

    Raises:
        BadInput: a name or a link's target is not UTF-8.
        ValueError: a file is not below `root`.
    """
    iso = new_iso(label)
    folders: dict[Path, str] = {Path(): ""}
    for number, path in enumerate(sorted(files)):
        relative = path.relative_to(root)
        parent = _add_folders(iso, relative.parent, folders)
        name = f"{parent}/F{number:07}.;1"
        if path.is_symlink():
            leads_to = as_text(path, str(path.readlink()))
            iso.add_symlink(name, rr_symlink_name=as_text(path, path.name), rr_path=leads_to)
        else:
            mode = 0o100755 if path.stat().st_mode & 0o100 else 0o100644
            rr_name = as_text(path, path.name)
            iso.add_file(str(path), iso_path=name, rr_name=rr_name, file_mode=mode)
    _write(iso, target)


def _add_folders(iso: Any, folder: Path, known: dict[Path, str]) -> str:
    """The ISO path of `folder`, which is made with its parents where needed."""
    if folder not in known:
        parent = _add_folders(iso, folder.parent, known)
        known[folder] = f"{parent}/D{len(known):07}"
        rr_name = as_text(folder, folder.name)
        iso.add_directory(known[folder], rr_name=rr_name, file_mode=0o040755)
    return known[folder]


def as_text(path: Path, name: str) -> str:
    """`name`, if it is text.

    Raises:
        BadInput: it is not UTF-8, in which pycdlib writes it.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"The file {str(path)!r} can't go onto an ISO: {name!r} is not UTF-8.",
            hint="Rename or remove it.",
        ) from error
    return name


def new_iso(label: str) -> Any:
    """An empty image. Interchange level 4 has no limit on the depth of folders."""
    iso = library().PyCdlib()
    joliet = 3 if label == "CIDATA" else None
    iso.new(interchange_level=4, vol_ident=label, rock_ridge="1.09", joliet=joliet)
    return iso


def _write(iso: Any, target: Path) -> None:
    descriptor = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, 0o600)  # if there was one before
        iso.write_fp(stream)
    iso.close()


class FixedTime:
    """The time module as pycdlib is to see it: a clock that stands still, in UTC."""

    @staticmethod
    def time() -> float:
        return FIXED_TIME_S

    @staticmethod
    def localtime(seconds: float) -> struct_time:
        return time.gmtime(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def library() -> Any:
    """pycdlib, which has no parameter for dates and would stamp everything with the time of day."""
    from pycdlib import dates, headervd, pycdlib

    for module in (dates, headervd, pycdlib):
        module.time = FixedTime()  # type: ignore[attr-defined]
    return pycdlib
