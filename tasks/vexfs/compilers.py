"""The toolchain: compilers and kernel headers on a disk of their own, never in the image."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.guest import cloudconfig, toolchain
from tasks.qemu.accel import Accel
from tasks.qemu.machine import Machine
from tasks.vexfs import bases, building, natively, seed

DISK_ID = "toolchain"
# Made natively: a file system of its own. Made in a guest: its whole disk, over the base.
NATIVE = toolchain.IMAGE
FROM_GUEST = "toolchain.qcow2"


def unpack(
    step: Step,
    base: str,
    packages: tuple[str, ...],
    mirror: str,
    *,
    offline: bool,
    headers: Path | None = None,
) -> Facts:
    """Unpack the compilers of a Debian base's release, with a kernel's headers.

    Args:
        offline: nothing may be downloaded.
        headers: a directory with their .deb files; None: those of the archive's kernel.

    Raises:
        CannotRun: offline.
        DownloadFailed, VerificationFailed, NoRoom, CommandFailed: what the archive or the disk did.
    """
    natively.require_downloads(f"The compilers of {base}", offline=offline)
    kernel = toolchain.build(
        bases.DEBIAN[base],
        headers,
        step.out,
        packages=packages,
        mirror=mirror or None,
        # The base is made meanwhile, and takes longer.
        runner=step.runner.giving_way(),
        reporter=step,
    )
    return {"kernel": kernel}


def take_over(step: Step, ready: Result) -> Facts:
    """Make another result's toolchain this one's, too, without a copy of its bytes."""
    (step.out / NATIVE).hardlink_to(ready.path(NATIVE))
    step.knows_digest(NATIVE, ready.outputs[NATIVE]["sha256"])
    return {"kernel": ready.facts["kernel"]}


def install_in_guest(
    step: Step, base: Result, packages: tuple[str, ...], accel: Accel, memory_mb: int, cpus: int
) -> Facts:
    """Install the compilers in a guest of the base, which knows its own headers and archive."""
    keys = step.work / "keys"
    keys.mkdir()
    seed.make_keys(keys, step.runner)
    files = seed.render(
        variant=cloudconfig.TOOLCHAIN,
        version="0",
        keys=keys,
        more_packages=packages,
    )
    seed.write(step.work, files)
    parts = building.Parts(base=base, keys=keys, seed=step.work / "seed.iso")
    with building.first_boot(step, parts, accel, memory_mb, cpus) as vm:
        step.say("shutting the guest down")
        vm.poweroff(step.deadline.left_s)
    shutil.move(step.work / building.MACHINE_DISK, step.out / FROM_GUEST)
    return {}


def plug_in(vm: Machine, made: Result) -> None:
    """Give a running machine the toolchain as a further, read-only disk."""
    if NATIVE in made.outputs:
        vm.attach_disk(made.path(NATIVE), DISK_ID, "raw")
    else:
        vm.attach_disk(made.path(FROM_GUEST), DISK_ID, "qcow2")
