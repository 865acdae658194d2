"""The same packages by mkosi, which makes images without ever booting them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.core.process import Runner

TIMEOUT_S = 3600


def build(release: str, packages: Sequence[str], work: Path, runner: Runner) -> None:
    """Make a root file system on a GPT disk, as root, in an empty folder.

    No bootloader, no compression, no digests: less than what is compared with it.
    """
    command = [
        "mkosi",
        *("--distribution", "debian"),
        *("--release", release),
        *("--format", "gpt_ext4"),
        *("--bootable", "no"),
        *("--root-size", "10G"),
        *("--with-network", "yes"),
        # There may be no systemd to make a unit for it.
        *("--nspawn-keep-unit", "yes"),
        *(word for package in packages for word in ("--package", package)),
        *("--output", str(work / "image.raw")),
        "build",
    ]
    runner.run(command, cwd=work, timeout_s=TIMEOUT_S)
