"""Whether this machine can do the main job, `inv vexfs.image`, and what to fix if not."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.capacity import core_count
from tasks.core.errors import VmbakeError
from tasks.core.process import Runner
from tasks.core.tools import CATALOG, catalog, columns, find_tool
from tasks.guest import native
from tasks.host.finding import Finding, Outcome, broken, fine, warning
from tasks.host.rights import bootstrap_rights, docker_engine
from tasks.host.room import GIB, disk_rooms, memory_room
from tasks.qemu.accel import Survey, survey
from tasks.qemu.kvm import KvmHost
from tasks.qemu.probe import Verdict

SCHEMA = 1
JOB = "vexfs.image"
PYTHON = (3, 11)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the main job takes, and where.

    Args:
        store, output: the folders that the build fills; they need not exist yet.
        store_bytes, output_bytes: free room that a first build takes in each.
        memory_bytes: the build VM's memory, and some for QEMU itself.
        cache_dir: where the accelerator's finding is kept.
    """

    store: Path
    output: Path
    cache_dir: Path
    store_bytes: int = 6 * GIB
    output_bytes: int = 2 * GIB
    memory_bytes: int = 2 * GIB


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What the checks look at.

    Args:
        accel: what came of the accelerators, or why they could not be tried.
    """

    needs: Needs
    host: KvmHost
    accel: Survey | VmbakeError


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that the job stands on.

    Args:
        needs: what must be there, for people.
        look: what is there; one finding or several.
    """

    name: str
    needs: str
    look: Callable[[Patient], Iterator[Finding]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finding under the name of its check."""

    name: str
    needs: str
    outcome: Outcome
    detail: str
    fix: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the doctor found.

    Args:
        accel: what came of the accelerators; None if QEMU could not even be tried.
    """

    rows: tuple[Row, ...]
    accel: Survey | None

    @property
    def ok(self) -> bool:
        """Whether the main job can run."""
        return all(row.outcome is not Outcome.BROKEN for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        accel = None
        if self.accel is not None:
            accel = {**self.accel.to_json(), "best": asdict(self.accel.best)}
        return {
            "schema": SCHEMA,
            "job": JOB,
            "ok": self.ok,
            "checks": [asdict(row) for row in self.rows],
            "accel": accel,
        }

    def lines(self) -> list[str]:
        """The report for people, without line ends."""
        wide = max(len(row.name) for row in self.rows)
        shown: list[str] = []
        for row in self.rows:
            shown.append(f"{row.outcome:<7}  {row.name:<{wide}}  {row.detail}")
            margin = " " * (7 + 2 + wide + 2)
            if row.outcome is not Outcome.OK:
                shown.append(f"{margin}needed: {row.needs}")
                shown += [f"{margin}fix: {line}" for line in row.fix.splitlines()]
        answer = "can" if self.ok else "cannot"
        return [*shown, "", f"This machine {answer} run the main job ({JOB})."]


def examine(
    needs: Needs, runner: Runner, *, host: KvmHost | None = None, again: bool = False
) -> Report:
    """Look at everything that the main job stands on; nothing is changed.

    Args:
        again: try the accelerators even if their finding is known since the host booted.
    """
    host = host or KvmHost()
    accel: Survey | VmbakeError
    try:
        accel = survey(runner, needs.cache_dir, host, again=again)
    except VmbakeError as error:
        accel = error
    patient = Patient(needs=needs, host=host, accel=accel)
    rows = tuple(
        Row(
            name=finding.name or check.name,
            needs=finding.needs or check.needs,
            outcome=finding.outcome,
            detail=finding.detail,
            fix=finding.fix,
        )
        for check in CHECKS
        for finding in check.look(patient)
    )
    return Report(rows=rows, accel=accel if isinstance(accel, Survey) else None)


def python_version(patient: Patient) -> Iterator[Finding]:
    """The interpreter that runs this."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= PYTHON:
        yield fine(found)
    else:
        yield broken(f"this is {found}", "Install a newer Python, then scripts/bootstrap.")


def tools(patient: Patient) -> Iterator[Finding]:
    """Each program in the catalog."""
    for name, table in catalog().items():
        path = find_tool(name)
        yield installed(name, table, str(path) if path else None)


def files(patient: Patient) -> Iterator[Finding]:
    """Each file in the catalog."""
    for name, table in file_tables().items():
        # On a system that has no package for it, the file lies elsewhere or isn't needed.
        if package_of(table) is not None:
            path = table["path"]
            there = (patient.host.root / path.lstrip("/")).exists()
            yield installed(name, table, path if there else None)


def file_tables() -> dict[str, dict[str, str]]:
    """File name to its table in the catalog."""
    tables: dict[str, dict[str, str]] = tomllib.loads(CATALOG.read_text())["files"]
    return tables


def installed(name: str, table: dict[str, str], path: str | None) -> Finding:
    """The finding on a tool or file that the catalog names, `path` if it is there."""
    if path is not None:
        return fine(path, name=name, needs=table["why"])
    package = package_of(table)
    fix = f"scripts/bootstrap    # installs the package {package}" if package else ""
    # What only the other product needs doesn't keep this job from running.
    finding = broken if table.get("product", "vexfs") == "vexfs" else warning
    return finding("not installed", fix or table.get("without", ""), name=name, needs=table["why"])


def package_of(table: dict[str, str]) -> str | None:
    """The package that brings it on this system; None if none does."""
    found = next((table[column] for column in columns() if column in table), None)
    return found or None


def accelerator(patient: Patient) -> Iterator[Finding]:
    """What a real guest showed; TCG is slower and does."""
    accel = patient.accel
    if isinstance(accel, VmbakeError):
        yield broken(accel.what, accel.hint)
    elif accel.kvm is Verdict.WORKS:
        yield fine(f"kvm: {accel.finding}")
    else:
        yield warning(f"tcg, which is slower: {accel.finding}", accel.fix)


def native_engine(patient: Patient) -> Iterator[Finding]:
    """Whether images can be filled without a guest; a guest does it, too, slower without KVM."""
    if missing := native.obstacles():
        fix = (
            "Give vmbake that if a guest takes too long; docs/vexfs.md has who may mount, and how."
        )
        if find_tool("docker"):
            fix += "\nIn a container it has all of it: scripts/in-container inv vexfs.image"
        yield warning(f"images are filled in a guest: {', '.join(missing)} is missing here", fix)
    else:
        yield fine("images are filled on this host where KVM does not work")


def memory(patient: Patient) -> Iterator[Finding]:
    """Room for the build VM."""
    yield memory_room(patient.host.root, patient.needs.memory_bytes)


def disk(patient: Patient) -> Iterator[Finding]:
    """Room in the folders that a build fills."""
    needs = patient.needs
    yield from disk_rooms(
        {"store": (needs.store, needs.store_bytes), "output": (needs.output, needs.output_bytes)}
    )


def rights(patient: Patient) -> Iterator[Finding]:
    """Root or user namespaces."""
    yield bootstrap_rights(patient.host.root, patient.host.uid)


def docker(patient: Patient) -> Iterator[Finding]:
    """The engine; only Virtual-DSM images need it."""
    yield docker_engine(os.environ.get("DOCKER_HOST", ""), patient.host.root, patient.host.uid)


def cores(patient: Patient) -> Iterator[Finding]:
    """How many processors this process may use."""
    count = core_count()
    if count > 1:
        yield fine(str(count))
    else:
        yield warning("1", "Give this machine a second core: a build takes about twice as long.")


CHECKS = (
    Check(name="python", needs="Python 3.11 or newer", look=python_version),
    Check(name="tools", needs="the programs that vmbake starts", look=tools),
    Check(name="files", needs="files that packages bring", look=files),
    Check(name="accelerator", needs="QEMU runs guests; with KVM, at speed", look=accelerator),
    Check(
        name="native",
        needs="the right to mount, to fill images without a guest",
        look=native_engine,
    ),
    Check(name="memory", needs="room for the build VM", look=memory),
    Check(name="disk", needs="room for a first build", look=disk),
    Check(name="rights", needs="root or user namespaces, for mmdebstrap", look=rights),
    Check(name="cores", needs="one for the guest and one for the rest", look=cores),
    Check(name="docker", needs="a Docker engine, for Virtual-DSM images only", look=docker),
)
