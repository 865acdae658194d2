"""Disks that vmbake did not make, filled natively: what they are, and a toolchain of their own.

All that comes from elsewhere is installed by the disk's own apt: what compiles, in an overlay that
is thrown away when the toolchain has been packed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.core.errors import BadInput, CommandFailed
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.guest import cloudconfig, native, toolchain
from tasks.vexfs import bases, compilers, guest_steps, natively
from tasks.vexfs.options import CLOUD_INIT

# The exit status by which toolchain.sh says that there are no headers.
NO_HEADERS = 74
REASON = "vmbake: "


def adopt(step: Step, image: Path) -> Facts:
    """Give the root of a foreign disk all its room, and look at what is in it.

    Args:
        image: a qcow2, which is changed.

    Raises:
        BadInput: it can't be filled natively.
    """
    step.say("looking into the disk")
    lines: list[str] = []
    try:
        natively.enter(step, image, natively.script({}, "look.sh"), lines, adopt=True)
    except CommandFailed as error:
        if error.status != native.UNSUPPORTED:
            raise
        raise BadInput(
            f"The native engine can't fill {step.params['base']}: {reason_in(lines)}.",
            hint="If the disk boots by itself, a guest can be tried, which is slower: --engine vm.",
            log=error.log,
        ) from error
    return {"kernel": guest_steps.facts_in(lines)["kernel"]}


def reason_in(lines: list[str]) -> str:
    """What the last line says that is from a script of ours."""
    ours = [line.strip() for line in lines if line.startswith(REASON)]
    return ours[-1].removeprefix(REASON) if ours else "nothing says why"


def install_compilers(
    step: Step, base: Result, packages: tuple[str, ...], *, offline: bool
) -> Facts:
    """Make the toolchain of a foreign base out of its own distribution's packages.

    Raises:
        CannotRun: offline.
        BadInput: the archive has no headers of the disk's kernel, or no package of a name.
        DownloadFailed, NoRoom, CommandFailed: what the archive or the disk did.
    """
    natively.require_downloads(f"The compilers of {step.params['base']}", offline=offline)
    kernel = str(base.facts["kernel"])
    words = {
        "PACKAGES": " ".join(
            (*cloudconfig.packages_of(CLOUD_INIT, cloudconfig.TOOLCHAIN), *packages)
        ),
        "KVER": kernel,
        "SQUASHFS": " ".join(toolchain.SQUASHFS),
        "IMAGE": compilers.NATIVE,
    }
    lines: list[str] = []
    step.say("installing the compilers in an overlay")
    try:
        natively.work_on(
            step,
            base.path(bases.DISK),
            natively.script(words, "apt.sh", "toolchain.sh"),
            lines,
            network=True,
        )
    except CommandFailed as error:
        if error.status == NO_HEADERS:
            raise BadInput(
                f"Nothing can be compiled for {step.params['base']}: its archive has no headers "
                f"for its kernel {kernel}.",
                hint=natively.UPGRADE,
                log=error.log,
            ) from error
        raise natively.explain(error, lines, own=False) from error
    shutil.move(natively.share(step) / compilers.NATIVE, step.out / compilers.NATIVE)
    return {"kernel": kernel}
