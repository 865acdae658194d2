"""The two layouts of vdsm/virtual-dsm's scripts, and the change that makes its disks qcow2.

Upstream attaches the boot and the system disk as raw, beside which QEMU can save no snapshot. The
two lines that say so are in disk.sh up to 7.62 and in prepare.sh from 7.63 on. Here they are found
and rewritten by proof: exactly two, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.core.errors import BadInput

ENTRY = "/run/entry.sh"
NETWORK = "/run/network.sh"
# Where the two lines may be, and the releases that have them there.
DISK_SCRIPTS = {"/run/disk.sh": "up to 7.62", "/run/prepare.sh": "from 7.63 on"}
VERSION_FILES = ("/run/version", "/etc/version")
# What `recognise` wants to see of an image; not every image has all of them.
FILES = (ENTRY, *DISK_SCRIPTS, NETWORK, *VERSION_FILES)

# Our own script, and its place in the image.
CONVERT_SOURCE = Path(__file__).parents[2] / "scripts" / "vdsm" / "convert.sh"
CONVERT = "/run/vmbake-convert.sh"

VERSION = re.compile(r"v?(\d+\.\d+(\.\d+)*)")
# A call of createDevice for one of the two, up to its format argument. Other calls look alike:
# disk.sh from 7.63 on attaches a custom boot medium, `"$BOOT"` as raw, at another address.
DISK_LINES = {
    disk: re.compile(
        rf'^(?P<before>[^#\n]*createDevice "\$(?:{disk.upper()}|{disk})" "\$DISK_TYPE" '
        rf'"{index}" "{address}" )"raw"',
        re.MULTILINE,
    )
    for disk, index, address in (("boot", 1, "0xa"), ("system", 2, "0xb"))
}
# The word for QEMU's own user-mode network, where `user` has come to mean another program.
SLIRP = re.compile(r'"slirp"')


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an image of vdsm/virtual-dsm is made up.

    Args:
        version: the release, as the image says it.
        disk_script: the script that attaches the boot and the system disk.
        user_network: what NETWORK must be for QEMU's own user-mode network.
    """

    version: str
    disk_script: str
    user_network: Literal["user", "slirp"]

    def __str__(self) -> str:
        return f"vdsm/virtual-dsm {self.version} (layout of the releases {self.releases})"

    @property
    def releases(self) -> str:
        """The releases that have this layout, in words."""
        return DISK_SCRIPTS[self.disk_script]


def recognise(files: Mapping[str, str]) -> Layout:
    """Find out the layout from the texts of an image's files.

    Args:
        files: path to text, of those of FILES that the image has.

    Raises:
        BadInput: the image has neither layout, or has been changed already.
    """
    require_original(files)
    require_line(files, "install.sh")
    disk_script = require_disk_script(files)
    require_order(files[ENTRY], disk_script)
    return Layout(
        version=require_version(files),
        disk_script=disk_script,
        user_network="slirp" if SLIRP.search(files.get(NETWORK, "")) else "user",
    )


def patched(layout: Layout, files: Mapping[str, str]) -> dict[str, str]:
    """The new texts of the files that have to change, and of the one that is added.

    - the boot and the system disk are attached as qcow2;
    - entry.sh sources our convert.sh right after install.sh.

    Raises:
        BadInput: the files are not those of the layout.
    """
    entry = require_line(files, "install.sh")
    disks = files[layout.disk_script]
    counts = []
    for pattern in DISK_LINES.values():
        disks, count = pattern.subn(r'\g<before>"qcow2"', disks)
        counts.append(count)
    if counts != [1, 1]:
        raise unknown(f"its disk lines are not one and one: {counted(files)}")
    return {
        layout.disk_script: disks,
        ENTRY: f"{files[ENTRY][: entry.end()]}\n. {CONVERT}{files[ENTRY][entry.end() :]}",
        CONVERT: CONVERT_SOURCE.read_text(encoding="utf-8"),
    }


def require_original(files: Mapping[str, str]) -> None:
    """Refuse an image that has been through this before.

    Raises:
        BadInput: it has.
    """
    if CONVERT in files.get(ENTRY, ""):
        raise BadInput(
            f"The base image has been changed by vmbake already: its {ENTRY} sources {CONVERT}.",
            hint="Name the original: --base-image vdsm/virtual-dsm.",
        )


def require_version(files: Mapping[str, str]) -> str:
    """The release that the image says it is.

    Raises:
        BadInput: it doesn't.
    """
    for path in VERSION_FILES:
        if match := VERSION.fullmatch(files.get(path, "").strip()):
            return match[1]
    raise unknown(f"neither {' nor '.join(VERSION_FILES)} holds a version such as 7.41")


def require_line(files: Mapping[str, str], script: str) -> re.Match[str]:
    """The one line of entry.sh that sources a script.

    Raises:
        BadInput: there is none, or more than one.
    """
    if ENTRY not in files:
        raise unknown(f"it has no {ENTRY}")
    found = list(source_lines(script).finditer(files[ENTRY]))
    if len(found) != 1:
        raise unknown(f"{ENTRY} has {len(found)} lines `. {script}`, not one")
    return found[0]


def source_lines(script: str) -> re.Pattern[str]:
    """Matches the lines that source a script of upstream's."""
    name = re.escape(script)
    return re.compile(rf"^[ \t]*(?:\.|source)[ \t]+(?:\./|/run/)?{name}(?:[ \t].*)?$", re.MULTILINE)


def require_disk_script(files: Mapping[str, str]) -> str:
    """The script that holds the line of each of the two disks, once.

    Raises:
        BadInput: none does, or the lines are elsewhere, too.
    """
    counts = {path: disk_lines(files.get(path, "")) for path in DISK_SCRIPTS}
    holders = [path for path, count in counts.items() if any(count.values())]
    if len(holders) == 1 and set(counts[holders[0]].values()) == {1}:
        return holders[0]
    raise unknown(
        'the two lines that attach its boot and system disk as raw (createDevice … "0xa" '
        f'"raw", createDevice … "0xb" "raw") are not once in one script: {counted(files)}'
    )


def disk_lines(text: str) -> dict[str, int]:
    """How many lines attach each of the two disks as raw."""
    return {disk: len(pattern.findall(text)) for disk, pattern in DISK_LINES.items()}


def counted(files: Mapping[str, str]) -> str:
    """What was found of the two lines, in words."""
    return "; ".join(
        f"{path} has {count['boot']} for boot and {count['system']} for system"
        if path in files
        else f"{path} is missing"
        for path in DISK_SCRIPTS
        for count in [disk_lines(files.get(path, ""))]
    )


def require_order(entry: str, disk_script: str) -> None:
    """Check that the images can be converted between being made and being attached.

    Raises:
        BadInput: the disks are attached before they are installed.
    """
    name = Path(disk_script).name
    files = {ENTRY: entry}
    if require_line(files, name).start() < require_line(files, "install.sh").start():
        raise unknown(f"{ENTRY} sources {name} before install.sh")


def unknown(why: str) -> BadInput:
    """The error for an image that is not what this module knows."""
    return BadInput(
        f"The base image is no vdsm/virtual-dsm of a known layout: {why}.",
        hint="Known are 7.41 to 7.65: name one with --base-image (DSM_BASE_IMAGE), such as "
        "vdsm/virtual-dsm:7.41.",
    )
