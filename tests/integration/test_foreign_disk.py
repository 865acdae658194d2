"""Disks that vmbake did not make, opened here: grown, with a /boot of their own, or refused.

As in test_native.py, each holds for root and for an ordinary user.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.errors import CommandFailed
from tasks.core.process import Runner
from tasks.guest import native
from tasks.guest.native import Inside, run_in_disk
from tasks.qemu import disk as images
from tests.standins import tiny_root
from tests.standins.traces import left_of

pytestmark = pytest.mark.integration

MIB = 1 << 20
BOOT_AT = 66 * MIB
BOOT_MIB = 8


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="vmbake-foreign-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        assert left_of(folder) == []


@pytest.fixture
def raw(folder: Path) -> Path:
    """A disk of 64 MiB with a root."""
    made = tiny_root.make(folder)
    made.unlink()
    return folder / "disk.raw"


def adopt(
    raw: Path, script: str = "true", *, size_bytes: int = 0, network: bool = False
) -> list[str]:
    """The lines of a script in a foreign disk."""
    folder = raw.parent
    runner = Runner(folder / "log")
    image = folder / "disk.qcow2"
    images.convert(runner, raw, "raw", image, "qcow2")
    if size_bytes:
        images.resize(runner, image, "qcow2", size_bytes)
    work = folder / "work"
    (work / "share").mkdir(parents=True)
    # The ordinary user is root of a namespace only, and gets what is made by root here, too.
    for path in (image, work, work / "share"):
        subprocess.run(["chown", "--reference", folder, path], check=True)
    lines: list[str] = []
    inside = Inside(
        script=f"set -eu\n{script}",
        share=work / "share",
        hostname="box",
        network=network,
        adopt=True,
    )
    run_in_disk(
        image,
        inside,
        work,
        runner=runner,
        timeout_s=60,
        on_line=lines.append,
    )
    images.check(runner, image)
    images.convert(runner, image, "qcow2", raw, "raw")
    return [line.strip() for line in lines]


def refused(raw: Path, script: str = "true") -> str:
    """Why a disk is refused: the last line."""
    with pytest.raises(CommandFailed) as caught:
        adopt(raw, script)
    assert caught.value.status == native.UNSUPPORTED
    return caught.value.tail[-1].strip().removeprefix("vmbake: ")


def root_blocks(raw: Path, start: int = tiny_root.START_BYTES) -> int:
    """The size of a sound file system, in MiB."""
    where = f"{raw}?offset={start}"
    subprocess.run(["/usr/sbin/e2fsck", "-fn", where], check=True, capture_output=True)
    said = subprocess.run(
        ["/usr/sbin/dumpe2fs", "-h", where], check=True, capture_output=True, text=True
    ).stdout
    facts = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    return int(facts["Block count"]) * int(facts["Block size"]) // MIB


@pytest.mark.usefixtures("way")
def test_the_root_gets_the_room_behind_it(raw: Path) -> None:
    said = adopt(raw, "dd if=/dev/zero of=/large bs=1M count=80; echo fits", size_bytes=160 * MIB)
    assert said[-1] == "fits"
    assert root_blocks(raw) == 158
    table = subprocess.run(["/usr/sbin/sfdisk", "--verify", raw], check=True, capture_output=True)
    assert b"No errors detected" in table.stdout
    assert raw.stat().st_size == 160 * MIB


def with_boot(raw: Path, fstab: str, label: str = "BOOT") -> None:
    """Put a partition with the folder `from-boot` behind the root, and an fstab into that."""
    with raw.open("r+b") as stream:
        stream.truncate(BOOT_AT + (BOOT_MIB + 1) * MIB)
    tree = raw.parent / "boot"
    (tree / "from-boot").mkdir(parents=True)
    tiny_root.run(
        "sfdisk", "--quiet", "--append", raw, text=f"start={BOOT_AT // 512},size={BOOT_MIB}MiB\n"
    )
    where = f"offset={BOOT_AT}"
    words = ("mke2fs", "-q", "-t", "ext4", "-L", label, "-E", where, "-d", tree, raw)
    tiny_root.run(*words, f"{BOOT_MIB}M")
    root = f"{raw}?offset={tiny_root.START_BYTES}"
    (raw.parent / "fstab").write_text(fstab)
    for command in (f"write {raw.parent}/fstab /etc/fstab", "mkdir /boot"):
        tiny_root.run("debugfs", "-w", "-R", command, root)


@pytest.mark.usefixtures("way")
def test_a_boot_of_its_own_is_there_and_is_written(raw: Path) -> None:
    with_boot(raw, "LABEL=root / ext4 defaults 0 1\nLABEL=BOOT /boot ext4 defaults 0 2\n")
    assert adopt(raw, "ls /boot; echo kernel > /boot/vmlinuz")[-2:] == ["from-boot", "lost+found"]
    where = f"{raw}?offset={BOOT_AT}"
    said = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "cat /vmlinuz", where], check=True, capture_output=True
    )
    assert said.stdout == b"kernel\n"
    assert root_blocks(raw, BOOT_AT) == BOOT_MIB
    # What lies behind the root stays where it is.
    assert root_blocks(raw) == 65


def test_a_boot_that_is_not_there_is_refused(raw: Path) -> None:
    with_boot(raw, "LABEL=other /boot ext4 defaults 0 2\n")
    assert refused(raw) == "nothing on the disk is the LABEL=other that its fstab names"


def test_a_var_of_its_own_is_refused(raw: Path) -> None:
    with_boot(raw, "/dev/sda2 /var ext4 defaults 0 2\n")
    assert refused(raw) == "it has file systems of their own for /var"


def test_other_file_systems_are_refused(raw: Path) -> None:
    swap = raw.with_name("swap")
    swap.write_bytes(bytes(8 * MIB))
    tiny_root.run("mkswap", swap)
    with raw.open("r+b") as stream:
        stream.seek(tiny_root.START_BYTES)
        stream.write(swap.read_bytes())
    assert refused(raw) == "its largest partition, the root for all we know, holds swap, not ext4"


def test_a_disk_without_partitions_is_refused(raw: Path) -> None:
    with raw.open("r+b") as stream:
        stream.write(bytes(MIB))
        stream.seek(-MIB, 2)
        stream.write(bytes(MIB))
    assert refused(raw) == "it has no partition table that can be read"


@pytest.mark.usefixtures("way")
def test_a_largest_partition_that_is_no_root_is_refused(raw: Path) -> None:
    root = f"{raw}?offset={tiny_root.START_BYTES}"
    tiny_root.run("debugfs", "-w", "-R", "rm /bin/sh", root)
    assert refused(raw) == "its largest partition, the root for all we know, has no /bin/sh"


def test_a_damaged_root_is_refused(raw: Path) -> None:
    root = f"{raw}?offset={tiny_root.START_BYTES}"
    tiny_root.run("debugfs", "-w", "-R", "clri /bin", root)
    assert refused(raw) == "its root file system is damaged"


@pytest.mark.parametrize(
    "link", ["", "../run/resolvconf/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"]
)
def test_names_can_be_resolved_whatever_the_disk_has(raw: Path, link: str) -> None:
    root = f"{raw}?offset={tiny_root.START_BYTES}"
    if link:
        tiny_root.run("debugfs", "-w", "-R", f"symlink /etc/resolv.conf {link}", root)
    else:
        (raw.parent / "resolv.conf").write_text("nameserver 192.0.2.1\n")
        write = f"write {raw.parent}/resolv.conf /etc/resolv.conf"
        tiny_root.run("debugfs", "-w", "-R", write, root)
    own = Path("/etc/resolv.conf").read_text()
    said = adopt(raw, "cat /etc/resolv.conf", network=True)
    assert [line for line in own.splitlines() if line.strip()] == said[-len(own.splitlines()) :]
    left = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "stat /etc/resolv.conf", root], check=True, capture_output=True
    ).stdout.decode()
    assert ("symlink" if link else "Size: 21") in left


def with_programs(raw: Path, **programs: str) -> None:
    """Put programs into the root: scripts by name."""
    root = f"{raw}?offset={tiny_root.START_BYTES}"
    for name, text in programs.items():
        path = raw.parent / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        target = f"/bin/{name.replace('_', '-')}"
        for command in (f"write {path} {target}", f"sif {target} mode 0100755"):
            tiny_root.run("debugfs", "-w", "-R", command, root)


LOOK = (native.SCRIPTS / "look.sh").read_text()


def test_what_is_missing_in_a_disk_is_named(raw: Path) -> None:
    with_programs(raw, dpkg="echo arm64", apt_get="")
    assert refused(raw, LOOK) == "there is no cloud-init in it"


def test_a_disk_of_another_architecture_is_refused(raw: Path) -> None:
    with_programs(raw, dpkg="echo arm64", apt_get="", cloud_init="", systemctl="")
    assert refused(raw, LOOK) == "its packages are for arm64, not amd64"


def test_the_kernel_is_the_newest_that_can_boot(raw: Path) -> None:
    with_programs(raw, dpkg="echo amd64", apt_get="", cloud_init="", systemctl="")
    root = f"{raw}?offset={tiny_root.START_BYTES}"
    tiny_root.run("debugfs", "-w", "-R", "mkdir /boot", root)
    tiny_root.run("debugfs", "-w", "-R", "mkdir /lib/modules", root)
    # Of the newest there are only headers, and one was removed but for its file.
    for kernel in ("6.1.0-9", "6.1.0-10", "6.1.0-11"):
        tiny_root.run("debugfs", "-w", "-R", f"mkdir /lib/modules/{kernel}", root)
    for kernel in ("6.1.0-9", "6.1.0-10", "6.1.0-12"):
        tiny_root.run("debugfs", "-w", "-R", f"write /etc/hostname /boot/vmlinuz-{kernel}", root)
    assert adopt(raw, LOOK)[-1] == "kernel=6.1.0-10"


def test_a_disk_without_a_kernel_is_refused(raw: Path) -> None:
    with_programs(raw, dpkg="echo amd64", apt_get="", cloud_init="", systemctl="")
    assert refused(raw, LOOK).startswith("there is no kernel with its modules in it")
