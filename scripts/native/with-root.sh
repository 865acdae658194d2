#!/bin/sh
# Mounts the root file system of an open disk, and has in-root.sh work on that.
#   with-root.sh DISK WORK NETWORK SHARE MOUNTER
# DISK: what the daemon of with-disk.sh shows, the other words as there. SHARE/adopt, if there, says that
# vmbake did not make this disk: its root gets all the room that there is, see adopt.sh.
# Runs in a mount namespace of its own. Exit status 70: fuse2fs died; 72: the image could not take all
# that was written; 73: the disk is of a kind that can't be opened here, the last line says why.
set -eu

disk=$1 work=$2 network=$3 share=$4 mounter=$5
root=$work/root
mkdir -p "$root"

# The lock of a daemon is free when it is dead.
dead() { flock --shared --nonblock "$work/$1" true; }
# What works on the disk without it would fail bit by bit, or not at all.
end_with() { # lock
    (flock --shared "$work/$1" true && kill -KILL "$container" 2> /dev/null) &
}
lost() {
    echo "vmbake: not all that was written reached the image" >&2
    exit 72
}
# shellcheck source=scripts/native/disk.sh
. "${0%/*}/disk.sh"

open_part() { # start and size in bytes, folder, lock
    if [ "$mounter" = kernel ]; then
        # The loop device that mount makes goes when the mount goes.
        mount -t ext4 -o "loop,offset=$1,sizelimit=$2,discard" "$disk" "$3"
        return
    fi
    # fakeroot: the rights of files are the kernel's business (default_permissions), which knows the namespace.
    exec 8> "$work/$4"
    flock 8
    fuse2fs "$disk" "$3" -o "fakeroot,allow_other,default_permissions,kernel_cache,suid,offset=$1"
    exec 8>&-
    mountpoint -q "$3"
}

close_part() { # folder, lock
    # The script's writes reach the image behind its back; this tells whether all of them could.
    sync -f "$1" || lost
    umount "$1"
    # fuse2fs writes what it still has when the mount is gone already, and tells nobody what became of that.
    [ "$mounter" = kernel ] || flock --shared "$work/$2" true
}

check_part() { # start; when nothing of the disk is mounted any more
    [ "$mounter" = fuse2fs ] || return 0
    # What was deleted goes from the image now, as fuse2fs only marks it as free.
    e2fsck -f -y -E discard "$disk?offset=$1" > "$work/e2fsck" 2>&1 ||
        { cat "$work/e2fsck" && lost; }
}

kind_of() { # start and size in bytes: what is in that part of the disk
    blkid --probe --offset "$1" --size "$2" --output export "$disk" || true
}

# The partition that has this name in an fstab.
find_part() { # LABEL=…, UUID=…, PARTUUID=… or a device; leaves start and size in bytes
    partx --bytes --noheadings --raw --output START,SIZE,NR,UUID "$disk" > "$work/parts"
    while read -r start size number uuid; do
        start=$((start * 512))
        case $1 in
            LABEL=* | UUID=*) ! kind_of "$start" "$size" | grep -qxF "$1" || return 0 ;;
            PARTUUID=*) [ "$1" != "PARTUUID=$uuid" ] || return 0 ;;
            /dev/*[!0-9]"$number") return 0 ;;
        esac
    done < "$work/parts"
    unsupported "nothing on the disk is the $1 that its fstab names"
}

fstab() { findmnt --tab-file "$root/etc/fstab" --noheadings --raw --output "$@" 2> /dev/null || true; }

[ ! -e "$share/adopt" ] || sh "${0%/*}/adopt.sh" "$disk" "$work"
find_root "$disk" "$work"
root_start=$start
open_part "$root_start" "$size" "$root" mounted
[ -e "$root/bin/sh" ] || unsupported "its largest partition, the root for all we know, has no /bin/sh"
if [ -e "$root/etc/fstab" ]; then
    others=$(fstab TARGET | grep -E '^/(usr|var)(/|$)' | tr '\n' ' ')
    [ ! "$others" ] || unsupported "it has file systems of their own for $others"
    boot=$(fstab SOURCE --mountpoint /boot)
fi
if [ "${boot:-}" ]; then
    find_part "$boot"
    boot_start=$start
    open_part "$boot_start" "$size" "$root/boot" mounted-boot
fi
if [ "$mounter" = fuse2fs ]; then
    # What others than root leave there belongs to subordinate IDs: nobody outside could remove it.
    mkdir "$work/share"
    mount -t tmpfs -o mode=755 tmpfs "$work/share"
    cp -R "$share/." "$work/share/"
    outside=$share share=$work/share
fi

apart="--mount --pid --uts --ipc --fork --kill-child=KILL"
[ "$network" = yes ] || apart="$apart --net"
status=0
# shellcheck disable=SC2086 # these are words
unshare $apart sh "${0%/*}/in-root.sh" "$root" "$share" "$network" < /dev/null &
container=$!
end_with alive
for lock in mounted mounted-boot; do
    [ ! -e "$work/$lock" ] || end_with "$lock"
done
wait "$container" || status=$?
[ "$mounter" = kernel ] || cp -R "$share/." "$outside/"

# Without the daemon nothing reaches the image any more, and unmounting would only say so at length.
! dead alive || exit 70
for lock in mounted mounted-boot; do
    if [ -e "$work/$lock" ] && dead "$lock"; then
        echo "vmbake: fuse2fs ended before its time" >&2
        exit 70
    fi
done
[ ! "${boot:-}" ] || close_part "$root/boot" mounted-boot
close_part "$root" mounted
[ ! "${boot:-}" ] || check_part "$boot_start"
check_part "$root_start"
exit "$status"
