"""Who mounts the file systems of disk images here: the kernel for root, fuse2fs for anybody else.

The kernel lets only the machine's own root mount ext4. In a user namespace whoever has subordinate
IDs may mount FUSE, and files of any owner can be made there, as mmdebstrap does without root.
"""

from __future__ import annotations

import functools
import os
import pwd
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.core.errors import CommandFailed, MissingTool
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.guest import bootstrap

Name = Literal["kernel", "fuse2fs"]

# capabilities(7): mounting and namespaces, entering a root, files of any owner, the host's name.
CAP_SYS_ADMIN = 1 << 21
PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Mounter:
    """A way to open a disk image.

    Args:
        namespaces: words before a command that give it namespaces of its own, in which it is
            root, and end it with this process.
        devices, tools: what it needs; the rest of what the scripts call comes with these.
        how: a remark for the reason of a choice; "" if none is due.
    """

    name: Name
    namespaces: tuple[str, ...]
    devices: tuple[Path, ...]
    tools: tuple[str, ...]
    how: str


KERNEL = Mounter(
    name="kernel",
    namespaces=bootstrap.PRIVATE,
    devices=(Path("/dev/fuse"), Path("/dev/loop-control")),
    tools=("qemu-storage-daemon", "unshare", "partx"),
    how="",
)
FUSE2FS = Mounter(
    name="fuse2fs",
    namespaces=(
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--user", "--map-auto", "--map-root-user"),
        *("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
    ),
    devices=(Path("/dev/fuse"),),
    tools=(*KERNEL.tools, "fuse2fs", "squashfuse", "newuidmap"),
    how="in a user namespace, because only root may mount without",
)


def choose() -> Mounter:
    """The way for this user."""
    return KERNEL if os.geteuid() == 0 else FUSE2FS


def capabilities(status: Path) -> int:
    """The effective capabilities of a process (CapEff of proc(5)); 0 if they can't be read."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def missing_rights(mounter: Mounter, status: Path, ids: Path = Path("/etc")) -> list[str]:
    """The rights that this process lacks to open disks in this way; [] if none.

    Args:
        status: the process's file of proc(5).
        ids: the folder with subuid(5) and subgid(5).
    """
    if mounter.name == "kernel":
        if capabilities(status) & CAP_SYS_ADMIN:
            return []
        return ["the right to mount (root with CAP_SYS_ADMIN)"]
    user = user_name()
    if missing := bootstrap.missing_sub_ids(user, os.getuid(), ids):
        fix = bootstrap.sub_ids_fix(user, ids)
        return [f"subordinate IDs for {user} in {' and '.join(missing)} ({fix})"]
    refusal = namespace_refusal()
    return [f"user namespaces ({refusal})"] if refusal else []


def user_name() -> str:
    """Whose subordinate IDs count; the number, if the user has no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@functools.cache
def namespace_refusal() -> str:
    """What the kernel or its tools say to a user namespace with mounts of its own; "" if it works.

    Containers and some distributions refuse it, each by a setting of its own.
    """
    if any(find_tool(tool) is None for tool in ("unshare", "newuidmap", "newgidmap")):
        return ""  # named as missing programs
    with tempfile.TemporaryDirectory() as folder:
        words = [*FUSE2FS.namespaces, "mount", "-t", "tmpfs", "tmpfs", folder]
        try:
            Runner(Path(folder) / "log").run(words, timeout_s=PROBE_TIMEOUT_S)
        except CommandFailed as error:
            return error.tail[-1].strip() if error.tail else error.what
        except MissingTool as error:
            return error.what
    return ""
