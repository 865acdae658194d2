"""The files and commands that turn installed Debian packages into a root that boots anywhere."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.guest.partition import Ids

# Where the commands run in the root find their files and leave their results; mmdebstrap
# empties /tmp at the end.
STAGING = "tmp/vmbake"
CONSOLES = "console=tty0 console=ttyS0,115200"

# What core.img needs to find and read grub.cfg; the rest is loaded from /boot/grub/i386-pc.
CORE_MODULES = "biosdisk part_gpt ext2 search_fs_uuid normal configfile linux echo test serial"

# What packages' scripts start again and again, each time for a little more: out of the way while
# they run. CUSTOMIZE puts it back and does all at once. They look whether the first is there, and
# get something instead of the second.
LATER = ("/usr/bin/py3compile", "/usr/sbin/update-ca-certificates")
NO_CERTIFICATES_YET = 'ln -s ../bin/true "$1/usr/sbin/update-ca-certificates"'

# Read by mmdebstrap before the first package is unpacked. dpkg's options for good and for the
# time of the build are kept apart; the latter are removed at the end.
SETUP_FILES = {
    "etc/dpkg/dpkg.cfg.d/50-vmbake-size": """\
# Size first: copyright files stay, other documentation and translations don't.
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
# It makes systemd-binfmt.service run at each boot, to start .pyc files without naming Python.
path-exclude=/usr/lib/binfmt.d/python3*
""",
    "etc/dpkg/dpkg.cfg.d/99-vmbake-build": "force-unsafe-io\n",
    # With MERGE_USR there is nothing to merge; Debian 12 would take usrmerge for it, with Perl.
    "etc/apt/preferences.d/99-vmbake-build": (
        "Package: usrmerge\nPin: release *\nPin-Priority: -1\n"
    ),
    # Three lines each: what, where to, by whom (none: by this machine's administrator).
    "var/lib/dpkg/diversions": "".join(f"{path}\n{path}.later\n:\n" for path in LATER),
    # The script of OpenSSH makes a key of each kind that is not there; a machine makes its own.
    **{f"etc/ssh/ssh_host_{kind}_key": "" for kind in ("rsa", "ecdsa", "ed25519")},
}

# Run beside the root ($1) before anything is unpacked: Debian 12's packages don't bring the links
# that make /bin the same as /usr/bin.
MERGE_USR = """\
set -eu
for name in bin sbin lib lib64; do
  mkdir -p "$1/usr/$name"
  [ -e "$1/$name" ] || ln -s "usr/$name" "$1/$name"
done
"""

INITRAMFS_CONF = """\
MODULES=list
COMPRESS=zstd
RESUME=none
FSTYPE=ext4
"""

# Every disk that clouds and hypervisors offer. With these instead of MODULES=most the initramfs
# is a third as large. Debian 13's cloud kernel has the first three built in, Debian 12's has not.
INITRAMFS_MODULES = """\
virtio_pci
nvme
ext4
virtio_blk
virtio_scsi
sd_mod
ahci
ata_piix
ata_generic
xen-blkfront
hv_storvsc
vmw_pvscsi
"""

# udev's hook copies the hardware database, 13 MB that only name devices.
INITRAMFS_HOOK = """\
#!/bin/sh
PREREQ="udev"
[ "$1" = prereqs ] && { echo "$PREREQ"; exit 0; }
rm -f "$DESTDIR/usr/lib/udev/hwdb.bin" "$DESTDIR/etc/udev/hwdb.bin"
"""

GRUB_DEFAULTS = f"""\
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="{CONSOLES} consoleblank=0"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --speed=115200"
GRUB_TERMINAL_OUTPUT="console serial"
"""

# One way to the network: cloud-init writes networkd's files, and where there is no seed the
# last one asks for an address on every wire. Nothing listens: no LLMNR, no mDNS, no DNS stub.
NETWORK_FILES = {
    "etc/cloud/cloud.cfg.d/50-vmbake.cfg": """\
# Without its own name in /etc/hosts a machine asks the network for it, at every sudo.
manage_etc_hosts: localhost
system_info:
  network:
    renderers: [networkd]
    activators: [networkd]
""",
    "etc/systemd/network/99-dhcp.network": """\
[Match]
Type=ether
Name=en* eth*

[Network]
DHCP=yes
""",
    "etc/systemd/resolved.conf.d/50-vmbake.conf": """\
[Resolve]
LLMNR=no
MulticastDNS=no
DNSStubListener=no
""",
}

CUSTOMIZE = r"""
set -eu
staging=/tmp/vmbake
out=$staging/out
release=$(cd /lib/modules && ls | sort -V | tail -n 1)
mkdir -p "$out/esp/EFI/BOOT" "$out/esp/EFI/debian" /boot/grub/i386-pc /boot/efi

# Essential packages were unpacked before dpkg ran: what it would have left out goes now.
find /usr/share/doc ! -type d ! -name copyright -delete
find /usr/share/locale ! -type d ! -name locale.alias -delete
find /usr/share/man /usr/share/info /usr/share/lintian ! -type d -delete 2>/dev/null || :
find /usr/share/doc /usr/share/locale -mindepth 1 -type d -empty -delete

echo LANG=C.UTF-8 >/etc/default/locale
ln -sf ../run/systemd/resolve/resolv.conf /etc/resolv.conf
rm -f /etc/ssh/ssh_host_*
systemctl --quiet enable systemd-networkd.service systemd-resolved.service
# It looks for LVM snapshots, which no cloud image has.
systemctl --quiet disable e2scrub_reap.service e2scrub_all.timer
# It tells GRUB that the boot succeeded; with a menu that waits for nobody, nobody asks.
systemctl --quiet disable grub-common.service

