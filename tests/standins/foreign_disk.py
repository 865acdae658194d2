"""Disks as somebody else makes them, out of a base of ours: another layout, other packages."""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.core.process import Runner
from tasks.guest.native import Inside, run_in_disk
from tasks.qemu import disk
from tests.standins.tiny_root import run

MIB = 1 << 20
BOOT_BYTES = 256 * MIB
# No package that brings new kernels, documentation wanted, a name server of another network, and
# kernels on a partition of their own, from which GRUB, which stays where it is, loads them.
CHANGES = """\
set -eu
dpkg --purge linux-image-cloud-amd64
rm /etc/dpkg/dpkg.cfg.d/50-vmbake-size /etc/resolv.conf
echo nameserver 192.0.2.1 > /etc/resolv.conf
mkdir /run/vmbake/boot
mv /boot/[!g]* /run/vmbake/boot/
cp -R /boot/grub /run/vmbake/boot/grub
echo 'LABEL=BOOT /boot ext4 defaults 0 2' >> /etc/fstab
kernel=$(ls /lib/modules)
uuid=$(sed -n 's/^UUID=\\([^ ]*\\) [/] .*/\\1/p' /etc/fstab)
cat > /boot/grub/grub.cfg << END
serial --unit=0 --speed=115200
search --label --set=root BOOT
linux /vmlinuz-$kernel root=UUID=$uuid ro console=tty0 console=ttyS0,115200
initrd /initrd.img-$kernel
boot
END
"""


def make(base: Path, target: Path) -> None:
    """A disk with a /boot of its own behind the root of a base's."""
    work = target.parent / f"{target.stem}-work"
    share = work / "share"
    share.mkdir(parents=True)
    changed(base, work / "changed.qcow2", CHANGES, share)
    runner = Runner(work / "log")
    raw = work / "disk.raw"
    disk.convert(runner, work / "changed.qcow2", "qcow2", raw, "raw")
    boot_at = raw.stat().st_size
    with raw.open("r+b") as stream:
        stream.truncate(boot_at + BOOT_BYTES + MIB)
    where = f"start={boot_at // 512},size={BOOT_BYTES // 512}"
    run("sfdisk", "--quiet", "--append", "-N", "2", raw, text=f"{where}\n")
    options = ("-L", "BOOT", "-E", f"offset={boot_at}", "-d", share / "boot")
    run("mke2fs", "-q", "-t", "ext4", *options, raw, f"{BOOT_BYTES // MIB}M")
    disk.convert(runner, raw, "raw", target, "qcow2")
    shutil.rmtree(work)


def changed(base: Path, target: Path, script: str, share: Path) -> None:
    """A copy of a disk in whose root a script has run; it finds `share` as /run/vmbake."""
    runner = Runner(target.with_suffix(".log"))
    disk.convert(runner, base, "qcow2", target, "qcow2")
    work = target.with_suffix(".work")
    work.mkdir()
    run_in_disk(
        target,
        Inside(script=script, share=share, hostname="other"),
        work,
        runner=runner,
        timeout_s=600,
        on_line=lambda line: None,
    )
