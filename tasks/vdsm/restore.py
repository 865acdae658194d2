"""Which machine a snapshot may be restored on: labels that say it, and the comparison.

QEMU compares less than a guest depends on: what it takes without a word is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tasks.vdsm.contract import Machine

LABEL = "org.vmbake.dsm."


class Trait(NamedTuple):
    """Something that a snapshot is tied to.

    Args:
        label: the last part of the label's name.
        title: what people call it.
        of: its value for a machine.
        otherwise: what QEMU does at a restore if it differs (tried with QEMU 7.2).
    """

    label: str
    title: str
    of: Callable[[Machine], str]
    otherwise: str


SILENT = "QEMU loads it without a word, and"
TRAITS = (
    Trait(
        "accel", "accelerator", lambda machine: machine.accel,
        "QEMU refuses a state saved under KVM without it, and the other way round is untried",
    ),
    Trait(
        "cpu-model", "CPU model", lambda machine: machine.cpu_model,
        f"{SILENT} the guest goes on with features that its processor no longer has",
    ),
    Trait(
        "cpu-flags", "CPU flags", lambda machine: machine.cpu_flags,
        f"{SILENT} the guest goes on with features that its processor no longer has",
    ),
    Trait(
        "machine-type", "machine type", lambda machine: machine.machine_type or "q35",
        "QEMU refuses another type or version",
    ),
    Trait("ram-mb", "RAM in MiB", lambda machine: str(machine.ram_mb), "QEMU refuses another size"),
    Trait(
        "cores", "number of cores", lambda machine: str(machine.cores),
        "QEMU refuses another number",
    ),
    Trait(
        "network", "network mode", lambda machine: machine.network,
        "QEMU refuses another backend",
    ),
    Trait(
        "mac", "MAC address", lambda machine: machine.mac.upper(),
        f"{SILENT} DSM keeps the old one: its DHCP lease ends within the hour",
    ),
    Trait(
        "guest-ip", "guest address", lambda machine: machine.guest_ip,
        f"{SILENT} DSM keeps the old one: no port leads to it any more",
    ),
    Trait(
        "disk-gib", "size of the data disk in GiB", lambda machine: str(machine.disk_gib),
        f"{SILENT} the disk has its old size again",
    ),
)  # fmt: skip


def labels(machine: Machine) -> dict[str, str]:
    """What an image with a snapshot of this machine says of it."""
    return {LABEL + trait.label: trait.of(machine) for trait in TRAITS}


def mismatches(machine: Machine, labels: Mapping[str, str]) -> list[str]:
    """Why a snapshot in an image with these labels must not be restored on this machine.

    Each in a sentence; [] if it fits.
    """
    found = []
    for trait in TRAITS:
        saved, wanted = labels.get(LABEL + trait.label), trait.of(machine)
        if saved is None:
            found.append(f"The image doesn't say its {trait.title}: no label {LABEL}{trait.label}.")
        elif saved != wanted:
            found.append(
                f"The {trait.title} is {wanted or '(none)'}; the snapshot was saved with "
                f"{saved or '(none)'}: {trait.otherwise}."
            )
    return found
