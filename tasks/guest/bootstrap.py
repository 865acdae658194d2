"""mmdebstrap: how it is called, as whom, and what its failures mean."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.core.errors import (
    BadInput,
    CannotRun,
    CommandFailed,
    DownloadFailed,
    NoRoom,
    VerificationFailed,
    VmbakeError,
)
from tasks.core.events import Reporter
from tasks.core.process import Runner
from tasks.core.tools import require_tool
from tasks.guest.scratch import remove_tree

Mode = Literal["root", "unshare"]

RELEASES = ("bookworm", "trixie")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUB_IDS = 65536
FIRST_SUB_ID = 100000

# As root, mmdebstrap mounts in the namespace that it is started in, and on SIGTERM it first lets
# apt finish. In namespaces of its own, processes and mounts end with it; unshare takes SIGTERM for
# the child's business, so that SIGKILL has to tell it that vmbake is gone.
PRIVATE = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)

# mmdebstrap(1): what it says of its own progress starts so.
STEP_LINE = re.compile(r"^I: (?P<step>[a-z][a-z ]+)\.\.\.")
# What the archive or the disk did, in the words of apt, dpkg and libc.
CAUSES: tuple[tuple[re.Pattern[str], type[VmbakeError], str, str], ...] = (
    (
        re.compile(r"No space left on device"),
        NoRoom,
        "The disk filled up.",
        "Free some room and run the same command again.",
    ),
    (
        re.compile(r"Could not allocate (block|inode) in ext2 filesystem"),
        BadInput,
        "What was installed does not fit on the disk to be made.",
        "Ask for a larger disk.",
    ),
    (
        re.compile(r"NO_PUBKEY|BADSIG|EXPKEYSIG|is not signed|Hash Sum mismatch|couldn't be verif"),
        VerificationFailed,
        "The package archive is not signed by Debian's keys, or its files are not those signed.",
        "Use another --mirror; on an old system, upgrade the package debian-archive-keyring.",
    ),
    (
        re.compile(r"Unable to locate package (\S+)|Package '?(\S+?)'? has no installation cand"),
        BadInput,
        "The release has no package of that name.",
        "Check the package names of the variant.",
    ),
    (
        re.compile(
            r"Temporary failure resolving|Could not resolve|Failed to fetch|Unable to connect"
            r"|Connection (refused|timed out|failed)|Could not connect"
            r"|does not have a Release file"
        ),
        DownloadFailed,
        "The package archive could not be read.",
        "Check the network, or name a reachable archive with --mirror.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One run of mmdebstrap.

    Args:
        variant: see mmdebstrap(1); `apt` installs, `custom` leaves all to the hooks.
        setup, customize: hooks in mmdebstrap's own words, before and after it installs.
    """

    mode: Mode
    variant: Literal["apt", "custom"]
    release: str
    packages: tuple[str, ...]
    mirror: str | None
    setup: tuple[str, ...] = ()
    customize: tuple[str, ...] = ()


def mmdebstrap_argv(call: Call, target: Path) -> tuple[str, ...]:
    """The command line."""
    argv = [
        *(PRIVATE if call.mode == "root" else ()),
        "mmdebstrap",
        "--verbose",
        f"--mode={call.mode}",
        f"--variant={call.variant}",
        "--format=directory",
        "--architectures=amd64",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        *(f"--setup-hook={hook}" for hook in call.setup),
        *(f"--customize-hook={hook}" for hook in call.customize),
        *((f"--include={','.join(call.packages)}",) if call.packages else ()),
        call.release,
        str(target),
    ]
    if call.mirror:
        argv += source_lines(call.release, call.mirror)
    return tuple(argv)


def source_lines(release: str, mirror: str) -> list[str]:
    """apt's sources for a mirror that the user named.

    Security updates are in the sibling archive, as on Debian's own servers: `…/debian` and
    `…/debian-security`.
    """
    main = mirror.rstrip("/")
    return [
        f"deb {main} {release} main",
        f"deb {main} {release}-updates main",
        f"deb {main}-security {release}-security main",
    ]