rm /usr/sbin/update-ca-certificates
for path in LATER; do
  dpkg-divert --quiet --local --rename --remove "$path"
done
update-ca-certificates >/dev/null &
certificates=$!
{
  # Some packages have files for other Pythons, which can't be compiled.
  python3 -m compileall -q /usr/lib/python3/dist-packages /usr/share/python3 || :
  # Modules in other places are named in the scripts.
  grep -hE '^[[:space:]]*py3compile .* /' /var/lib/dpkg/info/*.postinst | sh -e
} &
modules=$!

chmod 755 /etc/initramfs-tools/hooks/vmbake-size
SOURCE_DATE_EPOCH=$(stat -c %Y "/boot/vmlinuz-$release")
export SOURCE_DATE_EPOCH
update-initramfs -c -k "$release"

# grub-install does the same to a disk that is there; the packages do it again when upgraded.
touch /etc/grub.d/enable_cloud
cp /usr/lib/grub/i386-pc/*.mod /usr/lib/grub/i386-pc/*.lst /boot/grub/i386-pc/
grub-mkimage -O i386-pc -p /boot/grub -c "$staging/search.cfg" -o "$out/core.img" CORE_MODULES
cp /usr/lib/grub/i386-pc/boot.img "$out/"
cp /usr/lib/shim/shimx64.efi.signed "$out/esp/EFI/BOOT/BOOTX64.EFI"
cp /usr/lib/shim/mmx64.efi.signed "$out/esp/EFI/BOOT/mmx64.efi"
cp /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed "$out/esp/EFI/BOOT/grubx64.efi"
cp "$staging/search.cfg" "$out/esp/EFI/debian/grub.cfg"
echo "configfile \$prefix/grub.cfg" >>"$out/esp/EFI/debian/grub.cfg"
sed "s/@RELEASE@/$release/g" "$staging/grub.cfg" >/boot/grub/grub.cfg
find "$out/esp" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +

wait "$certificates"
wait "$modules"
cp -p "/boot/vmlinuz-$release" "$out/vmlinuz"
cp -p "/boot/initrd.img-$release" "$out/initrd.img"
chmod 644 "$out/initrd.img"
cp -p /var/lib/dpkg/status "$out/dpkg-status"
echo "$release" >"$out/release"
rm -f /etc/dpkg/dpkg.cfg.d/99-vmbake-build /etc/apt/preferences.d/99-vmbake-build
rm -f /var/cache/debconf/*-old /var/lib/dpkg/*-old
rm -rf /var/log/* /var/lib/apt/listchanges* /var/cache/man
mkdir -p /var/log/apt
# Else ldconfig.service and its like run at the first boot (ConditionNeedsUpdate=, systemd.unit(5)).
touch -r /usr /etc/.updated /var/.updated
""".replace("CORE_MODULES", CORE_MODULES).replace("LATER", " ".join(LATER))


@dataclass(frozen=True, kw_only=True)
class Boot:
    """How the machine that this root is for starts."""

    hostname: str
    ids: Ids


def search_cfg(ids: Ids) -> str:
    """GRUB commands that find the root file system, wherever the disk is attached."""
    return f"search.fs_uuid {ids.root_fs} root\nset prefix=($root)/boot/grub\n"


def grub_cfg(ids: Ids) -> str:
    """The menu until the first update-grub, which needs a running machine; @RELEASE@ is open."""
    return f"""\
# Replaced by update-grub at the first change of kernels.
set timeout=0
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
menuentry 'Debian GNU/Linux' {{
\tsearch.fs_uuid {ids.root_fs} root
\tlinux /boot/vmlinuz-@RELEASE@ root=UUID={ids.root_fs} ro {CONSOLES} consoleblank=0
\tinitrd /boot/initrd.img-@RELEASE@
}}
"""


def fstab(ids: Ids) -> str:
    """What is mounted. The ESP is needed by grub-install only, so no boot waits for it."""
    return (
        f"UUID={ids.root_fs} / ext4 errors=remount-ro,discard 0 1\n"
        f"UUID={ids.esp_uuid} /boot/efi vfat umask=0077,nofail 0 0\n"
    )


def root_files(boot: Boot) -> dict[str, str]:
    """Path to content of the files that are put into the root after its packages."""
    return {
        "etc/fstab": fstab(boot.ids),
        "etc/hostname": f"{boot.hostname}\n",
        "etc/hosts": (
            "127.0.0.1 localhost\n"
            f"127.0.1.1 {boot.hostname}\n"
            "::1 localhost ip6-localhost ip6-loopback\n"
        ),
        "etc/default/grub.d/50-vmbake.cfg": GRUB_DEFAULTS,
        "etc/initramfs-tools/conf.d/vmbake": INITRAMFS_CONF,
        "usr/share/initramfs-tools/modules.d/vmbake": INITRAMFS_MODULES,
        "etc/initramfs-tools/hooks/vmbake-size": INITRAMFS_HOOK,
        **NETWORK_FILES,
        f"{STAGING}/customize": CUSTOMIZE,
        f"{STAGING}/search.cfg": search_cfg(boot.ids),
        f"{STAGING}/grub.cfg": grub_cfg(boot.ids),
    }


def pack(files: Mapping[str, str]) -> bytes:
    """A tar archive of these files, all root's: mmdebstrap's tar-in keeps owners as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, text in sorted(files.items()):
            data = text.encode()
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
