"""What the stages stand on beside each other, and what can be known to go wrong beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from invoke.tasks import Call

from tasks.core.capacity import Cost
from tasks.core.errors import CannotRun, NoRoom, VmbakeError
from tasks.core.process import Runner
from tasks.core.stage import Site, Stage
from tasks.docker.engine import connect
from tasks.qemu import accel as accelerators
from tasks.qemu import cost as guests
from tasks.vdsm import contract, provisioning, restore
from tasks.vdsm.variant import checkpoint_named, machine_of

GB = 1_000_000_000
MIB = 1 << 20
# Upstream's installer wants 14 GB in its storage; the committed layer is written beside it.
ENGINE_BYTES = 15_032_385_536


def machine(site: Site, **params: Any) -> dict[str, str]:
    """The machine as inputs: what `auto` means is what counts."""
    return {
        f"machine {label.removeprefix(restore.LABEL)}": value
        for label, value in restore.labels(machine_of(**params)).items()
    }


def wizard_code(command: str) -> Callable[..., dict[str, str]]:
    """A hook: the code of a command of scripts/provision_dsm.py."""
    return lambda site, **_: provisioning.code_of([command], site)


def first_boot(site: Site, **params: Any) -> dict[str, str]:
    """The machine, and what waits for the wizard."""
    return machine(site, **params) | provisioning.code_of(["wait-for-boot"], site)


def rest_of_the_wizard(site: Site, *, checkpoints: str, **_: Any) -> dict[str, str]:
    """The code of the steps that no checkpoint before the last one has behind it."""
    rest = provisioning.STEPS[-1:] if checkpoints == "all" else provisioning.STEPS
    return provisioning.code_of(rest, site)


def unless_wanted(checkpoint: str, below: Stage) -> Callable[..., list[Stage] | None]:
    """A hook: the stage of a single step gives its place to the one below, unless asked for."""

    def instead(
        site: Site, *, checkpoints: str, from_checkpoint: str, **_: Any
    ) -> list[Stage] | None:
        wanted = checkpoints == "all" or checkpoint_named(from_checkpoint) == checkpoint
        return None if wanted else [below]

    return instead


def exploring(explore_it: Call) -> Callable[..., list[Call] | None]:
    """A hook: a build with --explore only shows a checkpoint."""
    return lambda site, *, explore, **_: [explore_it] if explore else None


def machine_problems(site: Site, *, accel: str, **params: Any) -> Iterator[str | VmbakeError]:
    """What keeps the machine from running here, before the first slow step."""
    wanted = machine_of(accel=accel, **params)
    yield from contract.problems(wanted)
    if accel == "kvm":
        yield from kvm_problems(site)
    with connect() as engine:
        facts = engine.facts
    if facts.cores < wanted.cores:
        yield (
            f"DSM is to have {wanted.cores} cores (--cpus); the Docker engine's machine has "
            f"{facts.cores}, and upstream would silently take fewer."
        )
    if facts.memory_bytes < wanted.ram_mb * MIB:
        yield (
            f"DSM is to have {wanted.ram_mb} MiB of memory (--memory); the Docker engine's "
            f"machine has {facts.memory_bytes // MIB} MiB."
        )
    if facts.free_bytes is not None and facts.free_bytes < ENGINE_BYTES:
        yield NoRoom(
            f"Installing DSM needs {ENGINE_BYTES / GB:.1f} GB in the Docker engine's folder "
            f"{facts.root}, which has {facts.free_bytes / GB:.1f} GB free.",
            hint="`docker system df` shows what takes it.",
        )


def machine_cost(
    site: Site, *, accel: accelerators.Name, memory: int, cpus: int, port: int, **_: Any
) -> Cost:
    """What a stage takes in which DSM runs."""
    return guests.guest_cost(accel, memory_mb=memory, cpus=cpus, port=port)


def kvm_problems(site: Site) -> Iterator[VmbakeError]:
    """Why DSM can't run under KVM here, if so."""
    try:
        accelerators.choose("kvm", Runner(site.cache / "accel.log"), site.cache)
    except CannotRun as error:
        cure = error.hint.partition("\n")[0]
        yield CannotRun(error.what, hint=f"{cure}\nOr go without it, slower: inv build.tcg")
