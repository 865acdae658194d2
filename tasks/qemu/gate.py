"""Whether a saved state fits a machine: all that the two must have in common, compared.

QEMU looks at some of it only. It refuses another machine type, but it takes the state of a guest
that has seen other processor features, and then the guest fails at some later moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from tasks.core.process import Runner
from tasks.qemu.firmware import require_bios, require_uefi
from tasks.qemu.machine import Machine
from tasks.qemu.spec import MachineSpec, devices

SWITCHES = {"on": True, "off": False}
# What is the same for each processor of one model says nothing; these are places, not features.
PLACES = ("core-id", "thread-id", "die-id", "socket-id", "node-id", "apic-id", "memory")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a machine and the state that it is to go on from must have in common.

    Args:
        qemu: version and package.
        machine_type: the versioned one, whatever alias it was started by.
        board: the machine type as it was asked for, with what is switched off.
        cpu_features: each property of the processor, as QEMU expands the model on this host.
        devices: as QEMU is told them, in order.
        firmware: SHA256 of the code that the machine starts with.
    """

    qemu: str
    machine_type: str
    board: str
    accelerator: str
    cpu_model: str
    cpu_features: Mapping[str, Any]
    memory_mb: int
    cores: int
    devices: tuple[str, ...]
    firmware: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Undo to_json.

        Raises:
            KeyError, TypeError: it is something else.
        """
        return cls(**{**data, "devices": tuple(data["devices"])})


def traits_of(vm: Machine, runner: Runner, digest_of: Callable[[Path], str]) -> Traits:
    """The traits of a running machine, or of one that waits for a state.

    Raises:
        MissingTool: its firmware is gone meanwhile.
        MachineFailed, TimedOut: QEMU does not answer.
    """
    spec, version = vm.spec, vm.ask("query-version")
    number = ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro"))
    machine_type = vm.ask("qom-get", {"path": "/machine", "property": "type"})
    model = {"type": "full", "model": cpu_model(spec.accel.cpu)}
    features = vm.ask("query-cpu-model-expansion", model)["model"]["props"]
    return Traits(
        qemu=f"{number} {version['package']}".rstrip(),
        machine_type=str(machine_type).removesuffix("-machine"),
        board=spec.machine_type,
        accelerator=spec.accel.name,
        cpu_model=spec.accel.cpu,
        cpu_features={name: features[name] for name in sorted(features) if name not in PLACES},
        memory_mb=spec.memory_mb,
        cores=spec.cpus,
        devices=devices(spec),
        firmware=digest_of(firmware_of(spec, runner)),
    )


def firmware_of(spec: MachineSpec, runner: Runner) -> Path:
    """The code that the machine starts with.

    Raises:
        MissingTool: it is not installed.
    """
    return require_uefi().code if spec.firmware == "uefi" else require_bios(runner)


def cpu_model(text: str) -> dict[str, Any]:
    """The words of -cpu as QMP takes them: `max,-erms,la57=off` as name and properties."""
    name, *words = text.split(",")
    properties: dict[str, Any] = {}
    for word in words:
        if word[0] in "+-":
            properties[word[1:]] = word[0] == "+"
        else:
            key, _, value = word.partition("=")
            properties[key] = SWITCHES.get(value, value)
    return {"name": name, "props": properties}


def refusal(saved: Traits, here: Traits) -> str:
    """The first thing that a saved state and a machine do not have in common; "": they fit."""
    for field in fields(Traits):
        old, new = getattr(saved, field.name), getattr(here, field.name)
        if old != new:
            return f"{field.name.replace('_', ' ')} was {told(old, new)} and is {told(new, old)}"
    return ""


def told(value: Any, other: Any) -> str:
    """A value in words; of many values only those that the other one has not."""
    match value:
        case Mapping():
            shown = [f"{key}={value[key]}" for key in value if other.get(key) != value[key]]
        case tuple():
            shown = [item for item in value if item not in other] or [f"{len(value)} in this order"]
        case _:
            shown = [str(value)]
    return ", ".join(shown) or "without"
