from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.core.errors import BadInput, CommandFailed
from tasks.core.process import Runner
from tasks.guest.bootstrap import explain
from tasks.guest.partition import (
    SECTOR_BYTES,
    BootFiles,
    Ids,
    Layout,
    assemble,
    derive_ids,
    plan_layout,
)

pytestmark = pytest.mark.integration

EPOCH_S = 1_700_000_000
DISK_BYTES = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Made:
    disk: Path
    layout: Layout
    ids: Ids
    root: Path

    def at(self, start_bytes: int, size_bytes: int) -> bytes:
        with self.disk.open("rb") as stream:
            stream.seek(start_bytes)
            return stream.read(size_bytes)

    @property
    def file_system(self) -> str:
        """The root file system in the words of libext2fs."""
        return f"{self.disk}?offset={self.layout.root.start_bytes}"


def tool(*argv: str | Path, **env: str) -> str:
    done = subprocess.run(
        [str(word) for word in argv],
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", **env},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def boot_files(folder: Path) -> BootFiles:
    """GRUB's images as far as the assembly looks at them, and an ESP."""
    boot_img = folder / "boot.img"
    boot_img.write_bytes(bytes([0xEB]) * 510 + b"\x55\xaa")
    core_img = folder / "core.img"
    core_img.write_bytes(bytes(500) + struct.pack("<QHH", 2, 3, 0x820) + b"\xaa" * 1500)
    esp = folder / "esp"
    (esp / "EFI/BOOT").mkdir(parents=True)
    (esp / "EFI/BOOT/BOOTX64.EFI").write_bytes(b"MZ" * 1000)
    (esp / "EFI/debian").mkdir()
    (esp / "EFI/debian/grub.cfg").write_text("configfile $prefix/grub.cfg\n")
    for path in [esp, *esp.rglob("*")]:
        os.utime(path, (EPOCH_S, EPOCH_S))
    return BootFiles(boot_img=boot_img, core_img=core_img, esp=esp)


def root_tree(folder: Path) -> Path:
    root = folder / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("tiny\n")
    (root / "etc/link").symlink_to("hostname")
    (root / "etc/twin").hardlink_to(root / "etc/hostname")
    (root / "big").write_bytes(bytes(range(256)) * 40_000)
    (root / "etc/hostname").chmod(0o640)
    # Ahead of all else, the time of the last access stays when the tree is read (relatime,
    # mount(8)): the next one to read it finds it as it was.
    later_s = time.time() + 3600
    for path in [root, *root.rglob("*")]:
        os.utime(path, (later_s, EPOCH_S), follow_symlinks=False)
    return root


def make(folder: Path, name: str = "disk.raw") -> Made:
    layout, ids, root = plan_layout(DISK_BYTES), derive_ids("test"), folder / "root"
    if not root.exists():
        root_tree(folder)
        boot_files(folder)
    boot = BootFiles(boot_img=folder / "boot.img", core_img=folder / "core.img", esp=folder / "esp")
    runner = Runner(folder / "log")
    disk = folder / name
    assemble(disk, layout, ids, root, boot, runner=runner, epoch_s=EPOCH_S)
    return Made(disk=disk, layout=layout, ids=ids, root=root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("disk"))


def test_partition_table(made: Made) -> None:
    table = json.loads(tool("sfdisk", "--json", made.disk))["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", made.ids.disk)
    found = {
        part["name"]: (part["start"], part["size"], part["uuid"].lower())
        for part in table["partitions"]
    }
    assert found == {
        "root": (made.layout.root.start_lba, made.layout.root.sectors, made.ids.root),
        "bios": (made.layout.bios.start_lba, made.layout.bios.sectors, made.ids.bios),
        "esp": (made.layout.esp.start_lba, made.layout.esp.sectors, made.ids.esp),
    }
    assert "No errors detected" in tool("sfdisk", "--verify", made.disk)


def test_boot_code_lies_beside_the_table(made: Made) -> None:
    mbr = made.at(0, SECTOR_BYTES)
    assert mbr[:2] == b"\xeb\xeb"
    assert struct.unpack_from("<Q", mbr, 0x5C) == (made.layout.bios.start_lba,)
    # The protective entry (type EE) and the signature are sfdisk's.
    assert (mbr[0x1BE + 4], mbr[510:]) == (0xEE, b"\x55\xaa")
    core = made.at(made.layout.bios.start_bytes, 4 * SECTOR_BYTES)
    assert struct.unpack_from("<QHH", core, 500) == (made.layout.bios.start_lba + 1, 3, 0x820)
    assert core[512:2012] == b"\xaa" * 1500


def test_root_is_sound_and_has_what_the_tree_has(made: Made, tmp_path: Path) -> None:
    tool("e2fsck", "-fn", made.file_system)
    tool("debugfs", "-R", f"rdump / {tmp_path}", made.file_system)
    assert (tmp_path / "big").read_bytes() == (made.root / "big").read_bytes()
    assert (tmp_path / "etc/hostname").read_text() == "tiny\n"
    assert (tmp_path / "etc/link").readlink() == Path("hostname")
    listing = tool("debugfs", "-R", "stat /etc/twin", made.file_system)
    assert "Links: 2" in listing
    assert "Mode:  0640" in listing


def test_root_can_be_mounted_by_old_kernels_and_read_by_old_grubs(made: Made) -> None:
    head = tool("dumpe2fs", "-h", made.file_system)
    features = next(line for line in head.splitlines() if line.startswith("Filesystem features"))
    assert not {"orphan_file", "metadata_csum_seed"} & set(features.split())
    assert {"metadata_csum", "64bit", "has_journal"} <= set(features.split())
    assert made.ids.root_fs in head


def test_esp_is_fat32_without_a_table_of_its_own(made: Made) -> None:
    image = f"{made.disk}@@{made.layout.esp.start_bytes}"
    info = tool("minfo", "-i", image, "::")
    assert 'disk type="FAT32' in info
    assert f"serial number: {made.ids.esp_fs.upper()}" in info
    listing = tool("mdir", "-i", image, "-b", "-/", "::")
    assert "::/EFI/BOOT/BOOTX64.EFI" in listing
    assert "::/EFI/debian/grub.cfg" in listing
    for sector in (0, 6):
        boot = made.at(made.layout.esp.start_bytes + sector * SECTOR_BYTES, SECTOR_BYTES)
        assert boot[0x1BE:] == bytes(64) + b"\x55\xaa"


def test_is_sparse(made: Made) -> None:
    assert made.disk.stat().st_size == DISK_BYTES
    assert made.disk.stat().st_blocks * 512 < 64 << 20


def test_same_input_same_bytes(made: Made) -> None:
    # ext4 keeps each inode's change time, which nobody can set: the tree has to be the same one.
    again = make(made.disk.parent, "again.raw")
    tool("cmp", made.disk, again.disk)


def test_too_large_a_tree(tmp_path: Path) -> None:
    root = root_tree(tmp_path)
    boot_files(tmp_path)
    with (root / "huge").open("wb") as stream:
        for _ in range(DISK_BYTES >> 20):
            stream.write(b"\1" * (1 << 20))
    with pytest.raises(CommandFailed, match="mke2fs failed") as caught:
        make(tmp_path)
    assert isinstance(explain(caught.value, caught.value.tail), BadInput)
