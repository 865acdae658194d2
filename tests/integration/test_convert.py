"""The script that makes DSM's fresh disks qcow2, run as upstream's entry.sh runs it."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tasks.vdsm.layout import CONVERT, CONVERT_SOURCE, ENTRY, patched, recognise

pytestmark = pytest.mark.integration

BASE = "DSM_VirtualDSM"
BOOT_BYTES = 4 << 20
SYSTEM_BYTES = 64 << 20
CONTENT = random.Random(5).randbytes(3 << 20)
QCOW2 = b"QFI\xfb"
REAL = shutil.which("qemu-img")

# Scripts of the old layout that do as much as is needed: make the images, say what comes to be.
SCRIPTS = {
    ENTRY: """#!/usr/bin/env bash
set -Eeuo pipefail
cd "$SCRIPTS"

. ./install.sh
. ./disk.sh
""",
    "/run/disk.sh": """
createDevice() { printf '%s %s\\n' "$1" "$5"; }
BOOT="$STORAGE/$BASE.boot.img"; SYSTEM="$STORAGE/$BASE.system.img"; DISK_TYPE=scsi
createDevice "$BOOT" "$DISK_TYPE" "1" "0xa" "raw"
createDevice "$SYSTEM" "$DISK_TYPE" "2" "0xb" "raw"
printf 'arguments %s\\n' "${ARGUMENTS-unset}"
return 0
""",
    "/run/install.sh": """
trap 'echo "trapped: $BASH_COMMAND" >&2' ERR
BASE=DSM_VirtualDSM
return 0
""",
    "/run/version": "7.41",
}


class Container:
    """A folder with the changed scripts and fresh images, and programs that can be faked."""

    def __init__(self, folder: Path) -> None:
        self.scripts = folder / "run"
        self.storage = folder / "storage with a blank"
        self.fakes = folder / "fakes"
        for each in (self.scripts, self.storage, self.fakes):
            each.mkdir()
        changed = {**SCRIPTS, **patched(recognise(SCRIPTS), SCRIPTS)}
        for path, text in changed.items():
            ours = text.replace(f". {CONVERT}", f'. "{self.scripts / Path(CONVERT).name}"')
            (self.scripts / Path(path).name).write_text(ours)
        self.boot = self.storage / f"{BASE}.boot.img"
        self.system = self.storage / f"{BASE}.system.img"
        for image, size_bytes in ((self.boot, BOOT_BYTES), (self.system, SYSTEM_BYTES)):
            image.write_bytes(CONTENT)
            os.truncate(image, size_bytes)
            image.chmod(0o640)

    def fake(self, name: str, script: str) -> None:
        path = self.fakes / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def start(self, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", self.scripts / "entry.sh"],
            check=False,
            env={
                "PATH": f"{self.fakes}:{os.environ['PATH']}",
                "SCRIPTS": str(self.scripts),
                "STORAGE": str(self.storage),
                **env,
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        return done

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.storage.iterdir())


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def info(image: Path) -> tuple[str, int]:
    argv: list[str | Path] = ["qemu-img", "info", "--output=json", image]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return found["format"], found["virtual-size"]


def raw_content(image: Path, folder: Path) -> bytes:
    target = folder / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, target], check=True)
    return target.read_bytes()


def test_fresh_images_become_qcow2(container: Container, tmp_path: Path) -> None:
    done = container.start(ARGUMENTS="-qmp x", VMBAKE_SNAPSHOT="final")
    assert done.stdout.splitlines()[-3:] == [
        f"{container.boot} qcow2",
        f"{container.system} qcow2",
        "arguments -qmp x -loadvm final",
    ]
    assert done.stderr == ""
    assert info(container.boot) == ("qcow2", BOOT_BYTES)
    assert info(container.system) == ("qcow2", SYSTEM_BYTES)
    assert raw_content(container.boot, tmp_path) == CONTENT + bytes(BOOT_BYTES - len(CONTENT))
    assert container.names == [container.boot.name, container.system.name]
    assert stat.S_IMODE(container.boot.stat().st_mode) == 0o640
    # Holes stay holes.
    assert container.system.stat().st_blocks * 512 < 2 * len(CONTENT)


def test_a_second_start_changes_nothing(container: Container) -> None:
    container.start()
    before = state_of(container.boot), state_of(container.system)
    done = container.start()
    assert "Converting" not in done.stdout
    assert (state_of(container.boot), state_of(container.system)) == before


def state_of(path: Path) -> tuple[int, ...]:
    """What changes with a file, other than by being read."""
    stat = path.stat()
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def test_killed_conversion_is_done_again(container: Container) -> None:
    container.fake("qemu-img", f'[ $1 = convert ] || exec {REAL} "$@"; kill -9 $PPID')
    container.start(status=-9)
    leftover = container.boot.with_name(f"{container.boot.name}.vmbake")
    leftover.write_bytes(b"half")
    (container.fakes / "qemu-img").unlink()
    # What it left must not count against the room that there is.
    container.fake("df", f'[ -e "{leftover}" ] && echo 0 || echo 1000000000')
    container.start()
    assert container.names == [container.boot.name, container.system.name]
    assert info(container.boot)[0] == "qcow2"


def test_no_room_ends_with_upstreams_status(container: Container) -> None:
    container.fake("df", "echo Avail; echo 1000000")
    done = container.start(status=97)
    assert str(container.boot) in done.stderr
    assert "which has 1000000" in done.stderr
    assert container.boot.read_bytes()[:4] != QCOW2
    assert container.names == [container.boot.name, container.system.name]


@pytest.mark.parametrize("failing", ["convert", "check", "measure"])
def test_failed_conversion_leaves_the_image(container: Container, failing: str) -> None:
    container.fake("qemu-img", f'[ $1 = {failing} ] && echo broken >&2 && exit 1; exec {REAL} "$@"')
    done = container.start(status=79)
    assert "ERROR: vmbake:" in done.stderr
    assert "broken" in done.stderr
    assert container.boot.read_bytes()[: len(CONTENT)] == CONTENT
    assert container.names == [container.boot.name, container.system.name]


def test_a_measure_that_says_nothing(container: Container) -> None:
    container.fake("qemu-img", "echo '{}'")
    assert "says nothing" in container.start(status=79).stderr


def test_missing_image_is_left_to_upstream(container: Container) -> None:
    container.system.unlink()
    container.start()
    assert info(container.boot)[0] == "qcow2"


def test_script_is_the_one_that_is_shipped(container: Container) -> None:
    assert (container.scripts / Path(CONVERT).name).read_text() == CONVERT_SOURCE.read_text()
