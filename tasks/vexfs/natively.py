"""The native engine: packages, cloud-init data, module and seal, without a guest.

Each step is an overlay over the disk of the one before it, opened on this host.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import (
    BadInput,
    CannotRun,
    CommandFailed,
    DownloadFailed,
    MachineFailed,
    VmbakeError,
)
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
UPGRADE = "Upgrade the disk where it runs, so that it has a kernel of today, and name it again."


def install_packages(
    step: Step, base: Result, packages: tuple[str, ...], *, offline: bool
) -> Facts:
    """Install a variant's packages over the base.

    Raises:
        CannotRun: nothing may be downloaded.
        BadInput: the base is too old for them.
        DownloadFailed, BadInput, NoRoom, CommandFailed: what the archive or the disk did.
    """
    require_downloads(f"The packages {', '.join(packages)}", offline=offline)
    own = step.params["base"] in bases.DEBIAN
    names = {} if own else bases.names_for_kernel(base.facts["kernel"])
    words = {
        "PACKAGES": " ".join(names.get(name, name) for name in packages),
        # What a guest does: a base of ours has no package that is only recommended, and on
        # others it is for their own settings to say.
        "WORDS": "--no-install-recommends" if own else "",
    }
    lines: list[str] = []
    step.say(f"installing {', '.join(packages)}")
    try:
        overlay = work_on(
            step,
            base.path(bases.DISK),
            script(words, "apt.sh", "packages.sh"),
            lines,
            network=True,
        )
    except CommandFailed as error:
        raise explain(error, lines, own=own) from error
    keep(step, overlay)
    return {}


def explain(error: CommandFailed, lines: list[str], *, own: bool) -> VmbakeError:
    """A failure of the image's own apt, by its cause.

    Args:
        own: vmbake made the base.
    """
    if error.status == BASE_TOO_OLD:
        return BadInput(
            "The packages of the variant are for a newer kernel than that of the base, which "
            "was made when the archive had an older one.",
            hint="Make the base anew: inv vexfs.build-cloudimg --no-cache" if own else UPGRADE,
            log=error.log,
            tail=error.tail,
        )
    explained = bootstrap.explain(error, lines)
    if isinstance(explained, DownloadFailed) and not own:
        explained.hint = "Check the network, and the package sources in the disk's /etc/apt."
    return explained


def require_downloads(what: str, *, offline: bool) -> None:
    """Whatever is not in the store is downloaded, if it may be.

    Raises:
        CannotRun: it may not.
    """
    if offline:
        raise CannotRun(
            f"{what} are not in the store, and getting them takes downloads, which --offline "
            "forbids.",
            hint="Run once without --offline.",
        )


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
    overlay = work_on(step, under, script({}, "fill.sh"), lines, cmdline="ds=nocloud")
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
    keep(step, overlay)
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
    status = f"cp /var/lib/dpkg/status /run/vmbake/{building.DPKG_STATUS}\n"
    install = guest_steps.install_script(names, kernel)
    overlay = work_on(step, under, status + install + guest_steps.script("seal.sh", {}), lines)
    keep(step, overlay)
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


def script(words: Mapping[str, str], *names: str) -> str:
    """Scripts of scripts/native/ in one, with its variables set before it."""
    assignments = [f"{key}={shlex.quote(value)}\n" for key, value in words.items()]
    return "".join([*assignments, *((SCRIPTS / name).read_text() for name in names)])


def work_on(
    step: Step,
    under: Path,
    text: str,
    lines: list[str],
    *,
    cmdline: str = "",
    network: bool = False,
) -> Path:
    """Run a script in the root of a new overlay over a disk; returns the overlay."""
    overlay = step.work / building.MACHINE_DISK
    disk.create_overlay(step.runner, overlay, backing=under, backing_format="qcow2")
    enter(step, overlay, text, lines, cmdline=cmdline, network=network)
    return overlay


def enter(step: Step, image: Path, text: str, lines: list[str], **words: Any) -> None:
    """Run a script in the root of a disk; `words` are more of native.Inside's."""
    inside = native.Inside(script=text, share=share(step), hostname=seed.HOSTNAME, **words)
    native.run_in_disk(
        image,
        inside,
        step.work,
        runner=step.runner,
        timeout_s=step.deadline.left_s,
        on_line=lines.append,
    )


def keep(step: Step, overlay: Path) -> None:
    """Make a step's overlay its result."""
    shutil.move(overlay, step.out / building.MACHINE_DISK)
