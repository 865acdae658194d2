"""The disk as it lies there, before its first boot: read by debugfs, without mounting."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import BadInput, CommandFailed
from tasks.core.process import Runner
from tasks.qemu import disk as images
from tasks.qemu.spec import DiskFormat

SECTOR_BYTES = 512
# ext2/3/4: the superblock lies at 1024, its magic number at 56 in it (Linux, fs/ext4/ext4.h).
EXT_MAGIC_AT, EXT_MAGIC = 1024 + 56, b"\x53\xef"
DEBUGFS_TIMEOUT_S = 120.0

# ELF's e_machine (System V ABI, and its supplements), in a header of little-endian byte order.
ELF_MAGIC, ELF_MACHINE_AT = b"\x7fELF", 18
MACHINES = {0x3E: "x86_64", 0xB7: "arm64", 0x03: "i386", 0x28: "arm", 0xF3: "riscv64",
            0x15: "ppc64", 0x16: "s390x", 0x102: "loongarch64"}  # fmt: skip
RUNS_HERE = ("x86_64", "i386")
# Programs that every system has one of, none of them a link.
PROGRAMS = (
    *("/usr/bin/dash", "/usr/bin/bash", "/bin/bash", "/bin/dash", "/usr/bin/busybox"),
    *("/bin/busybox", "/usr/lib/systemd/systemd", "/sbin/init"),
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What debugfs said."""

    command: str
    stdout: str


class SealedDisk:
    """A copy of the image as a raw disk, of which only the root file system is read."""

    def __init__(self, raw: Path, offset: int, runner: Runner) -> None:
        self._where = f"{raw}?offset={offset}"
        self._raw = raw
        self._runner = runner

    def ask(self, request: str) -> Said:
        """One request of debugfs(8), which tells of a missing file in words.

        Raises:
            CommandFailed, TimedOut: debugfs does not read this file system.
        """
        argv = ["debugfs", "-R", request, self._where]
        said = self._runner.output(argv, timeout_s=DEBUGFS_TIMEOUT_S)
        return Said(command=f"debugfs -R '{request}' DISK", stdout=said)

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file out of it; there is no `target` if there is no such file."""
        target.unlink(missing_ok=True)
        self.ask(f'dump {path} "{target}"')

    def machine(self) -> str:
        """The architecture that its programs are for; "" if none of PROGRAMS tells."""
        program = self._raw.with_name("program")
        for path in PROGRAMS:
            self.fetch(path, program)
            with contextlib.suppress(OSError):
                head = program.read_bytes()[:64]
                if head.startswith(ELF_MAGIC):
                    number = int.from_bytes(head[ELF_MACHINE_AT : ELF_MACHINE_AT + 2], "little")
                    return MACHINES.get(number, f"machine {number}")
        return ""


def look_into(disk: Path, format_: DiskFormat, work: Path, runner: Runner) -> SealedDisk | str:
    """The root file system of a disk; or in words why it can't be looked into.

    Raises:
        NoRoom: there is no room for a copy.
    """
    raw = work / "disk.raw"
    images.convert(runner, disk, format_, raw, "raw")
    offset = find_root(raw, runner)
    if offset is None:
        return "The root file system is not ext4; without a boot only that can be looked into."
    root = SealedDisk(raw, offset, runner)
    # debugfs tells of what it can't read in words only: all answers would then look empty.
    if "Type: directory" not in root.ask("stat /etc").stdout:
        raise BadInput("The root file system of the image has no folder /etc, or is damaged.")
    return root


def find_root(raw: Path, runner: Runner) -> int | None:
    """Where the largest ext file system begins, in bytes; None if there is none.

    Raises:
        BadInput: the partition table is damaged.
    """
    if is_ext(raw, 0):
        return 0
    starts = [start for start, _ in sorted(partitions(raw, runner), key=lambda part: -part[1])]
    return next((start for start in starts if is_ext(raw, start)), None)


def partitions(raw: Path, runner: Runner) -> list[tuple[int, int]]:
    """Start and size of each partition, in bytes; none if there is no table."""
    try:
        table = json.loads(runner.output(["sfdisk", "--json", raw]))["partitiontable"]
    except CommandFailed as error:
        if any("does not contain a recognized partition table" in line for line in error.tail):
            return []
        raise BadInput(
            f"The partition table is damaged: {error.tail[-1] if error.tail else error.what}",
            tail=error.tail,
        ) from error
    bytes_each = int(table.get("sectorsize", SECTOR_BYTES))
    return [
        (int(part["start"]) * bytes_each, int(part["size"]) * bytes_each)
        for part in table.get("partitions", ())
    ]


def is_ext(raw: Path, offset: int) -> bool:
    """Whether an ext file system begins there."""
    with raw.open("rb") as stream:
        stream.seek(offset + EXT_MAGIC_AT)
        return stream.read(len(EXT_MAGIC)) == EXT_MAGIC


def require_runnable(disk: SealedDisk) -> None:
    """Check that the disk is for machines like the ones that are started here.

    Raises:
        BadInput: it is for another architecture.
    """
    machine = disk.machine()
    if machine and machine not in RUNS_HERE:
        raise BadInput(
            f"The image is for another architecture: its programs are for {machine}, "
            "and machines here are x86_64."
        )


def sizes_in(listing: str) -> list[int]:
    """The sizes that debugfs's `stat` gives."""
    return [int(size) for size in re.findall(r"Size: (\d+)", listing)]
