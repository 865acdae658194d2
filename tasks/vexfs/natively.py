"""The native engine: packages, cloud-init data, module and seal, without a guest.

Each step is an overlay over the disk of the one before it, opened on this host.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tasks.core.errors import BadInput, CannotRun, CommandFailed, MachineFailed
from tasks.core.stage import Facts, Step
from tasks.core.store import Result
from tasks.guest import bootstrap, native
from tasks.qemu import disk
from tasks.vexfs import bases, building, guest_steps, seed

SCRIPTS = native.SCRIPTS
# How much of what cloud-init and its commands said is shown when they fail.
SHOWN_LINES = 10
NEEDS_A_KERNEL = (
    "A command that needs a running kernel stands between {% if in_guest %} and {% endif %} there."
)
# The exit status by which packages.sh says that the base is too old for them.
BASE_TOO_OLD = 71


def install_packages(
    step: Step, base: Result, packages: tuple[str, ...], *, offline: bool
) -> Facts:
    """Install a variant's packages over the base.

    Raises:
        CannotRun: nothing may be downloaded.
        BadInput: the base is too old for them.
        DownloadFailed, BadInput, NoRoom, CommandFailed: what the archive or the disk did.
    """
    if offline:
        raise CannotRun(
            f"The packages {', '.join(packages)} are not in the store, and installing them takes "
            "downloads, which --offline forbids.",
            hint="Run once without --offline.",
        )
    words = f"PACKAGES='{' '.join(packages)}'\nKVER={base.facts['kernel']}\n"
    text = words + (SCRIPTS / "packages.sh").read_text()
    lines: list[str] = []
    step.say(f"installing {', '.join(packages)}")
    try:
        work_on(step, base.path(bases.DISK), text, lines, network=True)
    except CommandFailed as error:
        if error.status == BASE_TOO_OLD:
            raise BadInput(
                "The packages of the variant are for a newer kernel than that of the base, which "
                "was made when the archive had an older one.",
                hint="Make the base anew: inv vexfs.build-cloudimg --no-cache",
                log=error.log,
                tail=error.tail,
            ) from error
        raise bootstrap.explain(error, lines) from error
    return {}


def fill(step: Step, under: Path, files: Mapping[str, bytes]) -> Facts:
    """Have the image's own cloud-init apply a seed.

    Raises:
        MachineFailed: it could not do all of it.
    """
    folder = share(step) / "seed"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    step.say("applying the cloud-init data")
    lines: list[str] = []
    # The words by which cloud-init looks for this kind of seed and nothing else.
    work_on(step, under, (SCRIPTS / "fill.sh").read_text(), lines, cmdline="ds=nocloud")
    result = json.loads((share(step) / "result.json").read_text())["v1"]
    said = {
        "cloud_init_errors": result["errors"],
        "cloud_init_warnings": result.get("recoverable_errors", {}),
        "schema_errors": (share(step) / "schema").read_text(),
    }
    try:
        building.check_first_boot(step, said)
    except MachineFailed as error:
        error.hint += f"\n{NEEDS_A_KERNEL}"
        error.tail += tuple(line.rstrip() for line in lines[-SHOWN_LINES:])
        raise
    return {}


def seal(step: Step, under: Path, compiled: Result, kernel: str) -> Facts:
    """Install what was compiled, and seal the image.

    Args:
        kernel: the version of the kernel in the image.
    """
    names = {role: str(compiled.facts[role]["file"]) for role in ("module", "tool")}
    results = share(step) / "results"
    results.mkdir()
    for name in names.values():
        shutil.copyfile(compiled.path(name), results / name)
    step.say("installing the module and vexctl, and sealing")
    lines: list[str] = []
    # For the bill of materials.
    keep = f"cp /var/lib/dpkg/status /run/vmbake/{building.DPKG_STATUS}\n"
    install = guest_steps.install_script(names, kernel)
    work_on(step, under, keep + install + guest_steps.script("seal.sh", {}), lines)
    shutil.copyfile(share(step) / building.DPKG_STATUS, step.out / building.DPKG_STATUS)
    return building.sealed_facts(guest_steps.sealed_in(lines))


def disk_of(result: Result) -> Path:
    """The disk that a base or a step of this engine left."""
    name = bases.DISK if bases.DISK in result.outputs else building.MACHINE_DISK
    return result.path(name)


def share(step: Step) -> Path:
    """The folder of a step that its container sees."""
    folder = step.work / "share"
    folder.mkdir(exist_ok=True)
    return folder


def work_on(
    step: Step,
    under: Path,
    script: str,
    lines: list[str],
    *,
    cmdline: str = "",
    network: bool = False,
) -> None:
    """Run a script in the root of a new overlay over a disk, and make that the stage's result."""
    overlay = step.work / building.MACHINE_DISK
    disk.create_overlay(step.runner, overlay, backing=under, backing_format="qcow2")
    inside = native.Inside(
        script=script,
        share=share(step),
        hostname=seed.HOSTNAME,
        cmdline=cmdline,
        network=network,
    )
    native.run_in_disk(
        overlay,
        inside,
        step.work,
        runner=step.runner,
        timeout_s=step.deadline.left_s,
        on_line=lines.append,
    )
    shutil.move(overlay, step.out / building.MACHINE_DISK)
