"""Runs a command in vmbake's container, and ends it when the caller is gone, however that ended.

    entry.py CHECKOUT COMMAND…

Standard input is no input: scripts/in-container holds its other end, and whatever kills that, or
Docker's client, closes it. What the command wrote to the checkout is given to the checkout's owner.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

LOOP_MAJOR = 7
KVM = (10, 232)
# The kernel names the free loop device, and a container has only the nodes that were made in it.
LOOPS = 256
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# As the shell has it for a program that a signal ended.
SIGNALLED = 128
GRACE_S = 60.0
NOT_OURS = (".git", ".venv")


def main(checkout: Path, command: list[str]) -> int:
    """Run the command to its end; its status."""
    make_nodes(Path("/dev"))
    child = Child(command)
    threading.Thread(target=child.end_with_the_caller, daemon=True).start()
    status = child.wait()
    give_back(checkout)
    return status if status >= 0 else SIGNALLED - status


class Child:
    """The command; signals that this process gets are meant for it."""

    def __init__(self, command: list[str]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        for number in SIGNALS:
            signal.signal(number, self._pass_on)
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        for early in self._early:
            self._process.send_signal(early)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)

    def end_with_the_caller(self) -> None:
        """Wait until standard input ends, then end the command: ask, wait, kill."""
        while os.read(sys.stdin.fileno(), 4096):
            pass
        assert self._process is not None
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self._process.kill()

    def wait(self) -> int:
        """Its status when it has ended; negative: the signal that ended it."""
        assert self._process is not None
        return self._process.wait()


def make_nodes(dev: Path) -> None:
    """Make the nodes of all loop devices, and of KVM if the kernel has it.

    Those of devices that come to be later appear on the host only.
    """
    shift = loop_shift(Path("/sys/module/loop/parameters/max_part"))
    for number in range(LOOPS):
        make_node(dev / f"loop{number}", stat.S_IFBLK, (LOOP_MAJOR, number << shift))
    if "kvm" in Path("/proc/misc").read_text().split():
        make_node(dev / "kvm", stat.S_IFCHR, KVM)


def loop_shift(parameter: Path) -> int:
    """By how many bits the numbers of loop devices are apart: as for their partitions."""
    try:
        return int(parameter.read_text()).bit_length()
    except OSError:
        return 0


def make_node(path: Path, kind: int, number: tuple[int, int]) -> None:
    """Make a device node that is for root, unless it is there."""
    with contextlib.suppress(FileExistsError):
        os.mknod(path, kind | 0o600, os.makedev(*number))


def give_back(checkout: Path) -> None:
    """Give root's files in a checkout to the one whose checkout it is."""
    owner = checkout.stat()
    for folder, names, files in os.walk(checkout):
        if folder == str(checkout):
            names[:] = [name for name in names if name not in NOT_OURS]
        for name in (*names, *files):
            path = os.path.join(folder, name)
            # Another run may be at work there.
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_uid != owner.st_uid and os.lstat(path).st_uid == 0:
                    os.lchown(path, owner.st_uid, owner.st_gid)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
