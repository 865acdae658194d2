"""A container in which DSM runs, with QEMU's monitor at hand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import MachineFailed
from tasks.core.stage import Step
from tasks.docker.container import Container
from tasks.docker.engine import connect
from tasks.docker.runs import Run, sweep
from tasks.docker.spec import ContainerSpec
from tasks.qemu.qmp import Qmp
from tasks.vdsm import contract
from tasks.vdsm.contract import Machine
from tasks.vdsm.endings import ending

# Wiped at each start by upstream's scripts, and in no image: a tmpfs.
QMP_SOCKET = "/run/shm/vmbake-qmp.sock"
WEB_PORT = 5000
NFS_PORT = 2049
# Where upstream's installer looks for the PAT first.
PAT = "/boot.pat"
NEWS_S = 10.0
# Converting, copying 360 MB, unpacking: all before QEMU.
INSTALL_S = 1800.0


@dataclass(kw_only=True)
class Dsm:
    """A running DSM (or one that is about to be)."""

    container: Container
    machine: Machine
    qmp: Qmp

    @property
    def url(self) -> str:
        """Its web pages, seen from here."""
        return f"http://127.0.0.1:{self.container.port(WEB_PORT)}"

    def monitor(self, command: str, *, timeout_s: float) -> str:
        """Run a command of QEMU's human monitor; returns what it says.

        Raises: as `Qmp.execute`.
        """
        return str(
            self.qmp.execute(
                "human-monitor-command", {"command-line": command}, timeout_s=timeout_s
            )
        )

    def disks(self) -> dict[str, Mapping[str, Any]]:
        """QEMU's writable disks, in its order: name to what `query-block` says of the image."""
        return {
            drive["device"]: drive["inserted"]["image"]
            for drive in self.qmp.execute("query-block")
            if "inserted" in drive and not drive["inserted"]["ro"]
        }


@contextlib.contextmanager
def docker_run(step: Step) -> Iterator[Run]:
    """The engine, for the containers of one stage; those of killed runs are removed first."""
    with connect() as engine:
        for name in sweep(engine, step.site.state):
            step.tell(f"removed the container of a killed run: {name}")
        with Run(engine, step.site.state) as run:
            yield run


@contextlib.contextmanager
def started(
    step: Step,
    image: str,
    machine: Machine,
    *,
    environment: Mapping[str, str] | None = None,
    pat: Path | None = None,
) -> Iterator[Dsm]:
    """Start a container from an image and connect to its QEMU; leaving the block removes it.

    The stage's options `port` and `keep` count: the port on 127.0.0.1 of DSM's web pages, and
    whether the container is left running if the block fails.

    Args:
        image: its id or name.
        environment: in addition to the image's own.
        pat: the installation file, for a first boot.

    Raises:
        MachineFailed: the container ended, or has not the disks that snapshots need.
        Busy: the port is taken.
    """
    needs = contract.needs(machine)
    spec = ContainerSpec(
        image=image,
        name=step.name.replace(".", "-"),
        env=environment or {},
        ports={WEB_PORT: int(step.params["port"]), NFS_PORT: 0},
        caps=needs.capabilities,
        devices=needs.devices,
        mounts={pat: PAT} if pat else {},
        grace_s=contract.stop_grace_s(machine),
        exit_reason=lambda code: ending(code).meaning,
        exit_remedy=lambda code: ending(code).remedy,
    )
    log = step.runner.log.with_suffix(".container.log")
    with docker_run(step) as run, Container.started(run, spec, log=log) as container:
        dsm = Dsm(container=container, machine=machine, qmp=Qmp(ignore, ignore))
        try:
            step.say("waiting for QEMU")
            connect_monitor(dsm)
            prove_disks(dsm)
            yield dsm
        except BaseException:
            if step.params["keep"] and not container.ended:
                leave_running(step, dsm)
            raise
        finally:
            dsm.qmp.close()


def connect_monitor(dsm: Dsm) -> None:
    """Connect to the container's QEMU as soon as it listens.

    The socket is reached through `docker exec`: that takes no port of the host and no mount.

    Raises:
        MachineFailed: the container ended first.
        TimedOut: QEMU never listened.
    """
    wait = f"until [ -S {QMP_SOCKET} ]; do sleep 0.1; done; exec nc -N -U {QMP_SOCKET}"
    channel = dsm.container.open_stream(["sh", "-c", wait])
    try:
        dsm.qmp.open(channel, INSTALL_S)
    except MachineFailed:
        # It says more about its end than QEMU's monitor.
        dsm.container.wait_until(lambda: None, what="QEMU's monitor", timeout_s=NEWS_S)
        raise


def prove_disks(dsm: Dsm) -> None:
    """Check that every disk can hold snapshots: upstream attaches two of them as raw.

    Raises:
        MachineFailed: one can't.
    """
    disks = dsm.disks()
    wrong = {name: image["format"] for name, image in disks.items() if image["format"] != "qcow2"}
    if wrong or not disks:
        said = ", ".join(f"{name} is {kind}" for name, kind in wrong.items()) or "there is none"
        raise MachineFailed(
            f"QEMU can't save this machine: every disk has to be qcow2, but {said}.",
            hint="The base image attaches its disks in a way that vmbake doesn't know; choose "
            "another release with --base-image.",
        )


def leave_running(step: Step, dsm: Dsm) -> tuple[str, ...]:
    """Let the container go on after the run, and say how to get in."""
    name = dsm.container.keep()
    lines = (
        f"DSM      {dsm.url}",
        f"monitor  docker exec -it {name} nc -N -U {QMP_SOCKET}  (QMP: qmp_capabilities first)",
        f"log      docker logs -f {name}",
        f"end      docker rm -fv {name}",
    )
    step.tell("\n  ".join(("DSM is left running:", *lines)))
    return lines


def ignore(*_: object) -> None:
    """Take QEMU's events and do nothing with them."""
