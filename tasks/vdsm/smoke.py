"""The smoke test: starts the image as its users are told to, and uses the DSM in it."""

from __future__ import annotations

import time

from tasks.core.display import in_seconds
from tasks.core.errors import MachineFailed
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.vdsm import checkpoints, kept, probes, provisioning
from tasks.vdsm.dsm import NFS_PORT, WEB_PORT, Dsm, leave_running, started

# A restored DSM answers within seconds; a cold one under TCG takes minutes.
RESTORE_S = 120.0
SERVICE_S = 60.0


def test(step: Step, flat: Result, user: str, password: str) -> Facts:
    """Prove that a container of the image is a DSM that works, soon after its start.

    Raises:
        MachineFailed: its container ended.
        TimedOut: DSM or its NFS service did not answer.
        ProvisionFailed, BadInput: the administrator can't log in.
    """
    machine = checkpoints.machine_of(flat)
    patience = provisioning.patience(int(step.params["slow"]), machine.accel)
    since = time.monotonic()
    with started(step, kept.image_id(flat), machine) as dsm:
        web, nfs = dsm.container.port(WEB_PORT), dsm.container.port(NFS_PORT)
        step.say("waiting for DSM")
        dsm.container.wait_until(
            lambda: probes.is_dsm(web) or None, what="DSM's answer", timeout_s=RESTORE_S * patience
        )
        restored_s = time.monotonic() - since
        require_restored(dsm)
        step.say("logging in")
        probes.login(web, user, password)
        step.say("waiting for NFS")
        dsm.container.wait_until(
            lambda: probes.answers_nfs(nfs) or None,
            what="answer of the NFS service",
            timeout_s=SERVICE_S * patience,
        )
        step.tell(f"DSM answers {in_seconds(restored_s)} after the start of the container")
        if step.params["keep"]:
            leave_running(step, dsm)
    return {"restored_s": round(restored_s, 1), "checks": ["DSM answers", "login", "NFS answers"]}


def require_restored(dsm: Dsm) -> None:
    """Check that QEMU runs, and from the snapshot: DSM can't boot as fast as it is restored.

    Raises:
        MachineFailed: it doesn't run.
    """
    status = dsm.qmp.execute("query-status")
    if not status["running"]:
        raise MachineFailed(f"QEMU does not run DSM: its status is {status['status']}.")
