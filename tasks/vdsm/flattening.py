"""The image that users get: the base image and the disks of a checkpoint, and nothing else."""

from __future__ import annotations

from typing import Any

from tasks.core.display import in_bytes
from tasks.core.errors import BadInput
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.docker import images
from tasks.docker.commit import Changes, transplant
from tasks.docker.images import Image
from tasks.vdsm import checkpoints, contract, kept, restore
from tasks.vdsm.base import layout_of
from tasks.vdsm.contract import STORAGE
from tasks.vdsm.dsm import QMP_SOCKET, docker_run
from tasks.vdsm.variant import repository

TITLE = "Virtual DSM, installed and configured"
# What upstream takes for an installation. Its file with the MAC address is not needed: that is
# pinned by a variable.
DISKS = ("DSM_VirtualDSM.boot.img", "DSM_VirtualDSM.system.img", "data.qcow2", "dsm.ver")


def make(step: Step, base: Result, dsm: str) -> Facts:
    """Put the disks of the checkpoint below onto the base image.

    Args:
        dsm: the version and build, for the labels.

    Raises:
        NoRoom, CommandFailed, EngineGone: as `transplant`.
    """
    below = checkpoints.checkpoint_below(step)
    machine = checkpoints.machine_of(below)
    tag = str(below.facts["checkpoint"])
    env = contract.environment(machine, layout_of(base), qmp_socket=QMP_SOCKET, snapshot=tag)
    facts: dict[str, Any] = {"dsm": dsm, "snapshot": tag, "machine": below.facts["machine"]}
    labels = {
        **kept.labels(step, facts),
        **restore.labels(machine),
        kept.REPOSITORY: repository(str(step.params["image_name"]), machine.accel),
        kept.CHECKPOINT: "",
        "org.opencontainers.image.title": TITLE,
        "org.opencontainers.image.version": dsm,
        "org.opencontainers.image.base.name": str(base.facts["reference"]),
        "org.opencontainers.image.base.digest": str(base.facts["upstream"]),
    }
    with docker_run(step) as run:
        before = images.require(run.engine, kept.image_id(below))
        below_it = images.require(run.engine, kept.image_id(base))
        require_same_upstream(before, below_it)
        image = transplant(
            run,
            before,
            below_it,
            tuple(f"{STORAGE}/{name}" for name in DISKS),
            Changes(env=env, labels=labels),
            message="vmbake: DSM's disks",
            on_progress=step.progress,
        )
    step.tell(f"{in_bytes(before.size_bytes)} before, {in_bytes(image.size_bytes)} flattened")
    return facts | {"image": image.id}


def require_same_upstream(checkpoint: Image, base: Image) -> None:
    """Check that the base image has the QEMU that the snapshot was saved with.

    Raises:
        BadInput: it is another image; "q35" is another machine in each version of QEMU.
    """
    saved, now = checkpoint.labels.get(kept.UPSTREAM, ""), base.labels.get(kept.UPSTREAM, "")
    if saved != now:
        raise BadInput(
            f"The checkpoint was saved in another base image ({saved[:19]}) than that of this "
            f"build ({now[:19]}); its snapshot may not fit that one's QEMU.",
            hint="Name the same --base-image, or build the checkpoint anew: leave out "
            "--from-checkpoint.",
        )
