#!/bin/sh
# Opens a disk image on this host, mounts its root file system, and has in-root.sh work on that.
#   with-disk.sh IMAGE WORK NETWORK SHARE MOUNTER
# IMAGE: a qcow2. WORK: an empty folder. NETWORK: yes or no. SHARE: what in-root.sh shows the script.
# MOUNTER: kernel, or fuse2fs where the kernel lets nobody mount ext4: in a user namespace.
#
# This is the first process of a PID namespace, in a mount namespace of its own. However it ends, the
# kernel ends the daemons, each mount and the loop device with it; what is done on the way out is for
# the image, which then has all that was written. Exit status 70: a daemon died; 72: the image could not
# take all that was written.
set -eu
trap 'exit 143' TERM

image=$1 work=$2 network=$3 share=$4 mounter=$5
disk=$work/disk root=$work/root
mkdir -p "$root"
: > "$disk"

# The export is there when --daemonize returns; descriptor 9 holds the lock while the daemon lives.
# Nothing waits for the host's own disk here: results are synced when they enter the store.
exec 9> "$work/alive"
flock 9
qemu-storage-daemon --daemonize --pidfile "$work/pid" \
    --blockdev "driver=file,filename=$image,node-name=file,discard=unmap,cache.no-flush=on" \
    --blockdev driver=qcow2,file=file,node-name=disk,discard=unmap,detect-zeroes=unmap,cache.no-flush=on \
    --export "type=fuse,id=disk,node-name=disk,mountpoint=$disk,writable=on"
exec 9>&-
daemon=$(cat "$work/pid")

# The root is the largest partition. A loop device that mount made goes when the mount goes.
partx --bytes --noheadings --raw --output SIZE,START "$disk" | sort -n | tail -n 1 > "$work/largest"
read -r size start < "$work/largest"
if [ "$mounter" = kernel ]; then
    mount -t ext4 -o "loop,offset=$((start * 512)),sizelimit=$size,discard" "$disk" "$root"
else
    # fakeroot: the rights of files are the kernel's business (default_permissions), which knows the namespace.
    exec 8> "$work/mounted"
    flock 8
    fuse2fs "$disk" "$root" \
        -o "fakeroot,allow_other,default_permissions,kernel_cache,suid,offset=$((start * 512))"
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
# In the background, because a shell that waits for a foreground program hears no signal.
# shellcheck disable=SC2086 # these are words
unshare $apart sh "${0%/*}/in-root.sh" "$root" "$share" < /dev/null &
container=$!
# The lock is free when the daemon is dead. What works on the disk would fail bit by bit, or not at all.
(flock "$work/alive" true && kill -KILL "$container" 2> /dev/null) &
[ "$mounter" = kernel ] || (flock "$work/mounted" true && kill -KILL "$container" 2> /dev/null) &
wait "$container" || status=$?
[ "$mounter" = kernel ] || cp -R "$share/." "$outside/"

# Without the daemon nothing reaches the image any more, and unmounting would only say so at length.
died() {
    echo "vmbake: $1 ended before its time" >&2
    exit 70
}
kill -0 "$daemon" || died qemu-storage-daemon
[ "$mounter" = kernel ] || ! flock --nonblock "$work/mounted" true || died fuse2fs
# The script's writes reach the image behind its back; this tells whether all of them could.
lost() {
    echo "vmbake: not all that was written reached the image" >&2
    exit 72
}
sync -f "$root" || lost
umount "$root"
if [ "$mounter" = fuse2fs ]; then
    # It writes what it still has when the mount is gone already, and tells nobody what became of that.
    flock "$work/mounted" true
    # What was deleted goes from the image now, as fuse2fs only marks it as free.
    e2fsck -f -y -E discard "$disk?offset=$((start * 512))" > "$work/e2fsck" 2>&1 \
        || { cat "$work/e2fsck" && lost; }
fi
kill "$daemon" || died qemu-storage-daemon
flock "$work/alive" true
exit "$status"
