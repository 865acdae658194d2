"""A Linux guest of one kernel, busybox and a script, which announces what it does.

It is told what to do by plugging in disks: the id of the disk is the order.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from tasks.qemu.spec import READY_PORT
from tests.standins.debs import kernel_packages, unpack

DRIVERS = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("virtio_blk", "virtio_console", "pvpanic", "pvpanic-pci"),
)
READY = '{"ready": true}'
# mdev would need rules; devtmpfs names the ports vport1p1 and so on, sysfs knows their names.
INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for driver in {" ".join(DRIVERS)}; do
    [ ! -f /$driver.ko ] || insmod /$driver.ko
done
while ! port=$(grep -lx {READY_PORT} /sys/class/virtio-ports/*/name); do usleep 10000; done
exec 3>/dev/$(basename $(dirname $port))
say() {{ echo "$1" >&3; }}
say '{{"progress": "booted"}}'
say '{{"facts": {{"kernel": "'$(uname -r)'"}}}}'
say '{READY}'
seen=
tick=0
while :; do
    tick=$((tick + 1))
    [ $((tick % 20)) != 0 ] || say '{{"tick": '$tick'}}'
    now=$(cat /sys/block/vd*/serial 2>/dev/null | tr '\\n' ' ')
    if [ "$now" != "$seen" ]; then
        say '{{"disks": "'$now'"}}'
        case $now in
            *source*)
                disk=$(dirname $(grep -lx source /sys/block/vd*/serial))
                say '{{"content": "'$(head -c 5 /dev/${{disk##*/}})'"}}'
                ;;
            *scribble*) echo scribble > /dev/vda && sync && say '{{"wrote": "root"}}' ;;
            *crash*) echo c > /proc/sysrq-trigger ;;
            *off*) poweroff -f ;;
        esac
        seen=$now
    fi
    usleep 10000
done
"""


@dataclass(frozen=True, kw_only=True)
class TinyLinux:
    """The files that QEMU boots."""

    kernel: Path
    initrd: Path


def make(directory: Path, ready: str = READY) -> TinyLinux:
    """Fetch the distribution's kernel and busybox with apt-get, and put them together.

    Args:
        ready: what it announces once it is up, in JSON.
    """
    tree = unpack(directory / "tree", *kernel_packages(), "busybox-static")
    kernel = next(tree.glob("boot/vmlinuz-*"))
    kernel.chmod(0o644)
    busybox = next(
        path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.exists()
    )
    files = {"init": INIT.replace(READY, ready).encode(), "bin/busybox": busybox.read_bytes()}
    for driver in DRIVERS:
        for module in tree.rglob(f"{driver}.ko"):
            files[module.name] = module.read_bytes()
    initrd = directory / "initrd"
    initrd.write_bytes(cpio(("bin", "dev", "proc", "sys"), files))
    return TinyLinux(kernel=kernel, initrd=initrd)


def cpio(directories: tuple[str, ...], files: dict[str, bytes]) -> bytes:
    """An archive in the form "newc" (see buffer-format.rst in the kernel's documentation)."""
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in directories]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    entries.append(("TRAILER!!!", 0, b""))
    archive = b""
    for number, (name, mode, content) in enumerate(entries, start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields)
        archive += padded(name.encode() + b"\0", offset=110) + padded(content)
    return archive


def padded(data: bytes, offset: int = 0) -> bytes:
    return data + bytes(-(offset + len(data)) % 4)
