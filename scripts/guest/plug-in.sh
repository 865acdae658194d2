# Mounts the toolchain and the source, which were plugged into the build VM as disks, where compile.sh
# looks for them. compile.sh goes on from here in the same shell.
# shellcheck shell=sh
set -eu

root=/run/vmbake/toolchain

device() { # serial number of a disk that was plugged in
    path=/dev/disk/by-id/virtio-$1
    udevadm settle --timeout=60 --exit-if-exists="$path"
    [ -e "$path" ] || { echo "the disk $1 did not appear" >&2; exit 1; }
    echo "$path"
}

mkdir -p "$root" /run/vmbake/results /run/vmbake/source /var/tmp/vmbake
disk=$(device toolchain)
# Made natively, it is a squashfs; made in a guest, a whole disk, its root the partition with /usr.
for candidate in "$disk" "$disk"-part*; do
    mount -t squashfs -o ro "$candidate" "$root" 2> /dev/null ||
        mount -o ro,noload "$candidate" "$root" 2> /dev/null || continue
    if [ -d "$root/usr/bin" ]; then break; fi
    umount "$root"
done
[ -d "$root/usr/bin" ] || { echo "vmbake: the toolchain disk has no root file system" >&2; exit 1; }
mount -t iso9660 -o ro "$(device source)" /run/vmbake/source
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind /var/tmp/vmbake "$root/tmp"
