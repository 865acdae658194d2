"""Freezes a running DSM in a QEMU snapshot, so that the container can be committed."""

from __future__ import annotations

from tasks.core.errors import MachineFailed, NoRoom
from tasks.core.stage import Step
from tasks.vdsm.contract import STORAGE
from tasks.vdsm.dsm import Dsm

# Saving 1 GB of RAM took 7 s here; slow disks and big machines need their time.
SAVE_S = 900.0
END_S = 120.0


def freeze(step: Step, dsm: Dsm, tag: str) -> int:
    """Stop the machine, save it under `tag`, prove that it is saved, and end QEMU.

    Snapshots of other tags go: an image restores one only. Returns the bytes of machine state.

    Raises:
        NoRoom: the disk is full.
        MachineFailed: QEMU did not save it completely.
    """
    dsm.qmp.execute("stop")
    for other in tags(dsm):
        complaint = dsm.monitor(f"delvm {other}", timeout_s=SAVE_S)
        if complaint:
            raise MachineFailed(f"QEMU could not remove the snapshot {other}: {complaint.strip()}")
    step.say(f"saving the machine as {tag}")
    # Synchronous, and silent when all went well. The jobs of QMP's own snapshot-save would need
    # the names of block nodes, which upstream doesn't give.
    complaint = dsm.monitor(f"savevm {tag}", timeout_s=SAVE_S).strip()
    if complaint:
        kind = NoRoom if "No space left" in complaint else MachineFailed
        raise kind(f"QEMU could not save the machine as {tag}: {complaint}.")
    state_bytes = proven(dsm, tag)
    # What only the installation needed must not get into the image.
    dsm.container.exec(["sh", "-c", f"rm -f {STORAGE}/*.pat"])
    dsm.qmp.execute("quit")
    dsm.container.wait_end(END_S)
    return state_bytes


def tags(dsm: Dsm) -> list[str]:
    """The snapshots on the disks, each once."""
    return sorted(
        {
            snapshot["name"]
            for image in dsm.disks().values()
            for snapshot in image.get("snapshots", ())
        }
    )


def proven(dsm: Dsm, tag: str) -> int:
    """The size of the machine's state under `tag`, in bytes.

    `-loadvm` needs the tag on every disk, and the state on the first (tried with QEMU 7.2).

    Raises:
        MachineFailed: it is not so.
    """
    found = {
        name: {entry["name"]: entry["vm-state-size"] for entry in image.get("snapshots", ())}
        for name, image in dsm.disks().items()
    }
    missing = [name for name, snapshots in found.items() if tag not in snapshots]
    if missing or not found:
        raise MachineFailed(
            f"QEMU did not save the snapshot {tag} completely: it is missing on "
            f"{', '.join(missing) or 'every disk'}."
        )
    state_bytes = int(next(iter(found.values()))[tag])
    if state_bytes == 0:
        raise MachineFailed(f"QEMU saved the snapshot {tag} without the machine's memory.")
    return state_bytes
