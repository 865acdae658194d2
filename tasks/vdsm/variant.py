"""The two variants of the product: which machine each is for, and what their images are called."""

from __future__ import annotations

from typing import Any, cast

from tasks.vdsm.contract import Accel, Machine, Network

# Of the options, those that a snapshot is tied to.
MACHINE_OPTIONS = ("accel", "network", "memory", "cpus", "disk_size", "mac")


def machine_of(
    *, accel: Any, network: Any, memory: Any, cpus: Any, disk_size: Any, mac: Any, **_: Any
) -> Machine:
    """The machine that the options describe.

    Without KVM the network is QEMU's own by default: such an image is for machines that give a
    container nothing.
    """
    if network == "auto":
        network = "nat" if accel == "kvm" else "user"
    return Machine(
        accel=cast("Accel", accel),
        network=cast("Network", network),
        ram_mb=int(memory),
        cores=int(cpus),
        disk_gib=int(disk_size),
        mac=str(mac).upper(),
    )


def repository(image_name: str, accel: str) -> str:
    """The name of the variant's images."""
    return f"{image_name}-{accel}"


def checkpoint_reference(image_name: str, accel: str, checkpoint: str) -> str:
    """The name of a checkpoint's image."""
    return f"{repository(image_name, accel)}:{CHECKPOINT_PREFIX}{checkpoint}"


CHECKPOINT_PREFIX = "ckpt-"
START_READY = "start-ready"
FINAL = "final"
# In the order in which they come to be.
CHECKPOINTS = (START_READY, "configure-admin", "post-wizard", FINAL)


def checkpoint_named(name: str) -> str:
    """A checkpoint's name without the prefix of its tag, which a user may write or not."""
    return name.removeprefix(CHECKPOINT_PREFIX)
