"""Copies of a machine that was frozen, each going on from where it was."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tasks.core.stage import Step
from tasks.guest.ssh import Ssh
from tasks.qemu import checkpoint
from tasks.qemu.machine import Machine
from tasks.qemu.spec import MachineSpec
from tasks.vexfs import guest_steps

# As much as the kernel's random number generator is keyed with (256 bits), twice.
ENTROPY_BYTES = 64


def going_on(
    stack: ExitStack,
    step: Step,
    frozen: Path,
    spec: MachineSpec,
    start: Callable[[MachineSpec], AbstractContextManager[Machine]],
) -> Machine:
    """A copy that goes on from the checkpoint in the folder `frozen`, until the stack ends.

    Raises:
        CannotGoOn: it doesn't fit this machine, or is damaged; nothing runs then.
    """
    with ExitStack() as attempt:
        saved = checkpoint.read(frozen)
        thawed = checkpoint.thawed(saved, spec, step.work, step.runner)
        vm = attempt.enter_context(start(thawed))
        checkpoint.go_on(
            saved, vm, step.runner, digest_of=step.digests.of, timeout_s=step.deadline.left_s
        )
        stack.push(attempt.pop_all())
    return vm


def freeze(step: Step, vm: Machine) -> None:
    """Make a checkpoint of the machine in `step.out`; it ends."""
    saved = checkpoint.save(
        vm, step.out, step.runner, digest_of=step.digests.of, timeout_s=step.deadline.left_s
    )
    for name, sha256 in saved.digests.items():
        step.knows_digest(name, sha256)


def wake(ssh: Ssh) -> None:
    """Set the copy's clock, and give it random numbers of its own."""
    ssh.run(wake_script(), what="Waking the copy")


def wake_script() -> str:
    """What brings a copy into the present."""
    words = {"NOW": f"{time.time():.3f}", "ENTROPY": secrets.token_hex(ENTROPY_BYTES)}
    return guest_steps.script("wake.sh", words)
