"""What work on this host may leave behind: processes, mounts, loop devices, by a folder's name."""

from __future__ import annotations

import os
from pathlib import Path

from tests.standins.processes import alive


def left_of(folder: Path) -> list[str]:
    """Processes, mounts and loop devices that have to do with a folder."""
    name = str(folder)
    mounts = [line for line in read(Path("/proc/mounts")).splitlines() if name in line]
    loops = [
        str(backing)
        for backing in Path("/sys/block").glob("loop*/loop/backing_file")
        if name in read(backing)
    ]
    commands = [
        read(command)
        for command in Path("/proc").glob("[0-9]*/cmdline")
        if name in read(command) and command.parent.name != str(os.getpid())
    ]
    return mounts + loops + commands


def daemons(folder: Path, program: str = "qemu-storage-daemon") -> list[int]:
    """The daemons that have an image of the folder open."""
    return [
        int(command.parent.name)
        for command in Path("/proc").glob("[0-9]*/cmdline")
        if read(command).startswith(program) and str(folder) in read(command)
    ]


def descendants(pid: int) -> set[int]:
    """All that a process has started and what these have started, as far as it is there now."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        # After the name, which is in brackets and may hold anything: state, parent.
        if fields := read(stat).rpartition(")")[2].split():
            parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child for child in found - {pid} if alive(child)}


def read(path: Path) -> str:
    """A file of the kernel's; "" if what it is about is gone."""
    try:
        return path.read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""
