#!/bin/sh
# Gives the root of a disk that vmbake did not make all the room behind it: its partition, if nothing
# else lies there, and then its file system.
#   adopt.sh DISK WORK
# As with-root.sh has them, which runs this before anything of the disk is mounted. Exit status 73: the root is
# none that can be opened here, the last line says why.
set -eu

disk=$1 work=$2
view=$work/root.part

# shellcheck source=scripts/native/disk.sh
. "${0%/*}/disk.sh"

find_root "$disk" "$work"
type=$(blkid --probe --offset "$start" --size "$size" --match-tag TYPE --output value "$disk" || true)
case $type in
    ext[234]) ;;
    *) unsupported "its largest partition, the root for all we know, holds ${type:-nothing known}, not ext4" ;;
esac

# growpart(1) does the same at a first boot.
echo ', +' | sfdisk --quiet --no-reread --no-tell-kernel -N "$number" "$disk" ||
    echo "vmbake: its root partition stays as large as it is"
find_root "$disk" "$work"

# A file of its own for the partition: of one with an offset in it resize2fs would cut off the end.
: > "$view"
exec 9> "$work/viewed"
flock 9
qemu-storage-daemon --daemonize --pidfile "$work/view.pid" \
    --blockdev "driver=file,filename=$disk,node-name=disk" \
    --blockdev "driver=raw,file=disk,offset=$start,size=$((size / 4096 * 4096)),node-name=part" \
    --export "type=fuse,id=part,node-name=part,mountpoint=$view,writable=on"
exec 9>&-
# It was not shut down properly, perhaps.
e2fsck -f -p "$view" || [ "$?" -lt 4 ] || unsupported "its root file system is damaged"
resize2fs "$view"
kill "$(cat "$work/view.pid")"
flock --shared "$work/viewed" true
