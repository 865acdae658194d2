"""What a guest takes of the machine that it runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.core.capacity import Cost

if TYPE_CHECKING:
    from tasks.qemu.accel import Name

# What QEMU itself needs beside the guest's memory.
OVERHEAD_MB = 256
# Under KVM a core of the guest takes one of ours only while it works, and in a build it seldom
# does; under TCG each is a thread that translates.
KVM_SHARE = 0.5


def guest_cost(accel: Name, *, memory_mb: int, cpus: int, port: int = 0) -> Cost:
    """The cost of a stage in which one guest runs.

    Args:
        memory_mb, cpus: the guest's.
        port: on 127.0.0.1, forwarded to the guest; 0: any that is free.
    """
    return Cost(
        cores=cpus * KVM_SHARE if accel == "kvm" else cpus,
        memory_bytes=(memory_mb + OVERHEAD_MB) << 20,
        kvm_guests=1 if accel == "kvm" else 0,
        holds=frozenset({f"port {port}"} if port else ()),
    )
