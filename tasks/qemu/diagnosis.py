"""Why a QEMU did not start, from its own words."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.core.errors import Busy, CannotRun, MachineFailed, VmbakeError
from tasks.core.process import describe_status, tail_of
from tasks.qemu.spec import MachineSpec


def explain_start(status: int | None, spec: MachineSpec, log: Path) -> VmbakeError:
    """Why QEMU never answered, from its own words."""
    tail = last_words(log)
    said = "\n".join(tail)
    if "Could not set up host forwarding rule" in said:
        return Busy(
            f"The port {spec.ssh_port} on 127.0.0.1 is in use, so the machine {spec.name} can't "
            "have it for SSH.",
            hint="Name another port, or none: then a free one is taken.",
            log=log,
        )
    if 'Failed to get "' in said and "lock" in said:
        return Busy(
            f"Another machine has a disk of {spec.name} open.",
            hint="Wait for it to end, or stop it.",
            log=log,
            tail=tail,
        )
    if re.search(r"Could not access KVM|failed to initialize kvm|MSR 0x", said, re.IGNORECASE):
        return CannotRun(
            "QEMU can't use KVM here.",
            hint="`inv doctor` says what is wrong; --accel tcg does without.",
            log=log,
            tail=tail,
        )
    how = "did not answer" if status is None else f"ended at once ({describe_status(status)})"
    reason = f": {tail[-1]}" if tail else "."
    return MachineFailed(
        f"QEMU {how} when the machine {spec.name} was started{reason}", log=log, tail=tail
    )


# A general protection fault counts in a guest's first two seconds, while its kernel patches itself.
TCG_FAULT = re.compile(r"Oops: int3|\[ *[01]\.\d+\] Oops: general protection fault")


def is_tcg_fault(error: MachineFailed, accel_name: str) -> bool:
    """Whether a guest died of a race in TCG, so that it is worth to start it again.

    Before 8.1, QEMU may run code that the guest's kernel has just patched as it was in the middle
    of the patch: a breakpoint that nobody set (QEMU commits cb62bd15e1 and deba78709a). On a busy
    machine that is one boot in thirty. Rarer is a general protection fault at that time, when
    nothing but the distribution's kernel has run.
    """
    return accel_name == "tcg" and any(TCG_FAULT.search(line) for line in (error.what, *error.tail))


def last_words(log: Path) -> tuple[str, ...]:
    """What QEMU wrote itself; its command line is in the same file."""
    return tuple(line for line in tail_of(log) if not line.startswith("# "))
