"""A disk that boots from BIOS and UEFI, put together from a directory without root or loops."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import BadInput
from tasks.core.process import Runner

SECTOR_BYTES = 512
MIB = 1 << 20
ESP_BYTES = 64 * MIB
LEAST_DISK_BYTES = 512 * MIB

# GPT types: UEFI 2.10, 5.3.3; GNU GRUB manual, "BIOS installation"; the UAPI Group's
# Discoverable Partitions Specification for x86-64's root.
BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

# GRUB 2, include/grub/i386/pc/boot.h: where boot.img finds the first sector of core.img
# (KERNEL_SECTOR), the end of its code (WINDOWS_NT_MAGIC), and the jump that grub-setup
# replaces on hard disks (DRIVE_CHECK: some BIOSes pass a wrong drive; setup.c writes two NOPs).
KERNEL_SECTOR_AT = 0x5C
DRIVE_CHECK_AT = 0x66
BOOT_CODE_BYTES = 0x1B8
NOPS = b"\x90\x90"
# diskboot.img, the first sector of core.img, ends with the list of the blocks to load
# (struct grub_pc_bios_boot_blocklist: u64 start, u16 length, u16 segment); grub-mkimage fills in
# the length, grub-setup the start. The segment says whether we are looking at the right place.
BLOCKLIST_AT = SECTOR_BYTES - 12
BLOCKLIST_SEGMENT = 0x820

# The four entries of a PC partition table, in front of the signature 55 AA; where FAT32 keeps
# the copy of its boot sector (Microsoft's FAT specification, BPB_BkBootSec).
PARTITION_TABLE_AT = 0x1BE
PARTITION_TABLE_BYTES = 64
FAT32_BACKUP_SECTOR = 6

# What `mke2fs` takes its defaults from. Written out, so that every host makes the same file
# system, and one that Linux 5.15 mounts and GRUB 2.06 reads: no orphan_file, no
# metadata_csum_seed, both of which newer e2fsprogs switch on.
MKE2FS_CONF = """\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tdefault_mntopts = acl,user_xattr
\tenable_periodic_fsck = 0
\tblocksize = 4096
\tinode_size = 256
\tinode_ratio = 16384
[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
\t}
"""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A range of a disk, in bytes."""

    start_bytes: int
    size_bytes: int

    @property
    def start_lba(self) -> int:
        return self.start_bytes // SECTOR_BYTES

    @property
    def sectors(self) -> int:
        return self.size_bytes // SECTOR_BYTES


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the partitions lie; root is the last on the disk, so that it can grow."""

    disk_bytes: int
    bios: Extent
    esp: Extent
    root: Extent


@dataclass(frozen=True, kw_only=True)
class Ids:
    """Everything on the disk that is usually random, derived from a seed."""

    disk: str
    bios: str
    esp: str
    root: str
    root_fs: str
    hash_seed: str
    esp_fs: str

    @property
    def esp_uuid(self) -> str:
        """The ESP's UUID= in fstab: its serial number."""
        return f"{self.esp_fs[:4]}-{self.esp_fs[4:]}".upper()


@dataclass(frozen=True, kw_only=True)
class BootFiles:
    """What the boot partitions are filled with.

    Args:
        boot_img: GRUB's boot sector, as shipped.
        core_img: GRUB's core for BIOS, made by grub-mkimage.
        esp: a directory whose content becomes that of the ESP.
    """

    boot_img: Path
    core_img: Path
    esp: Path


