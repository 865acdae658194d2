#!/bin/sh
# Opens a disk image on this host, mounts its root file system, and has in-root.sh work on that.
#   with-disk.sh IMAGE WORK NETWORK SHARE
# IMAGE: a qcow2. WORK: an empty folder. NETWORK: yes or no. SHARE: what in-root.sh shows the script.
#
# This is the first process of a PID namespace, in a mount namespace of its own. However it ends, the
# kernel ends the daemon, each mount and the loop device with it; what is done on the way out is for
# the image, which then has all that was written. Exit status 70: the daemon died; 72: the image could not
# take all that was written.
set -eu
trap 'exit 143' TERM

image=$1 work=$2 network=$3 share=$4
disk=$work/disk root=$work/root
mkdir -p "$root"
: > "$disk"

# Without the daemon nothing reaches the image any more, and unmounting would only say so at length.
# Its lock tells better than its process ID, which stays until somebody asks how it ended.
gone() { flock --shared "$@" "$work/alive" true; }
died() {
    echo "vmbake: qemu-storage-daemon ended before its time" >&2
    exit 70
}

# The export is there when --daemonize returns; descriptor 9 holds the lock while the daemon lives.
# Nothing waits for the host's own disk here: results are synced when they enter the store.
exec 9> "$work/alive"
flock 9
qemu-storage-daemon --daemonize --pidfile "$work/pid" \
    --blockdev "driver=file,filename=$image,node-name=file,discard=unmap,cache.no-flush=on" \
    --blockdev driver=qcow2,file=file,node-name=disk,discard=unmap,detect-zeroes=unmap,cache.no-flush=on \
    --export "type=fuse,id=disk,node-name=disk,mountpoint=$disk,writable=on" ||
    died
exec 9>&-
daemon=$(cat "$work/pid")
trap '! gone --nonblock || died' EXIT

# The root is the largest partition. A loop device that mount made goes when the mount goes.
partx --bytes --noheadings --raw --output SIZE,START "$disk" | sort -n | tail -n 1 > "$work/largest"
read -r size start < "$work/largest"
mount -t ext4 -o "loop,offset=$((start * 512)),sizelimit=$size,discard" "$disk" "$root"
trap - EXIT

apart="--mount --pid --uts --ipc --fork --kill-child=KILL"
[ "$network" = yes ] || apart="$apart --net"
status=0
# In the background, because a shell that waits for a foreground program hears no signal.
# shellcheck disable=SC2086 # these are words
unshare $apart sh "${0%/*}/in-root.sh" "$root" "$share" < /dev/null &
container=$!
# The lock is free when the daemon is dead. What works on the disk would fail bit by bit, or not at all.
(gone && kill -KILL "$container" 2> /dev/null) &
wait "$container" || status=$?

! gone --nonblock || died
# The script's writes reach the image behind its back; this tells whether all of them could.
if ! sync -f "$root"; then
    echo "vmbake: not all that was written reached the image" >&2
    exit 72
fi
umount "$root"
kill "$daemon" || died
gone
exit "$status"
