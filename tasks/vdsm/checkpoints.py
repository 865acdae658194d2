"""Checkpoints: images that hold a frozen DSM, each made from the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.docker.commit import Changes, commit
from tasks.vdsm import contract, freezing, kept, provisioning, restore
from tasks.vdsm.contract import Machine
from tasks.vdsm.dsm import QMP_SOCKET, Dsm, started
from tasks.vdsm.variant import checkpoint_reference, repository


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A DSM whose QEMU has ended with its machine saved under `tag`."""

    dsm: Dsm
    tag: str
    state_bytes: int


def freeze(step: Step, dsm: Dsm, tag: str) -> Frozen:
    """Freeze a running DSM; its container has ended then.

    Raises: as `freezing.freeze`.
    """
    return Frozen(dsm=dsm, tag=tag, state_bytes=freezing.freeze(step, dsm, tag))


def keep(step: Step, frozen: Frozen, done: list[str]) -> Facts:
    """Commit a frozen DSM as the checkpoint that its tag names, to be restored at start.

    Args:
        done: the steps of the wizard that it has behind it.

    Raises:
        NoRoom: the engine's disk is full.
        CommandFailed, EngineGone: the engine did not do it.
    """
    dsm, params = frozen.dsm, step.params
    name = repository(str(params["image_name"]), dsm.machine.accel)
    facts: dict[str, Any] = {
        "checkpoint": frozen.tag,
        "machine": asdict(dsm.machine),
        "done": done,
        "state_bytes": frozen.state_bytes,
    }
    labels = {
        **kept.labels(step, facts),
        **restore.labels(dsm.machine),
        kept.REPOSITORY: name,
        kept.CHECKPOINT: frozen.tag,
    }
    step.say("committing")
    changes = Changes(env=contract.arguments(QMP_SOCKET, frozen.tag), labels=labels)
    reference = checkpoint_reference(str(params["image_name"]), dsm.machine.accel, frozen.tag)
    message = f"vmbake: checkpoint {frozen.tag}"
    image = commit(dsm.container, changes, message=message, name=reference)
    step.tell(f"{reference} ({image.id[:19]})")
    return facts | {"image": image.id}


def advance(step: Step, checkpoint: str, last_step: str) -> Facts:
    """From the checkpoint below, go on with the wizard up to `last_step`, and make a new one.

    Raises:
        ProvisionFailed: the wizard is not as expected.
        MachineFailed: DSM's container ended.
    """
    below = checkpoint_below(step)
    steps = provisioning.STEPS[: provisioning.STEPS.index(last_step) + 1]
    with started(step, kept.image_id(below), machine_of(below)) as dsm:
        for name in steps:
            if name not in below.facts["done"]:
                provisioning.run(step, dsm, name)
        return keep(step, freeze(step, dsm, checkpoint), list(steps))


def checkpoint_below(step: Step) -> Result:
    """The checkpoint that a stage stands on: which one depends on the options."""
    found: list[Result] = [
        result
        for result in step.stands_on.values()
        if isinstance(result, Result) and "checkpoint" in result.facts
    ]
    (below,) = found
    return below


def machine_of(result: Result) -> Machine:
    """The machine that a checkpoint was saved on."""
    facts: Mapping[str, Any] = result.facts["machine"]
    return Machine(**facts)