def bootstrap(call: Call, target: Path, *, runner: Runner, reporter: Reporter) -> None:
    """Make a root file system in the directory `target`, which mmdebstrap creates.

    Raises:
        DownloadFailed, VerificationFailed, NoRoom, BadInput: what the archive or the disk did.
        CommandFailed: anything else; the log has it.
        MissingTool, TimedOut: as Runner.run.
    """
    seen: list[str] = []
    report = reporting(reporter)

    def watch(line: str) -> None:
        report(line)
        if line.startswith(("E: ", "W: ", "Err:")) or "No space left" in line:
            seen.append(line)

    env = {
        # Not after each package that has to do with it: the initramfs is made once, at the end.
        "INITRD": "No",
        # What it leaves if it is killed goes with the folder that it worked in.
        "TMPDIR": str(target.parent),
    }
    try:
        runner.run(mmdebstrap_argv(call, target), on_line=watch, env=env)
    except CommandFailed as error:
        raise explain(error, seen) from error


def reporting(reporter: Reporter) -> Callable[[str], None]:
    """A reader of mmdebstrap's lines that tells the steps."""

    def read(line: str) -> None:
        if found := STEP_LINE.match(line):
            reporter.say(found["step"])

    return read


def explain(error: CommandFailed, lines: Sequence[str]) -> VmbakeError:
    """The same failure under the name of its cause, if one of the lines tells it."""
    for pattern, kind, what, hint in CAUSES:
        for line in lines:
            if pattern.search(line):
                said = line.strip().removeprefix("E: ")
                return kind(
                    f"{error.what} {what} It said: {said}",
                    hint=hint,
                    log=error.log,
                    tail=error.tail,
                )
    return error


def require_mode() -> Mode:
    """`root` for root, `unshare` for anybody else who may have subordinate IDs.

    Raises:
        MissingTool: mmdebstrap is not installed.
        CannotRun: a user without subordinate IDs; or Debian's keys are not there.
    """
    require_tool("mmdebstrap")
    if not KEYRING.exists():
        raise CannotRun(
            f"The keys of Debian's archive are not there ({KEYRING}).",
            hint="Install the package debian-archive-keyring.",
        )
    if os.geteuid() == 0:
        return "root"
    require_tool("newuidmap")
    user = pwd.getpwuid(os.getuid()).pw_name
    missing = missing_sub_ids(user, os.getuid())
    if missing:
        raise CannotRun(
            f"The user {user} has no {SUB_IDS} subordinate IDs in {' and '.join(missing)}, "
            "which mmdebstrap needs to work without root.",
            hint=f"Run: {sub_ids_fix(user)}",
        )
    return "unshare"


def missing_sub_ids(user: str, uid: int, folder: Path = Path("/etc")) -> list[str]:
    """Those of subuid(5) and subgid(5) that give the user too few IDs."""
    return [
        str(path)
        for path in (folder / "subuid", folder / "subgid")
        if not any(
            owner in (user, str(uid)) and count >= SUB_IDS for owner, _, count in sub_ids(path)
        )
    ]


def sub_ids_fix(user: str, folder: Path = Path("/etc")) -> str:
    """The command that gives the user the first range that nobody has."""
    ranges = [*sub_ids(folder / "subuid"), *sub_ids(folder / "subgid")]
    first = max((start + count for _, start, count in ranges), default=FIRST_SUB_ID)
    first = max(first, FIRST_SUB_ID)
    span = f"{first}-{first + SUB_IDS - 1}"
    return f"sudo usermod --add-subuids {span} --add-subgids {span} {user}"


def sub_ids(path: Path) -> list[tuple[str, int, int]]:
    """The ranges in a subuid(5) file: owner, first ID, number of IDs; [] without the file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    fields = [line.split(":") for line in lines if line.count(":") == 2]
    return [(owner, int(start), int(count)) for owner, start, count in fields]


def tree_remover(mode: Mode, runner: Runner) -> Callable[[Path], None]:
    """What removes a work directory whose `root` mmdebstrap made, whoever owns the files in it."""

    def remove(path: Path) -> None:
        root = path / "root"
        if mode == "unshare" and root.exists():
            # Emptied by its owner, removed by the owner of the directory it is in.
            with contextlib.suppress(CommandFailed):
                runner.run(
                    [*in_namespace(mode), "find", root, "-xdev", "-mindepth", "1", "-delete"]
                )
        remove_tree(path)

    return remove


def in_namespace(mode: Mode) -> tuple[str, ...]:
    """Words before a command that let it work on what mmdebstrap made, as its root."""
    return () if mode == "root" else ("mmdebstrap", "--unshare-helper")
