"""Works on disk images without a machine: a mounted root file system, entered as a container.

Everything happens in namespaces that end with their first process, and that ends with this one,
even by SIGKILL: no mount, loop device or daemon can stay behind (scripts/native/ has the steps).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import CommandFailed, MachineFailed, NoRoom, VmbakeError
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.guest import mounter
from tasks.qemu.disk import FULL_BYTES

SCRIPTS = Path(__file__).parents[2] / "scripts" / "native"
# The exit statuses by which with-disk.sh, and with-toolchain.sh for 70, say what went wrong.
DAEMON_DIED = 70
NOT_WRITTEN = 72
# The disk is of a kind that can't be opened, or worked on; the last line says why.
UNSUPPORTED = 73
IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APART = ("unshare", "--uts", "--ipc", "--net", "--")
SCRIPT = "inside.sh"


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What is done in the root of a disk.

    Args:
        script: for the image's own sh, which runs it as root; it finds `share` as /run/vmbake.
        share: a folder of the host.
        cmdline: the kernel's command line, as the script sees it.
        network: whether the script can reach the host's network.
        adopt: vmbake did not make the disk; its root is looked at first, and given all the room.
        env: more environment variables.
    """

    script: str
    share: Path
    hostname: str
    cmdline: str = ""
    network: bool = False
    adopt: bool = False
    env: dict[str, str] = field(default_factory=dict)


def run_in_disk(
    image: Path,
    inside: Inside,
    work: Path,
    *,
    runner: Runner,
    timeout_s: float,
    on_line: Callable[[str], None],
) -> None:
    """Run a script in the root file system of a qcow2 image, and write all of it to the image.

    Args:
        image: an image that nobody else has open; its largest partition is an ext4 root, and its
            /boot may be on another.
        work: a folder for what is needed meanwhile.

    Raises:
        CommandFailed: the script failed, or the image could not be opened (UNSUPPORTED is the
            status if it is of a wrong kind).
        MachineFailed: a daemon that gives access to the image died, or the host's disk fails.
        NoRoom: the host's disk filled up.
        TimedOut: it took longer than `timeout_s` seconds.
    """
    room = work / "native"
    room.mkdir()
    (inside.share / SCRIPT).write_text(inside.script)
    (inside.share / "hostname").write_text(f"{inside.hostname}\n")
    (inside.share / "cmdline").write_text(f"{inside.cmdline}\n")
    if inside.adopt:
        (inside.share / "adopt").touch()
    network = "yes" if inside.network else "no"
    way = mounter.choose()
    argv: list[str | Path] = ["sh", SCRIPTS / "with-disk.sh", image, room, network, inside.share]
    argv.append(way.name)
    words = [*way.namespaces, *argv]
    # As the image has it, not the host.
    env = {"PATH": IMAGE_PATH, "HOME": "/root", "USER": "root", "TMPDIR": "/tmp"}  # noqa: S108
    try:
        runner.run(words, env=env | inside.env, timeout_s=timeout_s, on_line=on_line)
    except CommandFailed as error:
        raise explain(error, image.parent) from error


def explain(error: CommandFailed, folder: Path) -> VmbakeError:
    """The failure by its cause; `folder` is where the work was done."""
    again = "Run the same command again: it begins with this stage."
    # Programs have many words for a full disk, and the daemon has one of its own for each file.
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FULL_BYTES:
        what = f"The disk filled up: {folder} has {free_bytes >> 20} MiB free now."
        return NoRoom(what, hint=f"Free some space. {again}", log=error.log, tail=error.tail)
    if error.status == DAEMON_DIED:
        what = "A daemon that gives access to the image died (the last line says which)."
        return MachineFailed(what, hint=again, log=error.log, tail=error.tail)
    if error.status != NOT_WRITTEN:
        return error
    what = f"The disk of {folder} did not take all that was written to the image."
    hint = f"The kernel's log (dmesg) says why. {again}"
    return MachineFailed(what, hint=hint, log=error.log, tail=error.tail)


def run_with_toolchain(
    toolchain: Path,
    source: Path,
    script: str,
    work: Path,
    *,
    cached: Mapping[str, Path],
    runner: Runner,
    timeout_s: float,
    on_line: Callable[[str], None],
) -> Path:
    """Run a script of the host's sh with a toolchain's image and a source tree mounted for it.

    Returns the folder with what the script left in /run/vmbake/results.

    Args:
        toolchain: a squashfs (tasks.guest.toolchain makes them).
        source: the script sees it as /run/vmbake/source.
        cached: files of which it finds copies in /tmp/cache of the toolchain's root, by name.

    Raises:
        CommandFailed, MachineFailed, NoRoom, TimedOut: as run_in_disk.
    """
    room = work / "toolchain"
    room.mkdir()
    (room / SCRIPT).write_text(script)
    copies = room / "tmp" / "cache"
    copies.mkdir(parents=True)
    for name, path in cached.items():
        shutil.copyfile(path, copies / name)
    argv: list[str | Path] = ["sh", SCRIPTS / "with-toolchain.sh"]
    way = mounter.choose()
    argv += [toolchain, source, room, room / SCRIPT, way.name]
    try:
        runner.run([*way.namespaces, *APART, *argv], timeout_s=timeout_s, on_line=on_line)
    except CommandFailed as error:
        raise explain(error, work) from error
    return room / "results"


def obstacles(
    *,
    devices: tuple[Path, ...] | None = None,
    status: Path = Path("/proc/self/status"),
    platform: str = sys.platform,
) -> list[str]:
    """What this process lacks to work on disk images natively; [] if nothing.

    Args:
        devices: instead of those that the mounter needs.
    """
    if platform != "linux":
        return ["Linux"]
    way = mounter.choose()
    needed = way.devices if devices is None else devices
    missing = mounter.missing_rights(way, status)
    missing += [str(path) for path in needed if not os.access(path, os.R_OK | os.W_OK)]
    missing += [f"the program {tool}" for tool in way.tools if find_tool(tool) is None]
    return missing
