"""A look at checkpoints: what there is, and one of them running."""

from __future__ import annotations

import json

from tasks.core.display import in_bytes
from tasks.core.stage import Step
from tasks.core.store import Result, new_record
from tasks.docker.engine import connect
from tasks.vdsm import checkpoints, kept
from tasks.vdsm.dsm import leave_running, started
from tasks.vdsm.variant import repository

ACCELS = ("kvm", "tcg")


def explore(step: Step, accel: str, checkpoint: str) -> None:
    """Start a checkpoint's image, leave it running, and say how to get in.

    Raises:
        BadInput: there is no such checkpoint.
        MachineFailed: it does not start.
    """
    with connect() as engine:
        image = kept.require_checkpoint(engine, str(step.params["image_name"]), accel, checkpoint)
    record = new_record("", "", {}, json.loads(image.labels[kept.FACTS]))
    machine = checkpoints.machine_of(Result(directory=step.site.state, record=record))
    with started(step, image.id, machine) as dsm:
        dsm.qmp.close()  # QEMU has one client at a time on that socket
        for line in leave_running(step, dsm):
            step.show(line)


def listing(step: Step, image_name: str) -> None:
    """Show the checkpoints of both variants, one a line."""
    with connect() as engine:
        for accel in ACCELS:
            for image in kept.all_of(engine, image_name, accel):
                name, when = image.labels[kept.CHECKPOINT], image.created
                step.show(
                    f"{repository(image_name, accel)}  {name:<15}  {when:%Y-%m-%d %H:%M}  "
                    f"{in_bytes(image.size_bytes)}"
                )
