"""The first boot of DSM: installed from the PAT, up to the first page of its wizard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.stage import Step
from tasks.core.store import Result
from tasks.vdsm import base, contract, kept, pat, provisioning
from tasks.vdsm.contract import Machine
from tasks.vdsm.dsm import QMP_SOCKET, Dsm, started


@contextmanager
def first_boot(step: Step, fetched: Result, base_image: Result, machine: Machine) -> Iterator[Dsm]:
    """Install DSM in a new container and wait for its wizard.

    Raises:
        MachineFailed: the container ended; its exit code is explained.
        ProvisionFailed: the wizard did not come up.
    """
    environment = contract.environment(machine, base.layout_of(base_image), qmp_socket=QMP_SOCKET)
    with started(
        step,
        kept.image_id(base_image),
        machine,
        environment=environment,
        pat=pat.path_of(fetched),
    ) as dsm:
        provisioning.run(step, dsm, "wait-for-boot")
        yield dsm
