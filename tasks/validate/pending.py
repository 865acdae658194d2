"""Security updates that an image lacks, found out on the host: its guests reach no server.

apt itself compares, with the image's list of packages and the image's own sources, in folders of
its own; nothing of the host's packages is looked at or changed.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tasks.artifacts.checks import Check, Outcome
from tasks.core.errors import CommandFailed, TimedOut, VmbakeError
from tasks.core.process import Runner
from tasks.core.tools import find_tool
from tasks.validate.catalogue import Spec
from tasks.validate.checking import check_of
from tasks.validate.sealed import SealedDisk

VARIANTS = ("production",)
APT_TIMEOUT_S = 120.0
STATUS = "/var/lib/dpkg/status"
SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources",
           "/etc/apt/sources.list.d/ubuntu.sources")  # fmt: skip
# `apt-get -s` says: Inst NAME [OLD] (NEW Debian-Security:13/stable-security [amd64])
SECURITY = re.compile(r"^Inst (\S+) \[\S+\] \(\S+ [^)]*security", re.IGNORECASE)

SPEC = Spec(
    group="hardening",
    name="no pending security updates",
    command="apt-get update && apt-get -s dist-upgrade",
    expected="none, by the image's own sources",
    variants=VARIANTS,
)


def check(disk: SealedDisk | str, work: Path, runner: Runner) -> Check:
    """Whether the image's packages are those that its security archive has now."""
    if isinstance(disk, str):
        return check_of(SPEC, "skipped", reason=disk)
    if find_tool("apt-get") is None:
        return check_of(SPEC, "skipped", reason="This host has no apt to compare with.")
    since = time.monotonic()
    root = work / "apt"
    try:
        options = prepared(disk, root)
        runner.run(["apt-get", *options, "update"], timeout_s=APT_TIMEOUT_S)
    except (CommandFailed, TimedOut) as error:
        last = error.tail[-1] if error.tail else error.what
        reason = f"The image's package servers can't be asked from here: {last}"
        return check_of(SPEC, "skipped", reason=reason, output="\n".join(error.tail))
    try:
        said = runner.output(["apt-get", *options, "-s", "dist-upgrade"], timeout_s=APT_TIMEOUT_S)
    except VmbakeError as error:
        return check_of(SPEC, "error", reason=error.what, output="\n".join(error.tail))
    names = pending(said)
    reason = f"{len(names)} packages have newer versions: {', '.join(names)}." if names else ""
    seconds = time.monotonic() - since
    outcome: Outcome = "failed" if names else "passed"
    return check_of(SPEC, outcome, reason=reason, output=said, seconds=seconds)


def prepared(disk: SealedDisk, root: Path) -> tuple[str, ...]:
    """Folders for apt with the image's status and sources; the options that have it use them."""
    for folder in ("state/lists/partial", "cache/archives/partial", "sources"):
        (root / folder).mkdir(parents=True)
    status = root / "status"
    disk.fetch(STATUS, status)
    for path in SOURCES:
        disk.fetch(path, root / "sources" / Path(path).name.replace("sources.list", "main.list"))
    settings = {
        "Dir::State": root / "state",
        "Dir::State::status": status,
        "Dir::Cache": root / "cache",
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": root / "sources",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
    }
    return tuple(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))


def pending(said: str) -> list[str]:
    """The packages that a security archive has newer."""
    return [match[1] for line in said.splitlines() if (match := SECURITY.match(line))]
