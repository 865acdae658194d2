"""Where this system keeps its UEFI firmware: read from the descriptors that QEMU's packages bring.

The format is docs/interop/firmware.json in QEMU's sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tasks.core.errors import MissingTool
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.qemu.spec import PROGRAM, DiskFormat

# What machines of type q35 boot with if they are told nothing (hw/i386/pc.c in QEMU's sources).
BIOS = "bios-256k.bin"
# The administrator's descriptors win over the distribution's; equal names replace each other.
DIRECTORIES = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
UNWANTED = {"secure-boot", "requires-smm", "amd-sev-es", "amd-sev-snp", "intel-tdx"}
SUFFIX_FORMATS: dict[str, DiskFormat] = {"raw": "raw", "qcow2": "qcow2"}


@dataclass(frozen=True, kw_only=True)
class Uefi:
    """A firmware: its code, and the variables that each machine gets a copy of."""

    code: Path
    variables: Path
    format: DiskFormat


def require_bios(runner: Runner) -> Path:
    """The BIOS that QEMU gives a machine; it looks in the directories that `-L help` lists.

    Raises:
        MissingTool: there is none, or no QEMU.
    """
    places = runner.output((PROGRAM, "-L", "help")).splitlines()
    found = next((path for place in places if (path := Path(place, BIOS)).is_file()), None)
    if found is None:
        raise MissingTool(
            f"QEMU's firmware {BIOS} is in none of {', '.join(places)}.",
            hint="Install the package seabios: scripts/bootstrap does it.",
        )
    return found


def require_uefi(directories: tuple[Path, ...] | None = None) -> Uefi:
    """The system's UEFI for x86_64 machines of type q35, without Secure Boot.

    Raises:
        MissingTool: none is installed.
    """
    places = directories if directories is not None else (*DIRECTORIES, *beside_qemu())
    for descriptor in descriptors(places):
        firmware = usable(descriptor)
        if firmware is not None:
            return firmware
    raise MissingTool(
        "There is no UEFI firmware for x86_64 guests here "
        f"(no descriptor of one in {', '.join(map(str, places))}).",
        hint="Install the package ovmf: scripts/bootstrap does it.",
    )


def beside_qemu() -> tuple[Path, ...]:
    """Where a QEMU outside of /usr (Homebrew's) has its descriptors."""
    program = find_tool(PROGRAM)
    return () if program is None else (program.resolve().parents[1] / "share/qemu/firmware",)


def descriptors(directories: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
    """All descriptors in the order of their names, which is their order of preference."""
    by_name: dict[str, Path] = {}
    for directory in directories:
        for path in directory.glob("*.json"):
            by_name.setdefault(path.name, path)
    for _, path in sorted(by_name.items()):
        # An empty file is how an administrator hides the distribution's.
        if text := path.read_text().strip():
            yield json.loads(text)


def usable(descriptor: dict[str, Any]) -> Uefi | None:
    """What a descriptor offers, if a plain q35 machine can boot it."""
    match descriptor:
        case {
            "interface-types": [*interfaces],
            "mapping": {
                "device": "flash",
                "executable": {"filename": code, "format": code_format},
                "nvram-template": {"filename": variables, "format": variables_format},
            },
            "targets": [*targets],
            "features": [*features],
        } if "uefi" in interfaces and code_format == variables_format:
            fits = any(
                target["architecture"] == "x86_64"
                and any(fnmatch("pc-q35-7.2", machine) for machine in target["machines"])
                for target in targets
            )
            format_ = SUFFIX_FORMATS.get(code_format)
            if not fits or format_ is None or UNWANTED & set(features):
                return None
            paths = Path(code), Path(variables)
            if all(path.is_file() for path in paths):
                return Uefi(code=paths[0], variables=paths[1], format=format_)
    return None