def plan_layout(disk_bytes: int) -> Layout:
    """Where the partitions of a disk of this size lie.

    Raises:
        BadInput: the size is no whole number of MiB, or too small.
    """
    if disk_bytes % MIB or disk_bytes < LEAST_DISK_BYTES:
        raise BadInput(
            f"A disk of {disk_bytes} bytes can't be made: whole MiB are expected, "
            f"and {LEAST_DISK_BYTES // MIB} at least."
        )
    bios = Extent(start_bytes=MIB, size_bytes=MIB)
    esp = Extent(start_bytes=2 * MIB, size_bytes=ESP_BYTES)
    start = esp.start_bytes + esp.size_bytes
    # The last MiB is for the backup GPT.
    root = Extent(start_bytes=start, size_bytes=disk_bytes - MIB - start)
    return Layout(disk_bytes=disk_bytes, bios=bios, esp=esp, root=root)


def derive_ids(seed: str) -> Ids:
    """The same identifiers for the same seed (RFC 9562, UUID version 5)."""

    def derive(what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:vmbake:{seed}:{what}"))

    return Ids(
        disk=derive("disk"),
        bios=derive("bios"),
        esp=derive("esp"),
        root=derive("root"),
        root_fs=derive("root-fs"),
        hash_seed=derive("hash-seed"),
        esp_fs=derive("esp-fs")[:8],
    )


def sfdisk_script(layout: Layout, ids: Ids) -> str:
    """The partition table in the words of sfdisk(8).

    The numbers are those of Debian's and Ubuntu's cloud images: root is 1 though it lies last.
    """

    def line(number: int, extent: Extent, kind: str, ident: str, name: str) -> str:
        return (
            f"{number} : start={extent.start_lba}, size={extent.sectors}, "
            f'type={kind}, uuid={ident}, name="{name}"\n'
        )

    return (
        f"label: gpt\nlabel-id: {ids.disk}\nunit: sectors\nfirst-lba: 2048\n"
        + line(1, layout.root, ROOT_TYPE, ids.root, "root")
        + line(14, layout.bios, BIOS_BOOT_TYPE, ids.bios, "bios")
        + line(15, layout.esp, ESP_TYPE, ids.esp, "esp")
    )


def patch_boot_sector(boot_img: bytes, core_lba: int) -> bytes:
    """The code part of the MBR: boot.img, told where core.img lies.

    Raises:
        BadInput: this is no GRUB boot.img.
    """
    if len(boot_img) != SECTOR_BYTES or boot_img[-2:] != b"\x55\xaa":
        raise BadInput("GRUB's boot.img is not one boot sector.")
    code = bytearray(boot_img[:BOOT_CODE_BYTES])
    struct.pack_into("<Q", code, KERNEL_SECTOR_AT, core_lba)
    code[DRIVE_CHECK_AT : DRIVE_CHECK_AT + 2] = NOPS
    return bytes(code)


def patch_core(core_img: bytes, core_lba: int, room_bytes: int) -> bytes:
    """core.img, its first sector told where the others lie: right behind it.

    Raises:
        BadInput: this is no core.img for BIOS, or it is too large for the partition.
    """
    rest = -(-len(core_img) // SECTOR_BYTES) - 1
    if rest < 1 or len(core_img) > room_bytes:
        raise BadInput(f"GRUB's core.img has {len(core_img)} bytes; {room_bytes} at most fit.")
    _, length, segment = struct.unpack_from("<QHH", core_img, BLOCKLIST_AT)
    if segment != BLOCKLIST_SEGMENT or length != rest:
        raise BadInput("GRUB's core.img does not start with the list of its blocks.")
    core = bytearray(core_img)
    struct.pack_into("<Q", core, BLOCKLIST_AT, core_lba + 1)
    return bytes(core)


def assemble(
    disk: Path,
    layout: Layout,
    ids: Ids,
    root: Path,
    boot: BootFiles,
    *,
    runner: Runner,
    epoch_s: int,
    in_namespace: tuple[str, ...] = (),
) -> None:
    """Write a raw, sparse disk with a partition table, boot loaders, and `root` as its root.

    Args:
        disk: the file to make.
        root: the directory that becomes the root file system.
        epoch_s: the time of everything that is made here, in seconds since 1970.
        in_namespace: words before a command that let it see `root` with its true owners.

    Raises:
        BadInput: the boot files are not what they should be.
        CommandFailed: a tool failed; NoRoom is for the caller to tell.
    """
    with disk.open("wb") as stream:
        stream.truncate(layout.disk_bytes)
    runner.run(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk],
        stdin=sfdisk_script(layout, ids).encode(),
    )
    write_boot_code(disk, layout, boot)
    make_esp(disk, layout.esp, ids, boot.esp, runner=runner, epoch_s=epoch_s)
    if in_namespace:
        # The owner there is another user. The directory's name is random and can't be listed.
        disk.chmod(0o666)
    make_ext4(
        disk, layout.root, ids, root, runner=runner, epoch_s=epoch_s, in_namespace=in_namespace
    )
    disk.chmod(0o600)


def write_boot_code(disk: Path, layout: Layout, boot: BootFiles) -> None:
    """Put GRUB for BIOS into the MBR and its partition; the table in the MBR stays."""
    mbr = patch_boot_sector(boot.boot_img.read_bytes(), layout.bios.start_lba)
    core = patch_core(boot.core_img.read_bytes(), layout.bios.start_lba, layout.bios.size_bytes)
    with disk.open("r+b") as stream:
        stream.write(mbr)
        stream.seek(layout.bios.start_bytes)
        stream.write(core)


def make_esp(
    disk: Path, extent: Extent, ids: Ids, content: Path, *, runner: Runner, epoch_s: int
) -> None:
    """Make a FAT32 file system in the extent, with the content of a directory."""
    image = f"{disk}@@{extent.start_bytes}"
    env = {"SOURCE_DATE_EPOCH": str(epoch_s), "MTOOLSRC": "/dev/null", "TZ": "UTC"}
    argv = ["mformat", "-i", image, "-F", "-N", ids.esp_fs, "-v", "ESP", "-h", "255", "-s", "63"]
    argv += ["-c", "1", "-T", str(extent.sectors), "-H", str(extent.start_lba), "::"]
    runner.run(argv, env=env)
    clear_inner_table(disk, extent)
    entries = sorted(content.iterdir())
    runner.run(["mcopy", "-i", image, "-s", "-Q", "-m", *entries, "::"], env=env)


def clear_inner_table(disk: Path, extent: Extent) -> None:
    """Remove the partition table that mformat writes into a FAT32 boot sector and its copy.

    It names the file system itself as a partition; GRUB complains at each update-grub.
    """
    with disk.open("r+b") as stream:
        for sector in (0, FAT32_BACKUP_SECTOR):
            stream.seek(extent.start_bytes + sector * SECTOR_BYTES + PARTITION_TABLE_AT)
            stream.write(bytes(PARTITION_TABLE_BYTES))


def make_ext4(
    disk: Path,
    extent: Extent,
    ids: Ids,
    root: Path,
    *,
    runner: Runner,
    epoch_s: int,
    in_namespace: tuple[str, ...] = (),
) -> None:
    """Make an ext4 file system in the extent, with the content of a directory."""
    config = disk.with_name("mke2fs.conf")
    config.write_text(MKE2FS_CONF)
    config.chmod(0o644)
    options = (
        f"offset={extent.start_bytes},hash_seed={ids.hash_seed},root_owner=0:0,"
        # Zeroed now (holes in a file cost nothing), else the guest does it at its first boot.
        "lazy_itable_init=0,lazy_journal_init=0"
    )
    env = {
        "MKE2FS_CONFIG": str(config),
        "E2FSPROGS_FAKE_TIME": str(epoch_s),
        "SOURCE_DATE_EPOCH": str(epoch_s),
    }
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", ids.root_fs, "-m", "1"]
    argv += ["-J", "size=32", "-E", options, "-d", str(root), str(disk)]
    runner.run([*in_namespace, *argv, f"{extent.size_bytes // 1024}k"], env=env)
