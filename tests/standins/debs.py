"""Programs and kernels for tests, unpacked from the distribution's packages without installing."""

from __future__ import annotations

import subprocess
from pathlib import Path

# A small kernel for guests: Debian's name for it, then Ubuntu's.
KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual")


def unpack(directory: Path, *packages: str) -> Path:
    """Download packages with apt-get and unpack them under `directory`, which is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run("apt-get", "--quiet", "download", package, cwd=directory)
    for deb in directory.glob("*.deb"):
        run("dpkg-deb", "--extract", deb.name, ".", cwd=directory)
        deb.unlink()
    return directory


def kernel_packages() -> tuple[str, ...]:
    """The package of the kernel that the distribution's small-guest package stands for."""
    for name in KERNELS:
        found = subprocess.run(
            ("apt-cache", "depends", "--important", name),
            check=False,
            capture_output=True,
            text=True,
        )
        names = [
            line.split()[1]
            for line in found.stdout.splitlines()
            if line.split()[:1] == ["Depends:"] and line.split()[1].startswith("linux-image-")
        ]
        if names:
            # Ubuntu has the drivers in the kernel, or in a package of modules.
            return tuple(names)
    raise AssertionError(f"apt knows none of {KERNELS}; run apt-get update")


def run(*words: str, cwd: Path) -> None:
    done = subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
