"""A root file system just large enough to be entered: the host's own shell and tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = (
    *("sh", "umount", "setpriv", "cat", "hostname", "sleep", "dd", "id", "ls", "mount"),
    *("chown", "chmod", "ln", "mkdir", "mkfifo", "rm", "sort", "stat", "tail"),
)
DISK_BYTES = 64 << 20
START_BYTES = 1 << 20


def make(folder: Path) -> Path:
    """A qcow2 disk with one partition, below `folder`."""
    root = make_tree(folder)
    raw, disk = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as stream:
        stream.truncate(DISK_BYTES)
    table = f"label: gpt\nstart={START_BYTES // 512}\n"
    run("sfdisk", "--quiet", raw, text=table)
    size = f"{(DISK_BYTES - 2 * START_BYTES) >> 10}k"
    run("mke2fs", "-q", "-t", "ext4", "-E", f"offset={START_BYTES}", "-d", root, raw, size)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
    return disk


def make_squashfs(folder: Path) -> Path:
    """The same as a squashfs, as toolchains are, below `folder`."""
    image = folder / "toolchain.squashfs"
    run("mksquashfs", make_tree(folder), image, "-quiet", "-no-progress", "-all-root")
    return image


def make_tree(folder: Path) -> Path:
    """A folder with what is in the root."""
    root = folder / "tree"
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr"):
        (root / name).mkdir(parents=True)
    for program in PROGRAMS:
        found = shutil.which(program, path="/usr/bin:/usr/sbin:/bin:/sbin")
        assert found, program
        shutil.copy(found, root / "bin" / program)
        for library in libraries(found):
            target = root / library.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    return root


def libraries(program: str) -> list[Path]:
    """What a program is linked with, the loader included."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def run(*words: str | Path, text: str = "") -> None:
    """Run a tool of an administrator."""
    program = shutil.which(str(words[0]), path="/usr/bin:/usr/sbin:/bin:/sbin")
    assert program, words[0]
    subprocess.run([program, *words[1:]], input=text.encode(), check=True, capture_output=True)
