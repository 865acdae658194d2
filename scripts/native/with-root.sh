#!/bin/sh
# Mounts the root file system of an open disk, and has in-root.sh work on that.
#   with-root.sh DISK WORK NETWORK SHARE MOUNTER
# DISK: what the daemon of with-disk.sh shows, the other words as there.
# Runs in a mount namespace of its own. Exit status 70: fuse2fs died; 72: the image could not take all
# that was written.
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

# The root is the largest partition. A loop device that mount made goes when the mount goes.
partx --bytes --noheadings --raw --output SIZE,START "$disk" | sort -n | tail -n 1 > "$work/largest"
read -r size start < "$work/largest"
start=$((start * 512))
if [ "$mounter" = kernel ]; then
    mount -t ext4 -o "loop,offset=$start,sizelimit=$size,discard" "$disk" "$root"
else
    # fakeroot: the rights of files are the kernel's business (default_permissions), which knows the namespace.
    exec 8> "$work/mounted"
    flock 8
    fuse2fs "$disk" "$root" \
        -o "fakeroot,allow_other,default_permissions,kernel_cache,suid,offset=$start"
    exec 8>&-
    mountpoint -q "$root"
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
unshare $apart sh "${0%/*}/in-root.sh" "$root" "$share" < /dev/null &
container=$!
end_with alive
[ "$mounter" = kernel ] || end_with mounted
wait "$container" || status=$?
[ "$mounter" = kernel ] || cp -R "$share/." "$outside/"

# Without the daemon nothing reaches the image any more, and unmounting would only say so at length.
! dead alive || exit 70
if [ "$mounter" = fuse2fs ] && dead mounted; then
    echo "vmbake: fuse2fs ended before its time" >&2
    exit 70
fi
# The script's writes reach the image behind its back; this tells whether all of them could.
sync -f "$root" || lost
umount "$root"
if [ "$mounter" = fuse2fs ]; then
    # It writes what it still has when the mount is gone already, and tells nobody what became of that.
    flock --shared "$work/mounted" true
    # What was deleted goes from the image now, as fuse2fs only marks it as free.
    e2fsck -f -y -E discard "$disk?offset=$start" > "$work/e2fsck" 2>&1 ||
        { cat "$work/e2fsck" && lost; }
fi
exit "$status"
