"""Under which licenses module and crates are, as they say of themselves."""

from __future__ import annotations

import struct
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tasks.vexfs.source import CARGO_MANIFEST

# Of a 64-bit ELF file with its low bytes first, elf(5): what names the table of sections, and
# of a section its name, offset and size.
ELF_64_LSB = b"\x7fELF\x02\x01"
HEADER = struct.Struct("<16s24xQ10xHHH")
SECTION = struct.Struct("<I20xQQ")
MODINFO = b".modinfo"


def module_license(module: Path) -> str:
    """What MODULE_LICENSE says in a module; "" if it says nothing, or can't be read.

    The words are the kernel's own, such as `GPL` or `Dual MIT/GPL`, and no identifiers of SPDX:
    https://docs.kernel.org/process/license-rules.html#id1.
    """
    try:
        entries = modinfo(module.read_bytes()).split(b"\0")
    except struct.error:
        return ""
    told = (entry.removeprefix(b"license=") for entry in entries if entry.startswith(b"license="))
    return next(told, b"").decode(errors="replace")


def modinfo(elf: bytes) -> bytes:
    """What modinfo(8) reads: entries NAME=VALUE, each with a zero byte after it.

    Raises:
        struct.error: the file is cut off.
    """
    if not elf.startswith(ELF_64_LSB):
        return b""
    _, table, size, count, names_at = HEADER.unpack_from(elf)
    sections = [SECTION.unpack_from(elf, table + number * size) for number in range(count)]
    if names_at >= count:
        return b""
    names = sections[names_at][1]
    for name, offset, length in sections:
        if elf.startswith(MODINFO + b"\0", names + name):
            return elf[offset : offset + length]
    return b""


def crate_licenses(files: Iterable[Path]) -> dict[str, str]:
    """The license of each crate whose Cargo.toml is among the files and names one.

    A member of a workspace may leave it to the workspace, https://doc.rust-lang.org/cargo/
    reference/workspaces.html#the-package-table; there is one at most in a source tree.
    """
    manifests = [*manifests_in(files)]
    workspaces = (table_in(table_in(manifest, "workspace"), "package") for manifest in manifests)
    shared = next((table.get("license") for table in workspaces if table), None)
    found = {}
    for package in (table_in(manifest, "package") for manifest in manifests):
        name, told = package.get("name"), package.get("license")
        if told == {"workspace": True}:
            told = shared
        if isinstance(name, str) and isinstance(told, str):
            found[name] = told
    return found


def manifests_in(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """What can be read of the crates' manifests; Cargo has the last word on the others."""
    for path in files:
        if path.name == CARGO_MANIFEST and path.is_file():
            try:
                yield tomllib.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue


def table_in(table: dict[str, Any], name: str) -> dict[str, Any]:
    """A table within another; empty if there is none."""
    found = table.get(name)
    return found if isinstance(found, dict) else {}
